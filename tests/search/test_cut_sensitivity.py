"""One group of channels cut at a time: the figures are those of the really cut network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.data.dataset import EMPTY, Array
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.prune.cutting import cut
from lilliput.prune.groups import analyse
from lilliput.prune.importance import class_scores
from lilliput.search import cut_sensitivity
from lilliput.search.cut_sensitivity import cut_sensitivities
from lilliput.search.rungs import drop_in_torch
from lilliput.testing.tiny import tiny_context, tiny_network

RATIOS = (0.25, 0.5)


def feeds() -> Iterator[tuple[Array, ...]]:
    rng = np.random.default_rng(0)
    for _ in range(2):
        yield (rng.normal(0, 1, (12, 3, 8, 8)).astype(np.float32),)


def test_figures_are_those_of_the_network_without_these_channels(tmp_path: Path) -> None:
    context, network = tiny_context(tmp_path), tiny_network()
    before = {name: t.clone() for name, t in network.module.state_dict().items()}
    rows = cut_sensitivities(network, feeds, context, ratios=RATIOS)
    analysis = analyse(network)
    groups = {group.name: group for group in analysis.prunable}
    assert {(row.group, row.ratio) for row in rows} == {(g, r) for g in groups for r in RATIOS}
    scores = class_scores(
        network,
        analysis,
        "output",
        batches=cut_sensitivity._small(feeds, network),
        rng=context.rng("sensitivity", "output"),
    )
    for row in rows:
        cheapest = sorted(groups[row.group].classes, key=lambda n: (scores[n], n))[: row.gone]
        smaller = cut(network, analysis, cheapest)
        assert row.gone == int(row.ratio * row.width)
        assert row.error == pytest.approx(error_of(smaller, network), rel=1e-4)
        assert row.drop == pytest.approx(drop_in_torch(smaller, context.data.validation, context))
        assert row.saved_params == pytest.approx(1 - smaller.params / network.params)
        assert 0 < row.saved_macs < 1
    for name, tensor in network.module.state_dict().items():
        assert torch.equal(tensor, before[name])


def error_of(ours: Network, theirs: Network) -> float:
    with torch.no_grad():
        gaps, whole = [], []
        for (batch,) in feeds():
            x = torch.from_numpy(batch)
            a, b = ours.module(x), theirs.module(x)
            gaps.append((a - b).double())
            whole.append(b.double())
    return float(torch.cat(gaps).norm() / torch.cat(whole).norm())


def test_the_group_that_loses_most_comes_first_and_its_cuts_stay_together(tmp_path: Path) -> None:
    rows = cut_sensitivities(tiny_network(), feeds, tiny_context(tmp_path), ratios=RATIOS)
    worst = [max(a.error, b.error) for a, b in zip(rows[::2], rows[1::2], strict=True)]
    assert worst == sorted(worst, reverse=True)
    assert [row.ratio for row in rows] == [*RATIOS] * (len(rows) // 2)


def test_without_validation_examples_there_are_errors_alone(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    context = replace(context, data=replace(context.data, validation=EMPTY))
    rows = cut_sensitivities(tiny_network(), feeds, context, ratios=(0.5,))
    assert rows
    assert {row.drop for row in rows} == {None}


def test_a_share_that_comes_to_no_channel_has_no_row(tmp_path: Path) -> None:
    assert not cut_sensitivities(tiny_network(), feeds, tiny_context(tmp_path), ratios=(0.1,))


def test_a_network_of_a_fixed_batch_is_asked_in_whole_batches() -> None:
    network = replace(tiny_network(), inputs=(TensorSpec(name="x", shape=(12, 3, 8, 8)),))
    assert [len(x) for (x,), _ in cut_sensitivity._small(feeds, network)] == [12, 12]
    assert [len(x) for (x,), _ in cut_sensitivity._small(feeds, tiny_network())] == [8, 4, 8, 4]


def test_a_network_without_channels_to_cut_is_refused_with_the_reason(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    network = Network(module, (TensorSpec(name="x", shape=(None, 3, 8, 8)),), "flat")
    context = tiny_context(tmp_path, original=Candidate("original", network=network))
    with pytest.raises(Refused, match="no channel of 'flat' can be cut: "):
        cut_sensitivities(network, feeds, context, ratios=RATIOS)

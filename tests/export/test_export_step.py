"""The stage: a file in the run's folder that says where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec, read_metadata
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import Refused
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.steps.export import Export
from lilliput.target import Target
from lilliput.tasks.base import Batch


class Guess:
    """As much of a task as export asks for."""

    def batches(
        self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str
    ) -> Iterator[Batch]:
        assert layout == "image"
        for start in range(0, len(split), size):
            yield Batch((preprocessing(np.asarray(split.inputs[start : start + size])),), None)

    def agreement(self, ours: np.ndarray, reference: np.ndarray) -> tuple[str, float]:
        return "examples alike", float(len(ours))

    def settings(self) -> dict[str, Any]:
        return {"name": "guess"}


class Notes:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def note(self, event: str, **facts: Any) -> None:
        self.events.append((event, facts))


def context(folder: Path, network: Network, data: Dataset) -> Context:
    original = Candidate(id="original", network=network)
    target = Target(isa=("avx2",))
    return Context(data, Guess(), target, original, folder, journal=Notes())  # type: ignore[arg-type]


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 4)).eval()
    spec = TensorSpec(name="input", shape=(None, 3, 8, 8))
    return Network(net, (spec,), preprocessing=Preprocessing(mean=(0.5,)))


@pytest.fixture
def data() -> Dataset:
    pictures = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    return Dataset("pictures", validation=Split(pictures))


def test_a_file_with_its_history(tmp_path: Path, network: Network, data: Dataset) -> None:
    world = context(tmp_path, network, data)
    history = ({"prune_channels": {"ratio": 0.5}},)
    candidate = Candidate(id="c7", network=network, parent="original", history=history)
    step = Export()
    step.requires(candidate, world)
    made = step.apply(candidate, world)
    assert made.the_artifact().path == tmp_path / "c7.onnx"
    inside = read_metadata(tmp_path / "c7.onnx")
    assert inside.task == {"name": "guess"}
    assert inside.recipe == [{"prune_channels": {"ratio": 0.5}}]
    assert inside.isa == ("avx2",)
    assert inside.parent == "original"
    assert inside.preprocessing == network.preprocessing
    ((event, facts),) = world.journal.events  # type: ignore[attr-defined]
    assert event == "exported"
    assert facts["candidate"] == "c7"
    assert facts["agreement"] == {"measure": "examples alike", "value": 32.0}


def test_the_seed_that_divided_the_examples_is_inside_where_it_is_not_the_usual_one(
    tmp_path: Path, network: Network, data: Dataset
) -> None:
    for seed in (0, 3):
        world = replace(context(tmp_path, network, data), seed=seed)
        Export().apply(Candidate(id=f"c{seed}", network=network), world)
        path = tmp_path / f"c{seed}.onnx"
        assert read_metadata(path).seed == seed
        assert (b'"seed":3' in path.read_bytes()) == (seed == 3)


def test_without_data_random_inputs_are_enough(tmp_path: Path, network: Network) -> None:
    world = context(tmp_path, network, Dataset("nothing"))
    made = Export(opset=17).apply(Candidate(id="c", network=network), world)
    assert made.the_artifact().facts["opset"] == 17


def test_a_fixed_batch_bounds_the_real_inputs(tmp_path: Path, data: Dataset) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten()).eval()
    network = Network(net, (TensorSpec(name="input", shape=(4, 3, 8, 8)),))
    made = Export().apply(Candidate(id="c", network=network), context(tmp_path, network, data))
    assert made.the_artifact().facts["agreement"]["value"] == 4.0


def test_a_file_is_not_exported_again(tmp_path: Path, network: Network, data: Dataset) -> None:
    world = context(tmp_path, network, data)
    made = Export().apply(Candidate(id="c", network=network), world)
    with pytest.raises(Refused, match=r"export works on a torch network, and 'c' is an exported"):
        Export().requires(made, world)

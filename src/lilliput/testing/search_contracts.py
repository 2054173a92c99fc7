"""What every search and every encoding promises, as tests that a plug-in's author inherits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.network import Network, flat_outputs
from lilliput.prune.groups import analyse
from lilliput.prune.importance import class_scores
from lilliput.runs.journal import JournalFile
from lilliput.runtimes.opening import open_session
from lilliput.search.genomes import Encoding, Genome, Ground
from lilliput.search.grids import FLOAT
from lilliput.search.operators import inverted
from lilliput.steps.base import Search
from lilliput.target import Target
from lilliput.testing.contracts import StepContract, fingerprint, pytest_parametrize, shapes_of
from lilliput.testing.tiny import tiny_context, tiny_network

DRAWS = 30

SIZED = 300
"""Samples whose sizes are looked at: enough for both ends to be among them."""

PICTURES = 1000
CLOSE = 1e-4
"""How far a file's answers may be from its network's, on so many inputs."""


@cache
def tiny_ground() -> Ground:
    """What an encoding of the tiny network stands on; made once, and not to be changed."""
    network = tiny_network()
    analysis = analyse(network)
    return Ground(network, analysis, class_scores(network, analysis, "l2"))


@cache
def tiny_grounds() -> Mapping[str, Ground]:
    """Free; with every restriction at once; with a single group of which something may go."""
    free = tiny_ground()
    first, second, *others = (frozenset(group.classes) for group in free.analysis.prunable)
    return {
        "free": free,
        "restricted": replace(
            free,
            protected=first | set(sorted(second)[:1]),
            fixed=frozenset({"stem"}),
            multiple_of=3,
            bits=(2, 8),
            activations=True,
        ),
        "one group": replace(free, protected=frozenset(second.union(*others))),
    }


class EncodingContract:
    """Subclass and set `encodings`: functions that make an encoding of anything.

    What is not expressed as a `Variant` needs an `is_original` of its own. `spread` is the least
    standard deviation of the sizes of samples, shares of the largest: it is 0.29 where all sizes
    are as likely; genes that are drawn one by one all end up near a half.
    """

    encodings: Sequence[Callable[[], Encoding[Any]]] = ()
    spread: float = 0.2

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        pytest_parametrize(metafunc, "made", self.encodings)

    def is_original(self, expressed: Any) -> bool:
        """Whether what a genome expresses changes nothing."""
        bits = {*expressed.weight_bits.values(), *expressed.activation_bits.values()}
        return not expressed.gone and bits <= {FLOAT}

    def drawn(self, encoding: Encoding[Any], count: int = DRAWS) -> list[Genome]:
        rng = np.random.default_rng(0)
        return [encoding.sample(rng) for _ in range(count)]

    def test_genomes_are_rows_of_allowed_values(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding, rng = made(), np.random.default_rng(1)
        genomes = [*encoding.seeds(), *self.drawn(encoding)]
        genomes += [encoding.mutate(genome, rng) for genome in genomes]
        for genome in genomes:
            assert genome.shape == encoding.levels.shape
            assert ((genome >= 0) & (genome < encoding.levels)).all()

    def test_repair_is_idempotent_and_keeps_what_is_sound(
        self, made: Callable[[], Encoding[Any]]
    ) -> None:
        encoding = made()
        for genome in [*encoding.seeds(), *self.drawn(encoding)]:
            assert np.array_equal(encoding.repair(genome), genome)
        for level in (0, 10**6):
            worst = np.minimum(np.full(len(encoding.levels), level), encoding.levels - 1)
            once = encoding.repair(worst)
            assert np.array_equal(encoding.repair(once), once)
            encoding.express(once)

    def test_crossover_hands_on_what_both_have(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding, rng = made(), np.random.default_rng(2)
        genomes = self.drawn(encoding)
        for one, other in pairwise(genomes):
            first, second = encoding.crossover(one, other, rng)
            pairs = np.sort([first, second], axis=0), np.sort([one, other], axis=0)
            assert np.array_equal(*pairs)
            for child in encoding.crossover(one, one, rng):
                assert np.array_equal(child, one)

    def test_operators_leave_their_genomes_alone(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding, rng = made(), np.random.default_rng(3)
        one, other = self.drawn(encoding, 2)
        before = one.copy(), other.copy()
        encoding.mutate(one, rng)
        encoding.crossover(one, other, rng)
        encoding.repair(one)
        inverted(one, encoding.levels, 0, len(one), rng)
        assert np.array_equal(one, before[0])
        assert np.array_equal(other, before[1])

    def test_mutation_moves_and_its_generator_decides(
        self, made: Callable[[], Encoding[Any]]
    ) -> None:
        encoding = made()
        genome = self.drawn(encoding, 1)[0]
        twice = [
            [encoding.mutate(genome, rng).tolist() for _ in range(DRAWS)]
            for rng in (np.random.default_rng(4), np.random.default_rng(4))
        ]
        assert twice[0] == twice[1]
        assert any(mutant != genome.tolist() for mutant in twice[0])

    def test_samples_differ_and_seeds_are_unlike(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding = made()
        assert len({tuple(genome) for genome in self.drawn(encoding)}) > 1
        seeds = [tuple(genome) for genome in encoding.seeds()]
        assert len(seeds) == len(set(seeds))

    def test_the_first_seed_is_the_original(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding = made()
        first, *others = (encoding.express(genome) for genome in encoding.seeds())
        assert self.is_original(first)
        assert not any(map(self.is_original, others))

    def test_samples_spread_over_all_sizes(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding = made()
        sizes = np.sum(self.drawn(encoding, SIZED), axis=1) / (encoding.levels - 1).sum()
        assert sizes.min() < 0.15
        assert sizes.max() > 0.85
        assert sizes.std() > self.spread

    def test_descriptions_are_json(self, made: Callable[[], Encoding[Any]]) -> None:
        encoding = made()
        for genome in [*encoding.seeds(), *self.drawn(encoding, 3)]:
            told = encoding.describe(encoding.repair(genome))
            assert told
            assert json.loads(json.dumps(told)) == told


class SearchContract:
    """Subclass and set `searches`: instances whose settings make them short."""

    searches: Sequence[Search] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        pytest_parametrize(metafunc, "stage", self.searches)

    def given(self, stage: Search, folder: Path, **settings: Any) -> tuple[Candidate, Context]:  # noqa: ARG002
        """A candidate and a context whose target has scripted times."""
        folder.mkdir(exist_ok=True)
        context = tiny_context(folder, target=Target(runtime="null"), **settings)
        return context.original, context

    def found(self, stage: Search, folder: Path, journal: Any) -> list[Candidate]:
        given, context = self.given(stage, folder)
        stage.requires(given, context)
        return list(stage.explore(given, replace(context, journal=journal)))

    def check_file(self, network: Network, path: Path) -> None:
        """The network's file answers as the network, and decides alike."""
        inputs = network.example(PICTURES)
        with torch.no_grad():
            ours = [t.numpy() for t in flat_outputs(network.module.eval()(*inputs))]
        with closing(open_session(export_network(network, path).path, Target())) as session:
            theirs = session.run([x.numpy() for x in inputs])
        for expected, found in zip(ours, theirs, strict=True):
            assert np.abs(found - expected).max() <= CLOSE
            assert np.array_equal(found.argmax(1), expected.argmax(1))

    def test_what_it_finds_is_of_the_promised_kind_and_has_a_history(
        self, stage: Search, tmp_path: Path
    ) -> None:
        given, context = self.given(stage, tmp_path)
        before = fingerprint(given)
        stage.requires(given, context)
        children = list(stage.explore(given, context))
        assert fingerprint(given) == before
        assert children
        assert len({child.id for child in children}) == len(children)
        for child in children:
            assert child.kind == stage.gives
            assert shapes_of(child) == shapes_of(given)
            if child.network is not None:
                self.check_file(child.network, tmp_path / "child.onnx")
            if child.id != given.id:
                assert (child.parent, child.stage) == (given.id, stage.name)
                assert child.history[-1] == child.settings
                assert json.loads(json.dumps(child.settings)) == child.settings

    def test_same_seed_and_a_stop_on_the_way_give_the_same(
        self, stage: Search, tmp_path: Path
    ) -> None:
        with JournalFile(tmp_path / "whole.jsonl") as journal:
            whole = self.found(stage, tmp_path / "whole", journal)
            entries = len(journal.entries)
        with (
            JournalFile(tmp_path / "stopped.jsonl") as journal,
            pytest.raises(KeyboardInterrupt),
        ):
            self.found(stage, tmp_path / "stopped", Halting(journal, entries // 2))
        with JournalFile(tmp_path / "stopped.jsonl") as journal:
            resumed = self.found(stage, tmp_path / "stopped", journal)
            done = len(journal.entries)
            again = self.found(stage, tmp_path / "stopped", journal)
            assert len(journal.entries) == done, "what was done is done again"
        for other in (resumed, again):
            assert [fingerprint(c) for c in other] == [fingerprint(c) for c in whole]
            assert [c.id for c in other] == [c.id for c in whole]

    test_wrong_kind_is_refused_with_a_way_out = (
        StepContract.test_wrong_kind_is_refused_with_a_way_out
    )
    test_recipe_round_trip = StepContract.test_recipe_round_trip
    test_unknown_settings_are_refused = StepContract.test_unknown_settings_are_refused
    test_every_setting_and_the_source_are_described = (
        StepContract.test_every_setting_and_the_source_are_described
    )
    task = StepContract.task


class Halting:
    """A journal that ends everything after so many entries, as Ctrl-C would."""

    def __init__(self, journal: JournalFile, most: int) -> None:
        self._journal, self._most = journal, most

    def note(self, event: str, /, **facts: Any) -> None:
        self._journal.note(event, **facts)
        self._check()

    def once(self, key: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        result = self._journal.once(key, work)
        self._check()
        return result

    def recall(self, key: str) -> dict[str, Any] | None:
        return self._journal.recall(key)

    def _check(self) -> None:
        if len(self._journal.entries) >= self._most:
            raise KeyboardInterrupt

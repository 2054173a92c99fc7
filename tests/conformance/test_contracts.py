"""Every registered step, runtime and task keeps its contract; a new one is tested by its name."""

from __future__ import annotations

from itertools import product, starmap

import pytest

from lilliput.errors import LilliputError
from lilliput.frequency.form import PackedForm
from lilliput.network import Edit
from lilliput.prune.edits import EDITS, cut_edit, frequency_edit, pack_edit, remove_edit
from lilliput.runtimes.base import RUNTIMES
from lilliput.search.genomes import ENCODINGS, Encoding, Variant
from lilliput.steps.base import STAGES, Search, Selection, Step
from lilliput.tasks.base import TASKS
from lilliput.testing import (
    EditContract,
    EncodingContract,
    RuntimeContract,
    SearchContract,
    StepContract,
    TaskContract,
)
from lilliput.testing.search_contracts import tiny_grounds
from lilliput.track import TRACKERS

SETTINGS: dict[str, list[dict[str, object]]] = {
    "distill": [{"epochs": 1, "batch_size": 32}, {"epochs": 1, "batch_size": 16, "imitation": 1}],
    "distill_adversarial": [
        {"epochs": 1, "batch_size": 32, "warmup": 0, "rise": 0},
        {"epochs": 1, "batch_size": 16, "game": "mmd", "imitation": 0},
    ],
    "export": [{}, {"opset": 17}],
    "finetune": [{"epochs": 1, "batch_size": 32}, {"epochs": 0}],
    "pack": [{}],
    "pack_dct": [
        {"epochs": 1, "batch_size": 32, "rounds": 2},
        {"epochs": 0, "centres": 3, "tables": "layer"},
    ],
    "prune_blocks": [{"count": 1}, {"remove": ["block1"]}],
    "prune_channels": [{"ratio": 0.25, "multiple_of": 1}, {"keep_macs": 0.6, "multiple_of": 1}],
    "prune_weights": [
        {"density": 0.3, "small": 0},
        {"density": 0.3, "epochs": 1, "regrow": True, "score": "lamp", "batch_size": 32},
        {"pattern": "2:4", "score": "fisher", "score_images": 16},
    ],
    "run_dct": [
        {"layers": ["block1.*"], "keep": 4, "epochs": 1, "batch_size": 32},
        {"layers": ["stem"], "basis": "svd", "energy": 0.8, "epochs": 0},
    ],
    "quantize": [{"calibration_images": 16}],
    "quantize_weights": [
        {"bits": 3, "per": "channel", "economy": 0.01, "importance": "fisher", "score_images": 16},
        {"bits": 2, "epochs": 1, "batch_size": 32},
    ],
    "share_weights": [
        {"values": 8, "start": "kmeans++", "bias_values": 4},
        {"values": 4, "economy": 0.01, "importance": "fisher", "epochs": 1, "batch_size": 32},
    ],
}
PICTURES: dict[str, dict[str, object]] = {
    "distill": {"epochs": 1, "batch_size": 4},
    "export": {},
    "pack_dct": {"epochs": 0, "centres": 3},
    "prune_channels": {"ratio": 0.25, "multiple_of": 1},
    "prune_weights": {"density": 0.3, "small": 0},
    "run_dct": {"layers": ["second"], "keep": 4, "epochs": 0},
    "share_weights": {"values": 8},
}
"""Settings for a network without classes, of steps that need none."""
EXAMPLES: dict[str, Edit] = {
    "cut_channels": cut_edit(
        (name, dim, 8, (2, 5))
        for name, dim in (
            ("block1.conv1.weight", 0),
            ("block1.bn1.weight", 0),
            ("block1.bn1.bias", 0),
            ("block1.bn1.running_mean", 0),
            ("block1.bn1.running_var", 0),
            ("block1.conv2.weight", 1),
        )
    ),
    "frequency_convolution": frequency_edit("stem", 4),
    "pack_kernels": pack_edit("stem", PackedForm("dct", (8, 3), (3, 3))),
    "remove_block": remove_edit("block1"),
}
BRIEF: dict[str, object] = {
    "population": 4,
    "generations": 2,
    "screen_examples": 24,
    "rank_examples": 0,
    "screen_steps": 2,
    "tau_sample": 2,
    "points": 2,
    "epochs": 1,
    "batch_size": 32,
    "refit_examples": 32,
    "max_drop": 90.0,
}
SEARCHES: dict[str, list[dict[str, object]]] = {
    "search_bits": [
        BRIEF
        | {
            "filters": "widths",
            "activations": True,
            "objectives": ["loss", "macs", "coded_bytes"],
        }
    ],
    "search_filters": [
        BRIEF | {"score_images": 32, "algorithm": "nsga3"},
        BRIEF | {"encoding": "masks", "algorithm": "paper", "criterion": "l2"},
    ],
    "shrink": [
        {
            "architectures": 1,
            "finalists": 1,
            "epochs": 1,
            "screen_steps": 2,
            "widths": [0.0],
            "most_blocks": 1,
            "batch_size": 32,
        }
    ],
}
SCRIPTED = ("null",)
"""Runtimes whose outputs are a script and not a network's."""


def steps() -> list[Step]:
    made = []
    for name in STAGES:
        kind = STAGES[name]
        if issubclass(kind, Step):
            assert name in SETTINGS, f"give {name!r} settings for the contract tests"
            made += [kind.model_validate(settings) for settings in SETTINGS[name]]
    return made


def on_pictures() -> list[Step]:
    kinds = [(STAGES[name], settings) for name, settings in PICTURES.items()]
    return [kind.model_validate(settings) for kind, settings in kinds if issubclass(kind, Step)]


def searches() -> list[Search]:
    made = []
    for name in STAGES:
        kind = STAGES[name]
        if issubclass(kind, Search):
            assert name in SEARCHES, f"give {name!r} settings for the contract tests"
            made += [kind.model_validate(settings) for settings in SEARCHES[name]]
    return made


class TestSearches(SearchContract):
    searches = searches()


class Registered:
    """Makes the encoding of this name on this ground of the tiny network."""

    def __init__(self, encoding: str, ground: str) -> None:
        self.encoding, self.ground = encoding, ground
        self.name = f"{encoding}, {ground}"

    def __call__(self) -> Encoding[Variant]:
        return ENCODINGS[self.encoding](tiny_grounds()[self.ground])


JOINED = [name for name in ENCODINGS if "+" in name]
SINGLE = [name for name in ENCODINGS if name not in JOINED]


class TestEncodings(EncodingContract):
    encodings = tuple(starmap(Registered, product(SINGLE, tiny_grounds())))


class TestJoinedEncodings(EncodingContract):
    """Their parts are drawn one by one, so that both are seldom small at once."""

    encodings = tuple(starmap(Registered, product(JOINED, tiny_grounds())))
    spread = 0.17


@pytest.mark.usefixtures("scripted_stopwatch")
class TestSteps(StepContract):
    stages = steps()


@pytest.mark.usefixtures("scripted_stopwatch")
class TestStepsOnPictures(StepContract):
    stages = on_pictures()
    task = "super_resolution"


def edits() -> list[Edit]:
    missing = set(EDITS).difference(EXAMPLES)
    assert not missing, f"give {missing} an example for the contract tests"
    return list(EXAMPLES.values())


class TestEdits(EditContract):
    edits = edits()


class TestRuntimes(RuntimeContract):
    runtimes = tuple(RUNTIMES[name] for name in RUNTIMES if name not in SCRIPTED)


class TestTasks(TaskContract):
    tasks = TASKS.names()


@pytest.mark.parametrize(
    "registry", [STAGES, RUNTIMES, TASKS, ENCODINGS, EDITS, TRACKERS], ids=lambda r: r.kind
)
def test_unknown_names_get_the_nearest(registry) -> None:  # type: ignore[no-untyped-def]
    known = next(iter(registry))
    with pytest.raises(LilliputError, match=registry.kind) as error:
        registry[known[:-1]]
    assert known in str(error.value)


def test_selections_are_stages_too() -> None:
    assert all(
        issubclass(STAGES[name], (Step, Selection)) or hasattr(STAGES[name], "explore")
        for name in STAGES
    )

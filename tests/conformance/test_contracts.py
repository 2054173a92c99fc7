"""Every registered step, runtime and task keeps its contract; a new one is tested by its name."""

from __future__ import annotations

import pytest

from lilliput.errors import LilliputError
from lilliput.runtimes.base import RUNTIMES
from lilliput.steps.base import STAGES, Selection, Step
from lilliput.tasks.base import TASKS
from lilliput.testing import RuntimeContract, StepContract, TaskContract

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


class TestSteps(StepContract):
    stages = steps()


class TestRuntimes(RuntimeContract):
    runtimes = tuple(RUNTIMES[name] for name in RUNTIMES if name not in SCRIPTED)


class TestTasks(TaskContract):
    tasks = TASKS.names()


@pytest.mark.parametrize("registry", [STAGES, RUNTIMES, TASKS], ids=lambda r: r.kind)
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

"""The claim of adversarial distillation: its arms are comparable, and its table is whole."""

from pathlib import Path

import torch
from benchmarks.claims.adversarial_kd import (
    ARMS,
    BOTH,
    CE,
    GAME,
    HINTS,
    Job,
    Made,
    ShuffledRival,
    jobs_of,
    rows_of,
    step_of,
)
from benchmarks.harness import Options

from lilliput.distill.adversary import Discriminator, Ramp, Rival, Rules
from lilliput.distill.features import Adapter
from lilliput.distill.losses import Observed


def test_arms_have_the_same_epochs_rate_and_batches() -> None:
    steps = [step_of(Job("cifar", arm, 0), 7).model_dump() for arm in ARMS]
    shared = ("epochs", "learning_rate", "batch_size", "weight_decay", "optimizer")
    assert len({tuple(step[name] for name in shared) for step in steps}) == 1
    assert [step_of(Job("cifar", arm, 0), 7).name for arm in (CE, HINTS, GAME)] == [
        "finetune",
        "distill",
        "distill_adversarial",
    ]


def test_every_arm_and_seed_is_trained_once(tmp_path: Path) -> None:
    jobs = jobs_of(Options("adversarial-kd", seeds=(0, 1, 2), home=tmp_path))
    assert len({job.stem for job in jobs}) == len(jobs) == 3 * (1 + len(ARMS))


def test_rows_are_means_with_least_and_largest() -> None:
    made = {
        Job(data, arm, seed): Made(Path(), error + seed / 10, 1.0)
        for data, arm, error in [("mnist", BOTH, 0.5), *(("cifar", arm, 20.0) for arm in ARMS)]
        for seed in (0, 1, 2)
    }
    first, *others = rows_of(made)
    assert (first.figure, first.interval, first.holds) == (0.6, (0.5, 0.7), True)
    assert [row.name.removeprefix("CIFAR-10, ") for row in others] == [*ARMS]
    assert all(row.goal is None and row.figure == 20.1 for row in others)


def test_the_control_sees_the_features_of_other_pictures() -> None:
    def learnt(kind: type[Rival], theirs: torch.Tensor) -> torch.Tensor:
        rival = kind(
            Discriminator(2, 3, dropout=0.0),
            Adapter(2, 2, relu=False),
            ("a", "b"),
            Rules(condition="teacher"),
            Ramp(1.0),
        )
        scores = torch.tensor([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])
        seen = Observed(
            torch.zeros(3, 3),
            teacher_output=scores,
            features={"a": torch.zeros(3, 2)},
            teacher_features={"b": theirs},
        )
        rival.observed(seen, 0.5)
        return rival.discriminator.layers[0].get_parameter("parametrizations.weight.original")

    theirs = torch.tensor([[1.0, 0], [0, 1], [1, 1]])
    control = learnt(ShuffledRival, theirs)
    assert torch.equal(control, learnt(Rival, theirs.roll(1, 0)))
    assert not torch.equal(control, learnt(Rival, theirs))

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Hints, Imitation, Observed, Truth
from lilliput.distill.sources import Examples
from lilliput.distill.speed import Gear, best_gear, torch_threads
from lilliput.testing.tiny import tiny_context, tiny_network


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


def test_a_gear_is_chosen_among_what_is_allowed(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    source = Examples(context.data, context.task, tiny_network().preprocessing, 32)
    assert best_gear(tiny_network(), source, context) == Gear(1, "float32")
    allowed = replace(context, train_threads=2, train_precision="bfloat16")
    gear = best_gear(tiny_network(), source, allowed)
    assert gear.threads in (1, 2)
    assert gear.precision in ("float32", "bfloat16")


def test_the_fastest_gear_wins_where_it_saves_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(tiny_context(tmp_path), train_threads=2, train_precision="bfloat16")
    source = Examples(context.data, context.task, tiny_network().preprocessing, 32)

    def chosen(seconds: dict[Gear, float]) -> Gear:
        monkeypatch.setattr(
            "lilliput.distill.speed.pass_seconds", lambda _n, _i, gear: seconds[gear]
        )
        return best_gear(tiny_network(), source, context)

    one, two = Gear(1, "float32"), Gear(2, "float32")
    coarse, both = Gear(1, "bfloat16"), Gear(2, "bfloat16")
    assert chosen({one: 1.0, two: 0.9, coarse: 0.9, both: 0.85}) == one
    assert chosen({one: 1.0, two: 0.9, coarse: 0.7, both: 0.6}) == coarse
    assert chosen({one: 1.0, two: 0.6, coarse: 0.6, both: 0.3}) == both


def test_a_training_in_bfloat16_leaves_float32_weights_near_those_of_float32(
    tmp_path: Path,
) -> None:
    fine = tiny_context(tmp_path)
    coarse = replace(fine, train_precision="bfloat16")
    teacher, student = tiny_network(seed=3), tiny_network(seed=4)
    source = Examples(fine.data, fine.task, student.preprocessing, 32)
    tap = next(n for n, m in student.module.named_modules() if isinstance(m, nn.Conv2d))
    terms = [
        Truth(fine.task),
        Imitation(fine.task),
        Hints({tap: (student.module.get_submodule(tap).out_channels,) * 2}, weight=0.1),
    ]

    def trained(context):  # type: ignore[no-untyped-def]
        schedule = Schedule(epochs=1, learning_rate=0.01)
        return train(student, terms, source, schedule, context, key="bf16", teacher=teacher)

    first, second = (dict(trained(c).module.named_parameters()) for c in (fine, coarse))
    assert all(p.dtype == torch.float32 for p in second.values())
    moved = sum(float((first[n] - student.module.get_parameter(n)).detach().norm()) for n in first)
    apart = sum(float((first[n] - second[n]).detach().norm()) for n in first)
    assert 0 < apart < 0.2 * moved


def test_a_teacher_answers_in_the_precision_of_the_training_and_is_heard_in_float32(
    tmp_path: Path,
) -> None:
    context = replace(tiny_context(tmp_path), train_precision="bfloat16")
    teacher = tiny_network(seed=3)
    tap = next(n for n, m in teacher.module.named_modules() if isinstance(m, nn.Conv2d))
    heard: list[tuple[Tensor, Tensor, Tensor]] = []
    shown: list[tuple[Tensor, ...]] = []

    class Noted(Examples):
        def epoch(self, rng):  # type: ignore[no-untyped-def]
            for inputs, target in super().epoch(rng):
                shown.append(inputs)
                yield inputs, target

    class Listener(Truth):
        def __call__(self, seen: Observed) -> Tensor:
            assert seen.teacher_output is not None
            with torch.no_grad():
                exact = teacher.module.eval()(*shown[-1])
            heard.append((seen.teacher_output, seen.teacher_features[tap], exact))
            return super().__call__(seen)

    source = Noted(context.data, context.task, teacher.preprocessing, 32)
    schedule = Schedule(epochs=1, learning_rate=0.01)
    terms = [Listener(context.task, taps=(tap,))]
    train(tiny_network(), terms, source, schedule, context, key="heard", teacher=teacher)
    for answer, features, exact in heard:
        assert answer.dtype == features.dtype == torch.float32
        apart = float((answer - exact).norm() / exact.norm())
        # Rounded to 8 bits, in a few layers; float32 is a thousand times nearer.
        assert 1e-4 < apart < 0.02


def test_a_training_in_bfloat16_is_silent(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    context = replace(tiny_context(tmp_path), train_precision="bfloat16")
    source = Examples(context.data, context.task, tiny_network().preprocessing, 32)
    schedule = Schedule(epochs=1, learning_rate=0.01)
    train(tiny_network(), [Truth(context.task)], source, schedule, context, key="quiet")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")

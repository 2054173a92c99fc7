"""The training loop: it learns, repeats itself, survives a kill, and leaves others alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lilliput.context import SilentProgress
from lilliput.distill.answers import Answers, affordable
from lilliput.distill.loop import (
    EpochFacts,
    Schedule,
    make_optimizer,
    train,
)
from lilliput.distill.losses import Hints, Imitation, Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError
from lilliput.network import Network
from lilliput.testing import tiny_context, tiny_network
from lilliput.testing.tiny import TinyResidual

SCHEDULE = Schedule(epochs=3, learning_rate=0.05)


def source(context) -> Examples:  # type: ignore[no-untyped-def]
    return Examples(context.data, context.task, tiny_network().preprocessing, 16)


def weights(network: Network) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.module.parameters()])


def test_training_lowers_the_loss_and_not_the_original(tmp_path: Path) -> None:
    context, network = tiny_context(tmp_path), tiny_network()
    before, seen = weights(network), list[EpochFacts]()
    trained = train(
        network,
        [Truth(context.task)],
        source(context),
        replace(SCHEDULE, epochs=8),
        context,
        key="a",
        on_epoch=seen.append,
    )
    assert seen[-1].loss < 0.7 * seen[0].loss
    assert torch.equal(weights(network), before)
    assert not torch.equal(weights(trained), before)
    assert not trained.module.training


def test_same_seed_same_weights_other_seed_others(tmp_path: Path) -> None:
    def trained(seed: int) -> torch.Tensor:
        context = tiny_context(tmp_path, seed=seed)
        terms = [Truth(context.task)]
        return weights(train(tiny_network(), terms, source(context), SCHEDULE, context, key="a"))

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_a_training_that_was_killed_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop_after_two(facts: EpochFacts) -> None:
        if facts.epoch == 2:
            raise Killed

    def run(folder: Path, on_epoch=None) -> torch.Tensor:  # type: ignore[no-untyped-def]
        context = tiny_context(tmp_path, checkpoints=folder)
        terms = [Truth(context.task, 0.5), Imitation(context.task, 0.5)]
        return weights(
            train(
                tiny_network(),
                terms,
                source(context),
                replace(SCHEDULE, epochs=4),
                context,
                key="a",
                teacher=tiny_network(seed=5),
                on_epoch=on_epoch,
            )
        )

    with pytest.raises(Killed):
        run(tmp_path / "killed", stop_after_two)
    assert torch.equal(run(tmp_path / "killed"), run(tmp_path / "undisturbed"))


def test_a_checkpoint_of_another_network_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    context = tiny_context(tmp_path, checkpoints=tmp_path)
    terms = [Truth(context.task)]
    train(tiny_network(), terms, source(context), SCHEDULE, context, key="a")
    wider = replace(tiny_network(), module=TinyResidual(16))
    with pytest.raises(LilliputError, match="another network") as told:
        train(wider, terms, source(context), SCHEDULE, context, key="a")
    assert "a.training.pt" in str(told.value)


class Killing(SilentProgress):
    """Ends the training before its `at`-th batch, counted over all epochs."""

    def __init__(self, at: int) -> None:
        self.left = at

    def track(self, items, *, label, total=None):  # type: ignore[no-untyped-def]
        for item in items:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield item


@pytest.mark.parametrize(("optimizer", "hints"), [("sgd", []), ("adam", [{"block1": (8, 8)}])])
def test_killed_in_the_middle_it_ends_with_the_same_weights(
    tmp_path: Path, optimizer: str, hints: list[dict[str, tuple[int, int]]]
) -> None:
    # users-ask 30: shuffles, optimiser, adapters, statistics of norms, remembered answers
    schedule = replace(SCHEDULE, optimizer=optimizer, views=2)

    def run(folder: Path, at: int = -1) -> Network:
        context = tiny_context(tmp_path, checkpoints=folder, progress=Killing(at))
        adapters = [Hints(channels, weight=0.1) for channels in hints]
        return train(
            tiny_network(),
            [Truth(context.task, 0.4), Imitation(context.task, 0.5), *adapters],
            replace(source(context), batch_size=32),
            schedule,
            context,
            key="a",
            teacher=tiny_network(seed=5),
        )

    undisturbed = run(tmp_path / "undisturbed").module.state_dict()
    # In the first batch, in and between epochs of three batches each, and in the last one.
    for at in (0, 2, 3, 4, 8):
        folder = tmp_path / f"killed-{at}"
        with pytest.raises(KeyboardInterrupt):
            run(folder, at)
        state = run(folder).module.state_dict()
        assert all(torch.equal(state[name], value) for name, value in undisturbed.items()), at


def test_the_teacher_is_not_changed_and_adapters_are_not_kept(tmp_path: Path) -> None:
    context, teacher = tiny_context(tmp_path), tiny_network(seed=3)
    state = {k: v.clone() for k, v in teacher.module.state_dict().items()}
    hints = Hints({"block1": (8, 8)}, weight=1.0)
    trained = train(
        tiny_network(),
        [Imitation(context.task), hints],
        source(context),
        replace(SCHEDULE, epochs=1),
        context,
        key="a",
        teacher=teacher,
    )
    assert all(torch.equal(v, state[k]) for k, v in teacher.module.state_dict().items())
    assert trained.module.state_dict().keys() == tiny_network().module.state_dict().keys()


def test_teacher_and_student_see_the_same_augmented_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tiny_context(tmp_path)
    context = replace(context, data=replace(context.data, augment=("flip", "shift")))
    seen: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    network, teacher = tiny_network(), tiny_network(seed=3)
    forward = type(teacher.module).forward
    monkeypatch.setattr(
        type(teacher.module),
        "forward",
        lambda self, x: (seen[self.training].append(x.clone()), forward(self, x))[1],
    )
    # The first of each is a look at which memory format the network bears.
    schedule = replace(SCHEDULE, epochs=2, views=0)
    terms = [Imitation(context.task)]
    train(network, terms, source(context), schedule, context, key="a", teacher=teacher)
    steps = source(context).steps()
    del seen[True][0], seen[False][0]
    assert len(seen[True]) == len(seen[False]) == 2 * steps
    assert all(map(torch.equal, seen[True], seen[False]))
    sums = [torch.cat(seen[True][n : n + steps]).sum((1, 2, 3)).sort()[0] for n in (0, steps)]
    assert not torch.allclose(*sums)


def test_frozen_parameters_stay(tmp_path: Path) -> None:
    context, network = tiny_context(tmp_path), tiny_network()
    network.module.stem.weight.requires_grad_(False)  # type: ignore[union-attr]
    before = network.module.stem.weight.clone()  # type: ignore[union-attr, operator]
    trained = train(network, [Truth(context.task)], source(context), SCHEDULE, context, key="a")
    assert torch.equal(trained.module.stem.weight, before)  # type: ignore[union-attr, arg-type]
    assert not trained.module.stem.weight.requires_grad  # type: ignore[union-attr]


def test_a_loss_that_explodes_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    schedule = Schedule(epochs=4, learning_rate=1e20, clip=0.0)
    with pytest.raises(LilliputError, match=r"the loss became (nan|inf)") as error:
        train(tiny_network(), [Truth(context.task)], source(context), schedule, context, key="a")
    assert "learning_rate" in str(error.value)


def test_a_step_is_as_long_as_the_clip_allows(tmp_path: Path) -> None:
    context, network = tiny_context(tmp_path), tiny_network()
    steep, whole = Truth(context.task, 1e4), replace(source(context), batch_size=96)

    def moved(clip: float) -> float:
        schedule = Schedule(1, 0.01, weight_decay=0.0, momentum=0.5, warmup=0.0, clip=clip)
        made = train(network, [steep], whole, schedule, context, key="a")
        return float((weights(made) - weights(network)).norm())

    # Nesterov's first step is the gradient and its share of momentum.
    assert moved(5.0) == pytest.approx(0.01 * 5.0 * 1.5, rel=1e-3)
    assert moved(0.0) > 10 * moved(5.0)


def test_fewer_examples_than_a_batch_are_a_batch(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    count = len(context.data.train)
    terms = [Truth(context.task)]
    whole, large = (
        train(
            tiny_network(),
            terms,
            replace(source(context), batch_size=size),
            SCHEDULE,
            context,
            key="a",
        )
        for size in (count, 10 * count)
    )
    for ours, theirs in zip(whole.module.parameters(), large.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_schedule_warms_up_and_ends_at_zero() -> None:
    rates = [Schedule(10, 0.1, warmup=0.1).rate(share) for share in (0.0, 0.05, 0.1, 0.5, 1.0)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.1)
    assert rates[2] > rates[3] > rates[4] == pytest.approx(0.0)


def test_norms_and_biases_are_not_decayed() -> None:
    groups = make_optimizer(tiny_network().module, SCHEDULE).param_groups
    decayed = {len(p.shape) for g in groups if g["weight_decay"] for p in g["params"]}
    spared = {len(p.shape) for g in groups if not g["weight_decay"] for p in g["params"]}
    assert decayed == {2, 4}
    assert spared == {1}


def test_a_network_without_parameters_cannot_train() -> None:
    with pytest.raises(LilliputError, match="no trainable parameters"):
        make_optimizer(nn.ReLU(), SCHEDULE)


@pytest.mark.parametrize(("views", "asked"), [(2, 2), (0, 5), (9, 5)])
def test_a_teacher_is_asked_about_each_view_once(
    tmp_path: Path, views: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, teacher, calls = tiny_context(tmp_path), tiny_network(seed=3), []
    forward = type(teacher.module).forward
    monkeypatch.setattr(
        type(teacher.module),
        "forward",
        lambda self, x: (calls.append(None) if not self.training else None, forward(self, x))[1],
    )
    examples = source(context)
    schedule = replace(SCHEDULE, epochs=5, views=views)
    terms = [Imitation(context.task)]
    train(tiny_network(), terms, examples, schedule, context, key="a", teacher=teacher)
    looks = 2 if 0 < views < 5 else 1
    assert len(calls) == asked * examples.steps() + looks


@pytest.mark.parametrize("hints", [(), ({"classify.input": (8, 8)},)])
def test_trainings_of_a_run_share_a_teachers_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hints: tuple[dict[str, tuple[int, int]], ...]
) -> None:
    asked: list[None] = []

    def trained(folder: Path, *, key: str, teacher: Network) -> torch.Tensor:
        forward = type(teacher.module).forward
        with monkeypatch.context() as patch:
            patch.setattr(
                type(teacher.module),
                "forward",
                lambda self, x: (
                    asked.append(None) if not self.training else None,
                    forward(self, x),
                )[1],
            )
            context = tiny_context(tmp_path, answers=folder)
            terms = [Imitation(context.task), *(Hints(channels, weight=0.1) for channels in hints)]
            schedule = replace(SCHEDULE, epochs=3, views=2)
            return weights(
                train(
                    *(tiny_network(), terms, source(context), schedule, context),
                    key=key,
                    teacher=teacher,
                )
            )

    steps = source(tiny_context(tmp_path)).steps()
    together, apart = tmp_path / "together", tmp_path / "apart"
    trained(together, key="a", teacher=tiny_network(seed=3))
    assert len(asked) == 2 + 2 * steps
    second = trained(together, key="b", teacher=tiny_network(seed=3))
    assert len(asked) == 4 + 2 * steps, "the second one only looks at the teacher"
    assert torch.equal(second, trained(apart, key="b", teacher=tiny_network(seed=3)))
    asked.clear()
    trained(together, key="c", teacher=tiny_network(seed=4))
    assert len(asked) == 2 + 2 * steps, "another teacher gives answers of its own"
    for path in together.iterdir():
        path.write_bytes(b"damaged")
    assert torch.equal(second, trained(together, key="d", teacher=tiny_network(seed=3)))
    asked.clear()
    assert torch.equal(second, trained(together, key="e", teacher=tiny_network(seed=3)))
    assert len(asked) == 2, "what was damaged was replaced"
    (tmp_path / "full").write_text("a file where the folder should be")
    assert torch.equal(second, trained(tmp_path / "full", key="f", teacher=tiny_network(seed=3)))


@pytest.mark.parametrize("hints", [[], [{"classify.input": (8, 8)}]])
def test_answers_from_memory_teach_the_same_as_the_teacher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hints: list[dict[str, tuple[int, int]]]
) -> None:
    def trained() -> torch.Tensor:
        context = tiny_context(tmp_path)
        schedule = replace(SCHEDULE, epochs=4, views=2)
        terms = [Imitation(context.task), *(Hints(channels, weight=0.1) for channels in hints)]
        teacher = tiny_network(seed=3)
        return weights(
            train(
                tiny_network(), terms, source(context), schedule, context, key="a", teacher=teacher
            )
        )

    remembered = trained()
    monkeypatch.setattr(Answers, "of", lambda self, batch, ask: ask())
    assert torch.equal(remembered, trained())


def test_answers_that_need_too_much_memory_are_not_kept() -> None:
    assert affordable(torch.zeros(128, 10), batches=390, views=4)
    assert not affordable(torch.zeros(16, 3, 256, 256), batches=91, views=4)
    pooled, maps = torch.zeros(128, 64), torch.zeros(128, 64, 8, 8)
    assert affordable(torch.zeros(128, 10), pooled, batches=390, views=4)
    assert not affordable(torch.zeros(128, 10), maps, batches=390, views=4)

"""The step: what it delivers, what it leaves alone, and whose twin it is at weights of zero."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal, SilentProgress
from lilliput.distill.adversary import Rival
from lilliput.distill.features import last_features
from lilliput.distill.loop import train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.steps.distill import Distill
from lilliput.steps.distill_adversarial import DistillAdversarial
from lilliput.steps.finetune import Finetune
from lilliput.testing import tiny_context, tiny_data, tiny_network

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 32, "warmup": 0.1, "rise": 0.1}


def student() -> Network:
    """Thinner than the teacher, with layers of other names."""
    torch.manual_seed(4)
    head = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(216, 6), nn.ReLU())
    module = nn.Sequential(head, nn.Linear(6, 4))
    spec = TensorSpec(name="x", shape=(None, 3, 8, 8))
    return Network(module.eval(), (spec,), "thin", Preprocessing(mean=(0.4,), std=(0.2,)))


def applied(step: Any, context: Context) -> Network:
    made: Network = step.apply(Candidate("x", network=student()), context).the_network()
    return made


def weights(network: Network) -> Tensor:
    return torch.cat([v.flatten().float() for v in network.module.state_dict().values()])


def test_nothing_of_the_game_is_delivered(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    ours = applied(DistillAdversarial(**SHORT), context)
    plain = applied(Finetune(epochs=1, batch_size=32), context)
    assert ours.module.state_dict().keys() == plain.module.state_dict().keys()
    assert not any(part._forward_pre_hooks for part in ours.module.modules())
    sizes = {export_network(n, tmp_path / "n.onnx").bytes for n in (ours, plain)}
    assert len(sizes) == 1


def test_the_file_is_that_of_a_plainly_trained_student(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    ours = applied(DistillAdversarial(**SHORT), context)
    plain = student()
    plain.module.load_state_dict(ours.module.state_dict())
    (pictures,) = plain.example(16)
    with torch.no_grad():
        scores = plain.module(pictures)
        assert torch.equal(ours.module(pictures), scores)
    files = [export_network(n, tmp_path / f"{k}.onnx").path for k, n in enumerate((ours, plain))]
    nodes = [[node.op_type for node in onnx.load(file).graph.node] for file in files]
    assert nodes[0] == nodes[1]
    session = ort.InferenceSession(str(files[0]), providers=["CPUExecutionProvider"])
    (answer,) = session.run(None, {"x": pictures.numpy()})
    assert abs(answer - scores.numpy()).max() <= 1e-4


def test_a_game_of_no_weight_changes_no_bit(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    settings = {"epochs": 3, "batch_size": 32, "views": 2}
    ours = {**SHORT, **settings}
    with_rival = applied(DistillAdversarial(**ours, adversarial=0), context)
    assert torch.equal(weights(with_rival), weights(applied(Distill(**settings), context)))
    playing = applied(DistillAdversarial(**ours), context)
    assert not torch.equal(weights(playing), weights(with_rival))


class Drawing(nn.Module):
    """Draws on torch's generator in every training step, and counts its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.4))
        self.last = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.last(self.body(x).mean((2, 3)))
        return scores


def drawing() -> Network:
    torch.manual_seed(4)
    return replace(student(), module=Drawing().eval())


def test_the_draws_of_a_game_do_not_reach_the_students(tmp_path: Path) -> None:
    context, settings = tiny_context(tmp_path), {"epochs": 3, "batch_size": 32}

    def trained(step: Any) -> Tensor:
        return weights(step.apply(Candidate("x", network=drawing()), context).the_network())

    plain = trained(Distill(**settings))
    silent = DistillAdversarial(**{**SHORT, **settings}, adversarial=0, condition="label", r1=0.1)
    assert torch.equal(trained(silent), plain)


def test_until_the_warm_up_is_over_only_the_discriminator_learns(tmp_path: Path) -> None:
    notes = Notes()
    context, settings = tiny_context(tmp_path, journal=notes), {"epochs": 3, "batch_size": 32}
    waiting = applied(DistillAdversarial(**settings, warmup=0.95), context)
    edges = [facts["rival_edge"] for facts in notes.facts]
    assert torch.equal(weights(waiting), weights(applied(Distill(**settings), context)))
    assert edges[-1] > edges[0]


def test_the_student_runs_once_for_each_batch(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    made = DistillAdversarial(**SHORT).apply(Candidate("x", network=drawing()), context)
    norm = made.the_network().module.body[1]  # type: ignore[index, union-attr]
    assert int(norm.num_batches_tracked) == 2 * 3


def test_the_teacher_that_is_asked_keeps_its_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, asked = tiny_context(tmp_path), []
    original = context.original.the_network().module
    forward = type(original).forward
    monkeypatch.setattr(
        type(original), "forward", lambda self, x: (asked.append(self), forward(self, x))[1]
    )
    applied(DistillAdversarial(**SHORT, views=0), context)
    assert len(asked) >= 2 * 3
    assert all(not part.training for module in asked for part in module.modules())
    known = original.state_dict()
    for module in asked:
        assert all(torch.equal(v, known[name]) for name, v in module.state_dict().items())
        assert all(p.grad is None for p in module.parameters())


def test_with_all_weights_zero_it_is_plain_training(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    step = DistillAdversarial(**{**SHORT, "epochs": 6}, views=4, adversarial=0, imitation=0)
    source = Examples(context.data, context.task, student().preprocessing, 32)
    terms = [Truth(context.task)]
    plain = train(student(), terms, source, step.schedule(), context, key="x.distill")
    assert torch.equal(weights(applied(step, context)), weights(plain))


def test_the_teacher_stays_as_it_is(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    teacher = context.original.the_network()
    before = weights(teacher).clone()
    applied(DistillAdversarial(**SHORT), context)
    assert torch.equal(weights(teacher), before)
    assert not teacher.module.training


class Killing(SilentProgress):
    """Ends the training before its `at`-th batch."""

    def __init__(self, at: int) -> None:
        self.left = at

    def track(self, items, *, label, total=None):  # type: ignore[no-untyped-def]
        for item in items:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield item


def test_killed_in_the_middle_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    step = DistillAdversarial(**{**SHORT, "epochs": 3}, condition="label", r1=0.1)

    def run(folder: str, at: int = -1) -> Network:
        return applied(
            step, tiny_context(tmp_path, checkpoints=tmp_path / folder, progress=Killing(at))
        )

    undisturbed = weights(run("undisturbed"))
    for at in (4, 6):
        with pytest.raises(KeyboardInterrupt):
            run(f"killed-{at}", at)
        assert torch.equal(weights(run(f"killed-{at}")), undisturbed)


class Notes(SilentJournal):
    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []

    def note(self, event: str, /, **facts: Any) -> None:
        self.facts.append(facts)


def test_the_health_of_the_game_is_in_the_journal(tmp_path: Path) -> None:
    notes = Notes()
    applied(DistillAdversarial(**SHORT), tiny_context(tmp_path, journal=notes))
    last = notes.facts[-1]
    assert 0 <= last["rival_right_on_real"] <= 1
    assert 0 <= last["rival_right_on_fake"] <= 1
    assert last["rival_gradient_share"] > 0
    assert last["rival_weight"] == pytest.approx(0.1)
    assert {"rival_logit_of_real", "rival_logit_of_fake", "rival_norm_ratio", "rival_edge"} <= {
        *last
    }


def test_without_labels_the_teacher_and_the_game_remain(tmp_path: Path) -> None:
    data = tiny_data()
    unlabelled = replace(data, train=replace(data.train, targets=None))
    context = tiny_context(tmp_path, data=unlabelled)
    step = DistillAdversarial(**SHORT, condition="teacher")
    step.requires(Candidate("x", network=student()), context)
    assert not torch.equal(weights(applied(step, context)), weights(student()))
    asking = DistillAdversarial(condition="label")
    with pytest.raises(Refused, match="needs labels, and the training examples have none") as error:
        asking.requires(Candidate("x", network=student()), context)
    assert "condition: teacher" in str(error.value)


@pytest.mark.parametrize("game", ["minimax", "lsgan", "hinge", "mmd"])
def test_every_game_trains(tmp_path: Path, game: str) -> None:
    trained = applied(DistillAdversarial(**SHORT, game=game), tiny_context(tmp_path))
    assert torch.isfinite(weights(trained)).all()


def test_the_features_are_what_goes_into_the_last_linear_layer() -> None:
    assert last_features(tiny_network()) == "classify.input"
    assert last_features(student()) == "1.input"
    with pytest.raises(Refused, match="no linear layer") as error:
        last_features(tiny_network("super_resolution"))
    assert "`layer`" in str(error.value)
    assert "first" in str(error.value)


def test_widths_names_and_zeros_of_the_teacher_are_found(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    terms, (rival,) = DistillAdversarial().parts(
        student(), context.original.the_network(), context, labelled=True
    )
    assert isinstance(rival, Rival)
    assert rival.taps == ("1.input", "classify.input")
    assert rival.adapter.weight.shape == (8, 6)
    assert rival.adapter.relu
    assert [type(term).__name__ for term in terms] == ["Truth", "Imitation", "Deception"]


def test_an_unknown_layer_gets_the_nearest_name(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    step = DistillAdversarial(layer="0.0", teacher_layer="blok1")
    with pytest.raises(LilliputError, match="no layer 'blok1'") as error:
        step.requires(Candidate("x", network=student()), context)
    assert "block1" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "task", "thing"),
    [
        ({"condition": "teacher", "game": "mmd"}, "classification", "mmd has no discriminator"),
        ({"condition": "teacher"}, "super_resolution", "needs class scores"),
    ],
)
def test_what_does_not_go_together_is_refused(
    tmp_path: Path, settings: dict[str, Any], task: str, thing: str
) -> None:
    context = tiny_context(tmp_path, task)
    with pytest.raises(Refused, match=thing) as error:
        DistillAdversarial(**settings).requires(context.original, context)
    assert "leave `condition` out" in str(error.value)


def test_pictures_are_compared_at_a_named_layer(tmp_path: Path) -> None:
    context = tiny_context(tmp_path, "super_resolution")
    step = DistillAdversarial(epochs=1, batch_size=4, layer="second", warmup=0, optimizer="adam")
    step.requires(context.original, context)
    given = Candidate("x", network=tiny_network("super_resolution", seed=2))
    made = step.apply(given, context).the_network()
    assert not torch.equal(weights(made), weights(given.the_network()))

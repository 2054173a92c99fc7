"""Inputs that a network was not trained on are told before anything is spent (users-ask 26)."""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lilliput import input_check
from lilliput.artifact import TensorSpec
from lilliput.data.check import usual_preprocessings
from lilliput.data.dataset import Dataset, Split
from lilliput.data.sources.tiles import tiled_pictures
from lilliput.errors import LilliputError, Refused
from lilliput.input_check import check_network_inputs, options_of, warnings_of
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.opening import opened
from lilliput.pipeline import prepare
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.tasks import task_of
from lilliput.tasks.super_resolution import SuperResolution
from lilliput.testing import tiny_data, tiny_network
from lilliput.verbs.check import check_goals

TASK = task_of("classification")
USUAL = usual_preprocessings()
DATA = tiny_data()
UNLABELLED = DATA.map_splits(lambda split: Split(split.inputs))

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: classification
preprocessing: {how}
stages: [export]
"""


def trained_on(preprocessing: Preprocessing) -> Network:
    """A network whose batch norms remember `tiny_data` under this preprocessing."""
    network = tiny_network()
    network.module.train()
    for norm in network.module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None
    with torch.no_grad():
        network.module(torch.from_numpy(preprocessing(np.asarray(DATA.train.inputs))))
    network.module.eval()
    return replace(network, preprocessing=preprocessing)


class Knowing(nn.Module):
    """Right about `tiny_data`'s brightest quarter, if a grey picture of 0.3 becomes 0."""

    def __init__(self) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(3)
        self.sums = nn.AvgPool2d(4)

    def forward(self, x: Tensor) -> Tensor:
        quarters: Tensor = self.sums(self.bn(x)).mean(1).flatten(1)
        # Saturates far from what it was trained on, as deep networks do.
        return torch.clamp(quarters, -2, 2)


def knowing(how: Preprocessing) -> Network:
    module = Knowing()
    inputs = USUAL["ImageNet mean and std"](np.asarray(DATA.train.inputs))
    module.bn.running_mean = torch.from_numpy(inputs.mean((0, 2, 3)))
    module.bn.running_var = torch.from_numpy(inputs.var((0, 2, 3)))
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 8, 8)),), "knowing", how)


@pytest.mark.parametrize("name", list(USUAL))
def test_the_preprocessing_of_training_is_silent(name: str) -> None:
    assert check_network_inputs(trained_on(USUAL[name]), UNLABELLED, TASK) == ()


def test_a_better_preprocessing_is_named_with_what_it_scores() -> None:
    (found,) = check_network_inputs(knowing(USUAL["raw 0..255"]), DATA, TASK)
    assert "raw 0..255 given to a network of normalised inputs" in found.thing
    assert found.hint is not None
    assert found.hint.startswith(
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 scores 100.0 % instead of "
    )
    assert found.hint.endswith("% on 48 examples (ImageNet mean and std)")
    assert warnings_of((found,)) == (str(found),)


def test_where_none_scores_better_it_is_said() -> None:
    network = trained_on(USUAL["ImageNet mean and std"])
    (found,) = check_network_inputs(replace(network, preprocessing=USUAL["raw 0..255"]), DATA, TASK)
    assert "none of the usual ones scores clearly better than the" in str(found)


def test_without_labels_the_usual_ones_are_listed() -> None:
    network = replace(trained_on(USUAL["ImageNet mean and std"]), preprocessing=USUAL["raw 0..255"])
    unlabelled = DATA.map_splits(lambda split: Split(split.inputs))
    (found,) = check_network_inputs(network, unlabelled, TASK)
    assert "try mean and std: ImageNet mean 0.485" in str(found)


def test_ready_inputs_are_told_of_no_preprocessing() -> None:
    network = trained_on(USUAL["ImageNet mean and std"])
    ready = DATA.map_splits(lambda s: Split(USUAL["raw 0..255"](np.asarray(s.inputs)), s.targets))
    (found,) = check_network_inputs(network, replace(ready, layout="tensor"), TASK)
    assert found.hint == "inputs that are given ready must be normalised as in training"


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_work_is_refused() -> None:
    network = replace(tiny_network(), preprocessing=Preprocessing(std=(1e-39,)))
    found = check_network_inputs(network, DATA, TASK)
    with pytest.raises(Refused, match=r"input values are NaN or infinite\n.*a std of the prepro"):
        warnings_of(found)
    grey = DATA.map_splits(lambda s: Split(np.asarray(s.inputs)[..., :1], s.targets))
    network = replace(tiny_network(), preprocessing=Preprocessing(channels=1))
    with pytest.raises(Refused, match="inputs have 1 channels, the first layer takes 3"):
        warnings_of(check_network_inputs(network, grey, TASK))


def test_pictures_that_do_not_fit_are_refused_with_their_shape() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 4))
    network = Network(module.eval(), (TensorSpec(name="x", shape=(None, 3, 4, 4)),))
    with pytest.raises(Refused, match=r"of shape \(16, 3, 8, 8\): mat1 and mat2 .*\n.*set `size`"):
        check_network_inputs(network, DATA, TASK)


def test_outputs_that_are_not_the_tasks_are_told() -> None:
    upscaling, pairs = task_of("super_resolution"), tiny_data("super_resolution")
    with pytest.raises(LilliputError, match=r"gives \(\d+, 4\)\n.*an upscaling network"):
        check_network_inputs(tiny_network(), pairs, upscaling)
    upscaler, threefold = tiny_network("super_resolution"), SuperResolution(scale=3)
    with pytest.raises(LilliputError, match=r"scale 3 .*\n.*set the task's `scale`"):
        check_network_inputs(
            upscaler,
            threefold.prepare(pairs.map_splits(lambda s: Split(list(s.targets)))),
            threefold,
        )
    assert check_network_inputs(upscaler, pairs, upscaling) == ()
    more = DATA.map_splits(lambda s: Split(s.inputs, np.asarray(s.targets) + 3))
    with pytest.raises(LilliputError, match="gives scores of 4 classes"):
        check_network_inputs(tiny_network(), more, TASK)


def test_classes_in_another_order_are_told() -> None:
    network = knowing(USUAL["ImageNet mean and std"])
    assert check_network_inputs(network, DATA, TASK) == ()
    other = DATA.map_splits(lambda s: Split(s.inputs, (np.asarray(s.targets) + 1) % 4))
    (found,) = check_network_inputs(network, other, TASK)
    assert re.match(r"the network scores \d+\.\d % on 48 examples, no better", found.thing)
    assert "the order of its classes" in str(found)
    few = replace(other, validation=other.validation.head(10))
    assert check_network_inputs(network, few, TASK), "worse than chance on few examples, too"
    assert (
        check_network_inputs(network, replace(DATA, validation=DATA.validation.head(10)), TASK)
        == ()
    )


def test_the_network_is_left_as_it_was() -> None:
    network = knowing(USUAL["raw 0..255"])
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    check_network_inputs(network, DATA, TASK)
    assert all(torch.equal(before[k], v) for k, v in network.module.state_dict().items())
    assert not any(m._forward_pre_hooks for m in network.module.modules())


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (5, 3, 8, 8)])
def test_a_fixed_batch_is_kept_to(shape: tuple[int, ...]) -> None:
    class Fixed(Knowing):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[0] == shape[0]
            return super().forward(x)

    module = Fixed()
    module.load_state_dict(knowing(USUAL["0..1"]).module.state_dict())
    spec = (TensorSpec(name="x", shape=shape),)
    right = Network(module.eval(), spec, "fixed", USUAL["ImageNet mean and std"])
    assert check_network_inputs(right, DATA, TASK) == ()
    (found,) = check_network_inputs(replace(right, preprocessing=USUAL["raw 0..255"]), DATA, TASK)
    assert "scores 100.0 %" in str(found)


def test_a_network_that_remembers_nothing_is_not_judged() -> None:
    fresh = Network(Knowing().eval(), tiny_network().inputs, "fresh", USUAL["raw 0..255"])
    assert check_network_inputs(fresh, UNLABELLED, TASK) == ()
    assert check_network_inputs(fresh, Dataset("empty"), TASK) == ()
    upscaler = tiny_network("super_resolution")
    pictures = tiny_data("super_resolution")
    assert check_network_inputs(upscaler, pictures, task_of("super_resolution")) == ()
    tokens = Split(np.zeros((4, 3), np.int64))
    words = Dataset("words", validation=tokens, layout="tensor")
    assert check_network_inputs(fresh, words, TASK) == ()


def test_a_large_network_is_scored_on_fewer_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    for macs, examples in ((1e6, 500), (1e9, 400), (1e12, 50)):
        monkeypatch.setattr(input_check, "network_macs", lambda _, macs=macs: macs)
        assert input_check._worth(tiny_network(), 4e11, 50) == examples


@pytest.mark.parametrize(
    ("how", "options"),
    [
        (Preprocessing(), "--scale 1/255"),
        (Preprocessing(scale=1.0), "--scale 1"),
        (Preprocessing(mean=(0.5,), std=(0.5,), size=(8, 9)), "--mean 0.5 --std 0.5 --size 8x9"),
        (
            Preprocessing(mean=(0.1307,), std=(0.3081,), channels=1),
            "--mean 0.1307 --std 0.3081 --input-shape 1x1x8x8",
        ),
    ],
)
def test_options_say_all_of_a_preprocessing(how: Preprocessing, options: str) -> None:
    spec = TensorSpec(name="x", shape=(None, how.channels, 8, 8))
    assert options_of(how, Network(nn.Identity(), (spec,))) == options


def test_plan_and_run_pass_the_warning_on(home: Path) -> None:
    right = USUAL["ImageNet mean and std"]
    save_file(trained_on(right).module.state_dict(), home / "net.safetensors")
    wrong = Recipe.parse(RECIPE.format(home=home, how="{scale: 1.0}"))
    plan = check_goals(wrong)
    assert "raw 0..255 given to a network of normalised inputs" in plan.warnings[0]
    assert plan.warnings[0] in str(plan)
    said: list[str] = []

    class Told:
        def say(self, line: str) -> None:
            said.append(line)

        def track(self, items, **_):  # type: ignore[no-untyped-def]
            yield from items

    with RunFolder.create(home / "run", wrong) as run:
        prepare(opened(wrong), run, Told())
    assert f"warning: {plan.warnings[0]}" in said
    mean, std = list(right.mean), list(right.std)
    told = RECIPE.format(home=home, how=f"{{mean: {mean}, std: {std}}}")
    (untrained,) = check_goals(Recipe.parse(told)).warnings
    assert "no better than with the truths of other examples" in untrained


@pytest.mark.data
def test_a_real_network_under_a_forgotten_normalisation(shared_data: Path) -> None:
    own = Path(__file__).parents[2] / "benchmarks" / "networks" / "resnet_cifar.py"
    pictures = np.asarray(tiled_pictures(shared_data / "cifar10_test.zip")[:100])
    with zipfile.ZipFile(shared_data / "cifar10_test.zip") as file:
        labels = np.load(io.BytesIO(file.read("labels.npy")))[:100].astype(np.int64)
    data = Dataset("cifar10", validation=Split(pictures, labels))

    def found(how: Preprocessing) -> tuple[LilliputError, ...]:
        weights = shared_data / "models" / "cifar10_resnet20" / "model.safetensors"
        network = load_network(f"{own}:resnet20", weights=weights, preprocessing=how, data=data)
        return check_network_inputs(network, data, TASK)

    assert found(USUAL["ImageNet mean and std"]) == ()
    (error,) = found(USUAL["0..1"])
    assert "1.4 standard deviations from what it saw in training" in error.thing
    # Those of ImageNet and of CIFAR-10 are too alike for a hundred pictures to tell apart.
    assert re.match(r"--mean 0\.4[89].* --std 0\.2\S+ scores 9\d\.0 % instead of [1-6]", error.hint)

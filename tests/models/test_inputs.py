"""What a network takes is told or read off the data, and proven by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused
from lilliput.models.inputs import channels_of, inputs_from_data, prove_inputs
from lilliput.preprocessing import Preprocessing
from lilliput.tasks import task_of
from lilliput.tasks.base import Batch


class Made(nn.Module):
    def __init__(self, forward: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, picture: Tensor, *rest: Tensor) -> object:
        return self.run(self, picture, *rest)


def spec(*sizes: int, name: str = "") -> TensorSpec:
    return TensorSpec(name=name, shape=(None, *sizes), sample=(1, *sizes))


def test_shapes_from_pictures_with_and_without_resizing() -> None:
    data = Dataset("d", train=Split(np.zeros((4, 20, 30, 3), np.uint8)))
    (found,) = inputs_from_data(data, Preprocessing())
    assert (found.shape, found.sample) == ((None, 3, 20, 30), (1, 3, 20, 30))
    (sized,) = inputs_from_data(data, Preprocessing(size=(8, 9)))
    assert sized.shape == (None, 3, 8, 9)
    assert channels_of(data) == 3


def test_shapes_from_ready_tensors_keep_their_type() -> None:
    ids = Dataset("d", layout="tensor", test=Split(np.zeros((4, 16), np.int64)))
    (found,) = inputs_from_data(ids, Preprocessing())
    assert (found.shape, found.dtype) == ((None, 16), "int64")
    floats = Dataset("d", layout="tensor", test=Split(np.zeros((4, 16), np.float64)))
    assert inputs_from_data(floats, Preprocessing())[0].dtype == "float32"


def test_the_task_makes_the_inputs() -> None:
    class Pair:
        def batches(
            self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str
        ) -> Iterator[Batch]:
            assert (len(split), size, layout) == (1, 1, "image")
            yield Batch((np.zeros((1, 1, 4, 4), np.float32), np.zeros((1, 7), np.int64)), None)

    data = Dataset("d", validation=Split(np.zeros((4, 8, 8, 3), np.uint8)))
    first, second = inputs_from_data(data, Preprocessing(), Pair())  # type: ignore[arg-type]
    assert (first.shape, second.shape, second.dtype) == ((None, 1, 4, 4), (None, 7), "int64")


def test_no_data_no_shape() -> None:
    with pytest.raises(LilliputError, match=r"'empty' has no examples.*\n.*--input-shape"):
        inputs_from_data(Dataset("empty"), Preprocessing())


def test_inputs_are_named_as_forward_names_them() -> None:
    module = Made(lambda n, x, y: x.flatten(1) + y)
    proven = prove_inputs(module, (spec(1, 2, 2), spec(4)))
    assert [s.name for s in proven.inputs] == ["picture", "input_1"]
    named = prove_inputs(module, (spec(1, 2, 2, name="a"), spec(4, name="picture")))
    assert [s.name for s in named.inputs] == ["a", "picture"]
    assert prove_inputs(nn.Flatten(), (spec(2),)).inputs[0].name == "input"


def test_a_classifier_keeps_its_size_and_its_batch_is_free() -> None:
    module = Made(lambda n, x: n.conv(x).mean((2, 3)), conv=nn.Conv2d(3, 4, 3))
    proven = prove_inputs(module, (spec(3, 8, 8),))
    assert proven.inputs[0].shape == (None, 3, 8, 8)
    assert proven.notes == ()


def test_a_network_that_gives_pictures_takes_any_size() -> None:
    module = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    (found,) = prove_inputs(module, (spec(3, 8, 6),)).inputs
    assert found.shape == (None, 3, None, None)
    assert found.sample == (1, 3, 8, 6)


@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: F.interpolate(x, size=(16, 16)),  # always the same size out
        lambda n, x: (x.reshape(-1, 3 * 8 * 8) * 2).reshape(-1, 3, 8, 8),  # one size in
    ],
)
def test_a_network_for_one_size_keeps_it(forward: Callable[..., object]) -> None:
    assert prove_inputs(Made(forward), (spec(3, 8, 8),)).inputs[0].shape == (None, 3, 8, 8)


def test_a_network_for_one_example_is_seen_and_said() -> None:
    module = Made(lambda n, x: x.reshape(1, 12))
    proven = prove_inputs(module, (spec(3, 2, 2),))
    assert proven.inputs[0].shape == (1, 3, 2, 2)
    assert proven.notes[0].startswith("the network takes one example at a time")
    fixed = TensorSpec(name="picture", shape=(1, 3, 2, 2))
    assert prove_inputs(module, (fixed,)).notes == ()


def test_the_layer_that_failed_is_named() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(
        Refused,
        match=r"not run on input \(1, 1, 8, 8\): in layer '0' .*channels.*\n.*--input-shape",
    ):
        prove_inputs(module, (spec(1, 8, 8),))
    with pytest.raises(Refused, match=r"in layer '1\.1' mat1 and mat2"):
        prove_inputs(module, (spec(3, 8, 8),))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_a_network_without_outputs_is_refused() -> None:
    with pytest.raises(Refused, match="gives no tensor"):
        prove_inputs(Made(lambda n, x: None), (spec(3, 8, 8),))
    with pytest.raises(Refused, match="nothing"):
        prove_inputs(Made(lambda n, x: {}["nothing"]), (spec(3, 8, 8),))


def test_a_declared_size_is_that_of_the_input():
    pictures = [np.zeros((8, 6, 3), np.uint8), np.zeros((5, 9, 3), np.uint8)]
    photos = Dataset("photos", validation=Split(pictures, np.arange(2)))
    how = Preprocessing(size=(10, 12))
    for task in (None, task_of("classification")):
        (spec,) = inputs_from_data(photos, how, task)
        assert spec.shape == (None, 3, 10, 12)

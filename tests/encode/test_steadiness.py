"""The same examples give the same ranges in any order, and too few of them are told [27]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.encode.calibration import calibration_of
from lilliput.encode.execute import Feeds
from lilliput.encode.ladder import Ladder
from lilliput.encode.outcome import Outcome, Settings
from lilliput.encode.ranges import METHODS, affine_of
from lilliput.encode.steadiness import UNSTEADY, unsteadiness
from lilliput.preprocessing import IDENTITY
from lilliput.steps.export import Export
from lilliput.steps.quantize import Quantize
from lilliput.testing import Heard, tiny_context

PLAIN = Settings(saturating=False, ranges="minmax", equalize=False, rounding="nearest")
EXAMPLES = np.random.default_rng(5).normal(0, 1, (48, 3, 8, 8)).astype(np.float32)


def fed(examples: np.ndarray, size: int) -> Feeds:
    def batches() -> Iterator[tuple[np.ndarray, ...]]:
        for start in range(0, len(examples), size):
            yield (examples[start : start + size],)

    return batches


def climbed(net: onnx.ModelProto, examples: np.ndarray, size: int) -> Outcome:
    return Ladder(PLAIN, fit=fed(examples, size), judge=fed(examples[:8], 8)).climb(net)


@pytest.mark.parametrize("size", [1, 7, 48])
def test_order_and_batch_size_do_not_change_the_ranges(
    residual_net: onnx.ModelProto, size: int
) -> None:
    first = climbed(residual_net, EXAMPLES, 16).state
    order = np.random.default_rng(1).permutation(len(EXAMPLES))
    other = climbed(residual_net, EXAMPLES[order], size).state
    assert first.placement.representatives == other.placement.representatives
    for name in first.placement.representatives:
        for method in METHODS:
            ours, theirs = (affine_of(s.histograms[name], method) for s in (first, other))
            assert ours.scale == pytest.approx(theirs.scale, rel=0.01)
            assert abs(ours.zero_point - theirs.zero_point) <= 1
    for name, integers in first.encoding.weights.items():
        np.testing.assert_array_equal(integers.values, other.encoding.weights[name].values)


def test_the_split_in_another_order_is_the_same_split(tmp_path: Path) -> None:
    """All of its examples are drawn where it has no more than are asked for."""
    context = tiny_context(tmp_path)
    split = context.data.calibration
    order = np.random.default_rng(0).permutation(len(split))

    def drawn(given: Split) -> np.ndarray:
        data = replace(context.data, calibration=given)
        found = calibration_of(
            data, context.task, IDENTITY, (), images=256, rng=np.random.default_rng(3)
        )
        batches = [x for feeds in (found.fit, found.judge) for (x,) in feeds()]
        return np.sort(np.concatenate(batches).reshape(len(split), -1), axis=0)

    np.testing.assert_array_equal(drawn(split), drawn(split.take(order)))


def test_halves_that_agree_are_steady_and_halves_that_do_not_are_told(
    residual_net: onnx.ModelProto,
) -> None:
    state = climbed(residual_net, EXAMPLES, 16).state
    assert unsteadiness(state, fed(EXAMPLES, 8)) < UNSTEADY
    assert unsteadiness(state, fed(EXAMPLES, 48)) < UNSTEADY
    uneven = EXAMPLES[:4] * np.array([1, 3, 1, 3], np.float32)[:, None, None, None]
    assert unsteadiness(state, fed(uneven, 4)) > 0.5
    assert unsteadiness(state, fed(uneven, 1)) > 0.5
    assert unsteadiness(state, fed(EXAMPLES[:1], 1)) == 0.0


def uneven(context: Context) -> Context:
    """Calibration pictures of all contrasts, from hardly any to full."""
    pictures = np.asarray(context.data.calibration.inputs).astype(np.float32)
    contrast = np.geomspace(0.03, 1, len(pictures))[:, None, None, None]
    faded = Split((102 + (pictures - 102) * contrast).astype(np.uint8))
    return replace(context, data=replace(context.data, calibration=faded))


@pytest.mark.parametrize(
    ("images", "change", "warned"), [(6, uneven, True), (32, lambda context: context, False)]
)
def test_a_file_of_few_uneven_pictures_says_so(
    tmp_path: Path, images: int, change: Callable[[Context], Context], warned: bool
) -> None:
    heard = Heard()
    context = replace(change(tiny_context(tmp_path)), progress=heard)
    plain = Export().apply(Candidate("net", network=context.original.network), context)
    step = Quantize(calibration_images=images, equalize=False, rounding="nearest")
    made = step.apply(plain, context)
    said = [line for line in heard.lines if "calibration examples are few" in line]
    assert bool(said) == warned
    assert any(label.startswith("ranges unsteady by") for label in made.labels) == warned
    if warned:
        assert "raise `calibration_images`" in said[0]

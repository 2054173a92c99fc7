"""Scores of files and what was lost between two of them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from lilliput.data.dataset import Split
from lilliput.errors import LilliputError
from lilliput.meter import accuracy
from lilliput.meter.accuracy import (
    also_of,
    bootstrap_means,
    drop,
    metric_of,
    score_file,
    score_fully,
)
from lilliput.preprocessing import Preprocessing
from lilliput.runtimes.opening import open_session
from lilliput.target import Target
from lilliput.tasks.base import Batch, Metric

TOP1 = Metric("top-1", "%")


class Colours:
    """The class of a picture is its strongest channel."""

    metric = TOP1

    def batches(
        self, split: Split, preprocessing: Preprocessing, size: int, *, layout: str = "image"
    ) -> Iterator[Batch]:
        for start in range(0, len(split), size):
            inputs = preprocessing(np.asarray(split.inputs[start : start + size]))
            truth = None if split.targets is None else split.targets[start : start + size]
            yield Batch((inputs,), truth)

    def scores(self, outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
        return 100.0 * (outputs.argmax(axis=1) == targets)

    def also(self, outputs: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
        return {"first class": np.where(targets == 0, outputs[:, 0], np.nan)}


@pytest.fixture
def pictures() -> Split:
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 255, (23, 4, 4, 3)).astype(np.uint8)
    truth = inputs.mean(axis=(1, 2)).argmax(axis=1)
    truth[:5] = (truth[:5] + 1) % 3
    return Split(inputs, truth)


@pytest.mark.parametrize("batch", [None, 1, 4, 23, 40])
@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_any_batch_size_gives_the_same_scores(
    classifier: Callable[..., Path], pictures: Split, batch: int | None, runtime: str
) -> None:
    # users-ask 26: the last short batch
    session = open_session(classifier(batch), Target(runtime=runtime))
    scores = score_file(session, Colours(), pictures, Preprocessing(), batch_size=10)
    np.testing.assert_array_equal(scores, [0.0] * 5 + [100.0] * 18)


def test_other_figures_are_told_beside_the_metric(
    classifier: Callable[..., Path], pictures: Split
) -> None:
    session = open_session(classifier(None), Target(runtime="reference"))
    found = score_fully(session, Colours(), pictures, Preprocessing(), batch_size=10)
    alone = score_file(session, Colours(), pictures, Preprocessing(), batch_size=10)
    np.testing.assert_array_equal(found.metric, alone)
    (figure,) = also_of(found.also)
    assert (figure.quantity, figure.conditions["metric"]) == ("also first class", "first class")
    assert figure.conditions["examples"] == int(np.sum(pictures.targets == 0))
    assert figure.interval is not None
    assert figure.interval[0] <= figure.value <= figure.interval[1]
    assert also_of({"nowhere known": np.full(3, np.nan)}) == ()


def test_outputs_come_batch_by_batch(classifier: Callable[..., Path], pictures: Split) -> None:
    session = open_session(classifier(4), Target())
    outputs = list(accuracy.outputs_of(session, Colours(), pictures, Preprocessing()))
    assert [len(output) for output in outputs] == [4] * 5 + [3]
    expected = pictures.inputs.mean(axis=(1, 2)) / 255
    np.testing.assert_allclose(np.concatenate(outputs), expected, rtol=1e-5)


def test_a_batch_too_large_for_the_file_is_refused(classifier: Callable[..., Path]) -> None:
    session = open_session(classifier(4), Target())
    with pytest.raises(LilliputError, match="a batch of 5 for a file that takes 4"):
        accuracy.run_batch(session, (np.zeros((5, 3, 4, 4), np.float32),), fixed=4)


def test_unlabelled_examples_are_refused(classifier: Callable[..., Path], pictures: Split) -> None:
    session = open_session(classifier(), Target())
    with pytest.raises(LilliputError, match="the examples have no truth to score against"):
        score_file(session, Colours(), Split(pictures.inputs), Preprocessing())
    with pytest.raises(LilliputError, match="there are no examples to score"):
        score_file(session, Colours(), pictures.head(0), Preprocessing())


def test_the_metric_is_the_mean_with_its_interval() -> None:
    figure = metric_of(np.repeat([100.0, 0.0], [900, 100]), TOP1)
    assert (figure.quantity, figure.value, figure.unit) == ("metric", 90.0, "%")
    assert figure.conditions == {"metric": "top-1", "examples": 1000}
    low, high = figure.interval
    assert 87.5 < low < 88.8
    assert 91.2 < high < 92.5


def test_a_drop_is_paired_and_positive_when_worse() -> None:
    reference = np.repeat([100.0, 0.0], [900, 100])
    ours = reference.copy()
    ours[:10] = 0.0
    ours[-4:] = 100.0
    figure = drop(reference, ours, TOP1)
    assert (figure.quantity, figure.value, figure.unit) == ("drop", pytest.approx(0.6), "%")
    assert figure.conditions["changed"] == 14
    low, high = figure.interval
    assert -0.2 < low < 0.1
    assert 1.1 < high < 1.6
    error = Metric("error", "px", higher_is_better=False)
    assert drop(reference, ours, error).value == pytest.approx(-0.6)


def test_equal_files_lose_nothing() -> None:
    scores = np.linspace(20.0, 40.0, 50)
    figure = drop(scores, scores, Metric("PSNR", "dB"))
    assert (figure.value, figure.interval) == (0.0, (0.0, 0.0))


def test_only_the_same_examples_can_be_paired() -> None:
    with pytest.raises(LilliputError, match="scores of 3 and 4 examples cannot be paired"):
        drop(np.zeros(4), np.zeros(3), TOP1)


@given(npst.arrays(np.float64, st.integers(2, 200), elements=st.floats(-100, 100, width=32)))
def test_resampled_means_surround_the_mean(values: np.ndarray) -> None:
    means = bootstrap_means(values, resamples=200)
    slack = 1e-9 + 5 * values.std() / len(values) ** 0.5
    assert abs(means.mean() - values.mean()) <= slack
    assert values.min() - 1e-9 <= means.min()
    assert means.max() <= values.max() + 1e-9


def test_few_and_many_values_are_resampled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.repeat([0.0, 1.0], [300, 700])
    few = bootstrap_means(values, resamples=4000)
    monkeypatch.setattr(accuracy, "_FEW_VALUES", 0)
    many = bootstrap_means(values, resamples=4000)
    assert few.std() == pytest.approx(many.std(), rel=0.1)
    assert few.mean() == pytest.approx(many.mean(), abs=0.002)

"""Splits are disjoint by content, the same for the same seed, and fair to small classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.data.dataset import SPLITS, Split
from lilliput.data.sources import load_data
from lilliput.data.sources.raw import WHOLE, Raw, Shares
from lilliput.data.sources.splits import assemble, draw, fingerprints
from lilliput.errors import LilliputError

contents = st.lists(st.integers(0, 25), min_size=1, max_size=60)


def of(values: list[int]) -> Split:
    x = np.asarray(values, np.uint8)
    return Split(np.broadcast_to(x[:, None, None, None], (len(x), 2, 2, 1)), x % 3)


def marks(split: Split) -> set[bytes]:
    return set(fingerprints(split.inputs))


@given(contents, contents, st.integers(0, 5))
def test_no_picture_is_in_two_splits(train, test, seed):
    raw = Raw("x", {"train": of(train), "test": of(test)})
    data = assemble(raw, {}, {}, seed=seed, alike=True)
    assert not marks(data.test) & marks(data.validation)
    assert not (marks(data.test) | marks(data.validation)) & marks(data.train)
    assert not (marks(data.test) | marks(data.validation)) & marks(data.calibration)
    assert len(data.test) == len(test)  # users-ask 26: what is tested is never used otherwise
    kept = len(data.train) + len(data.validation)
    assert kept + data.facts["duplicates_moved"] == len(train)


@given(contents, st.integers(0, 5))
def test_the_same_seed_gives_the_same_splits(values, seed):
    raw = Raw("x", {WHOLE: of(values)}, shares=Shares(calibration=5, apart=True))
    first, second = (assemble(raw, {}, {}, seed=seed, alike=True) for _ in range(2))
    for name in SPLITS:
        ours, theirs = getattr(first, name), getattr(second, name)
        assert np.array_equal(ours.inputs, theirs.inputs)
    assert first.facts == second.facts


@given(st.lists(st.integers(0, 4), min_size=2, max_size=80), st.floats(0.01, 0.9))
def test_every_class_gives_one_and_keeps_one(labels, share):
    labels = np.asarray(labels)
    chosen = draw(labels, len(labels), share, np.random.default_rng(0))
    assert len(set(chosen)) == len(chosen)
    for label in set(labels.tolist()):
        size, taken = (labels == label).sum(), (labels[chosen] == label).sum()
        assert taken >= (size > 1)
        assert size - taken >= 1
        assert abs(taken - size * share) <= 1


def test_another_seed_gives_other_splits():
    data = [load_data("random:200", seed=0), load_data("digits", seed=0)]
    other = [load_data("random:200", seed=1), load_data("digits", seed=1)]
    for ours, theirs in zip(data, other, strict=True):
        assert not np.array_equal(ours.test.inputs, theirs.test.inputs)
    assert data[1].facts["hash"] == other[1].facts["hash"]  # of the examples, not of their order


def test_the_hash_follows_content_and_targets():
    def hash_of(values: list[int], targets: list[int]) -> str:
        split = Split(of(values).inputs, np.asarray(targets))
        raw = Raw("x", {"test": split})
        return assemble(raw, {}, {}, seed=0, alike=True).facts["hash"]

    assert hash_of([1, 2], [0, 1]) == hash_of([2, 1], [1, 0])
    assert hash_of([1, 2], [0, 1]) != hash_of([1, 2], [1, 0])
    assert hash_of([1, 2], [0, 1]) != hash_of([1, 3], [0, 1])


def test_calibration_is_drawn_from_train_and_stated():
    data = load_data("random:2000")
    assert len(data.calibration) == 512
    assert marks(data.calibration) <= marks(data.train)
    assert data.facts["calibration"] == "drawn from train, which keeps them"


def test_validation_is_at_most_five_thousand():
    x = np.arange(70_000, dtype=np.uint32).view(np.uint8).reshape(-1, 2, 2, 1)
    raw = Raw("x", {"train": Split(x, np.arange(len(x)) % 7), "test": of([1])})
    data = assemble(raw, {}, {}, seed=0, alike=True)
    assert len(data.validation) == 5000
    assert np.ptp(np.bincount(data.validation.targets)) <= 1


def test_other_sources_give_splits(tmp_path, paint):
    for n in range(5):
        paint(tmp_path / "colour" / f"{n}.png")
        paint(tmp_path / "grey" / f"{n}.png", mode="L")
    colour, grey = str(tmp_path / "colour"), str(tmp_path / "grey")
    data = load_data(colour, test=grey)
    assert not data.alike
    assert data.test.inputs.shape[-1] == 3
    assert np.ptp(data.test.inputs, axis=-1).max() == 0
    assert data.facts["test"] == f"from {grey!r}"
    back = load_data(grey, calibration=colour)
    assert back.alike
    assert back.calibration.inputs.shape == (5, 6, 5, 1)
    chosen = load_data(grey, validation=colour)
    assert chosen.alike  # test is the other half of the same pictures
    assert len(chosen.test) + len(chosen.validation) == 5
    assert load_data(colour, test=colour).alike


def test_sources_that_do_not_fit(tmp_path, paint):
    np.savez(tmp_path / "a.npz", x=np.ones((4, 3)))
    floats = str(tmp_path / "a.npz")
    with pytest.raises(LilliputError, match="holds tensor inputs and 'random:9' image inputs"):
        load_data("random:9", test=floats)
    with pytest.raises(LilliputError, match="validation and test are both 'random:8'"):
        load_data("random:9", test="random:8", validation="random:8")
    for name in "ab":
        paint(tmp_path / "ab" / name / "0.png")
        paint(tmp_path / "abc" / name / "0.png")
    paint(tmp_path / "abc" / "c" / "0.png")
    with pytest.raises(LilliputError, match="has other classes than 'ab': c\n"):
        load_data(str(tmp_path / "ab"), test=str(tmp_path / "abc"))


def test_unknown_sources(tmp_path):
    expected = "no data 'cifar-10': not a folder.*\n  → did you mean 'cifar10'"
    with pytest.raises(LilliputError, match=expected):
        load_data("cifar-10")
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(LilliputError, match=r"is neither a folder nor an \.npz"):
        load_data(str(tmp_path / "a.csv"))


def test_noise_only_by_name_and_marked():
    data = load_data("random:40:9x8x1")
    assert data.synthetic
    assert data.train.inputs.shape[1:] == (9, 8, 1)
    assert not load_data("digits").synthetic
    for wrong in ("random:", "random:0", "random:many", "random:5:3x3"):
        with pytest.raises(LilliputError, match="does not say how many pictures of noise"):
            load_data(wrong)


def test_splits_are_joined_in_order_whatever_holds_them():
    ours = Split(np.zeros((2, 4, 4, 3), np.uint8), np.array([1, 2]))
    theirs = Split([np.ones((4, 4, 3), np.uint8)], [3])
    both = ours.joined(theirs)
    assert len(both) == 3
    assert list(both.targets) == [1, 2, 3]
    assert both.inputs[2].all()
    assert not both.inputs[1].any()
    assert ours.joined(ours).inputs.shape == (4, 4, 4, 3)
    assert ours.joined(Split(theirs.inputs)).targets is None


def test_a_sample_of_a_split_that_is_sorted_by_class_has_them_all() -> None:
    labels = np.repeat(np.arange(10), 300)
    split = Split(np.arange(3000), labels)
    sample = split.sample(500)
    counts = np.bincount(sample.targets, minlength=10)
    assert len(sample) == 500
    assert counts.min() >= 30
    assert np.array_equal(np.sort(sample.inputs), sample.inputs), "in their order"
    assert np.array_equal(sample.inputs, split.sample(500).inputs), "always the same"
    assert set(sample.inputs) <= set(split.sample(1000).inputs), "a larger one holds a smaller"
    assert np.array_equal(split.sample(9999).inputs, split.inputs)

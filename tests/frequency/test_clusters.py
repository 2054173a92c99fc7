"""Centres: one is zero, distortion falls with their number, the extremes are exact."""

from __future__ import annotations

import numpy as np
import pytest

from lilliput.frequency.clusters import centres_of, nearest


def vectors(count=60, size=9, seed=0):
    return np.random.default_rng(seed).standard_normal((count, size))


def distortion(points, centres):
    return float(((points - centres[nearest(points, centres)]) ** 2).sum())


def test_as_many_centres_as_vectors_leave_no_residual():
    points = vectors(12)
    centres = centres_of(points, 12, np.random.default_rng(1), with_zero=False)
    assert distortion(points, centres) == pytest.approx(0, abs=1e-18)
    with_zero = centres_of(points, 13, np.random.default_rng(1))
    assert distortion(points, with_zero) == pytest.approx(0, abs=1e-18)


def test_a_single_centre_is_the_mean():
    points = vectors()
    centres = centres_of(points, 1, np.random.default_rng(0), with_zero=False)
    np.testing.assert_allclose(centres[0], points.mean(0))


def test_the_zero_stays_zero_and_serves_what_has_no_common_part():
    points = np.concatenate([vectors(40) * 0.01, vectors(40) * 0.01 + 5])
    centres = centres_of(points, 2, np.random.default_rng(0))
    np.testing.assert_array_equal(centres[0], 0)
    assert nearest(points, centres).tolist() == [0] * 40 + [1] * 40


@pytest.mark.parametrize("with_zero", [True, False])
def test_rounds_never_make_it_worse(with_zero, monkeypatch):
    points, lost = vectors(200), []
    for rounds in range(1, 8):
        monkeypatch.setattr("lilliput.frequency.clusters.ROUNDS", rounds)
        rng = np.random.default_rng(3)
        lost.append(distortion(points, centres_of(points, 6, rng, with_zero=with_zero)))
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < lost[0]


def test_equal_vectors_and_too_many_centres():
    points = np.ones((5, 4))
    centres = centres_of(points, 4, np.random.default_rng(0))
    assert distortion(points, centres) == 0


def test_large_sets_are_drawn_down(monkeypatch):
    monkeypatch.setattr("lilliput.frequency.clusters.SAMPLE", 50)
    points = np.repeat(np.eye(3), 100, 0)
    centres = centres_of(points, 4, np.random.default_rng(0))
    assert distortion(points, centres) == pytest.approx(0, abs=1e-18)

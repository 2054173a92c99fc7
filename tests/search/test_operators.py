"""Moves that need not know what genes mean, and the wheel that draws parents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from lilliput.search.operators import exchanged, inverted, roulette, segment, swapped

genomes = st.lists(st.integers(0, 1), min_size=1, max_size=30).map(np.array)


@given(genomes, st.integers(0, 2**32))
def test_exchanging_a_segment_keeps_the_pair_at_every_place(one, seed):
    rng = np.random.default_rng(seed)
    other = rng.integers(0, 2, len(one))
    start, stop = segment(len(one), rng)
    first, second = exchanged(one, other, start, stop)
    assert np.array_equal(np.sort([first, second], axis=0), np.sort([one, other], axis=0))
    assert np.array_equal(first[start:stop], other[start:stop])
    assert np.array_equal(first[:start], one[:start])


@given(genomes, st.integers(0, 30))
def test_an_empty_segment_and_equal_parents_change_nothing(one, place):
    other = 1 - one
    assert all(map(np.array_equal, exchanged(one, other, place, place), (one, other)))
    assert all(map(np.array_equal, exchanged(one, one, 0, place), (one, one)))
    assert all(map(np.array_equal, swapped(one, other, np.zeros(len(one), bool)), (one, other)))


@given(genomes, st.integers(0, 2**32))
def test_inverting_the_same_bits_twice_changes_nothing(genome, seed):
    rng, levels = np.random.default_rng(seed), np.full(len(genome), 2)
    start, stop = segment(len(genome), rng)
    once = inverted(genome, levels, start, stop, rng)
    assert (once[start:stop] != genome[start:stop]).all()
    assert np.array_equal(inverted(once, levels, start, stop, rng), genome)


@given(st.integers(0, 2**32))
def test_inversion_of_other_genes_draws_another_allowed_value(seed):
    rng = np.random.default_rng(seed)
    levels = rng.integers(1, 7, 12)
    genome = rng.integers(0, levels)
    changed = inverted(genome, levels, 0, 12, rng)
    assert ((changed >= 0) & (changed < levels)).all()
    assert np.array_equal(changed == genome, levels == 1)


@pytest.mark.parametrize("fitness", [[1.0, 2.0, 3.0, 4.0], [5.0, 5.0, 5.0], [0.9, 0.0, 1.8]])
def test_the_wheel_draws_by_fitness(fitness):
    rng = np.random.default_rng(0)
    counts = np.bincount([roulette(fitness, rng) for _ in range(6000)], minlength=len(fitness))
    expected = 6000 * np.array(fitness) / sum(fitness)
    assert (counts[expected == 0] == 0).all()
    assert chisquare(counts[expected > 0], expected[expected > 0]).pvalue > 0.01


def test_without_any_fitness_the_wheel_is_fair():
    rng = np.random.default_rng(0)
    assert {roulette([0.0, 0.0, 0.0], rng) for _ in range(60)} == {0, 1, 2}

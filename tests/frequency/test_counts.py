"""How many patterns: from written tables of energies and times, so that every choice is known."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lilliput.frequency.counts import (
    Form,
    as_many_as_cost_no_more,
    energy_of,
    forms_of,
    most_energy,
    time_of,
    within_goal,
)

# A 5×5 layer of 3 channels in ONNX Runtime: the time is low where m times 3 is a multiple of 4.
STAIRS = {3: 1.33, 4: 0.95, 5: 2.11, 6: 2.30, 7: 2.57, 8: 0.978, 9: 3.24, 12: 1.35}

TWO_LAYERS = {
    "first": [
        Form(0, 1.0, 10.0),
        Form(1, 0.50, 2.0),
        Form(2, 0.80, 4.0),
        Form(3, 0.90, 6.0),
    ],
    "second": [
        Form(0, 1.0, 20.0),
        Form(1, 0.90, 5.0),
        Form(2, 0.95, 10.0),
        Form(4, 0.99, 10.5),
    ],
}


@pytest.mark.parametrize(
    ("count", "kept"),
    [(3, 12), (4, 8), (5, 12), (8, 8), (9, 12), (12, 12), (10, 10)],
)
def test_as_many_patterns_as_cost_no_more(count, kept):
    assert as_many_as_cost_no_more(count, STAIRS, 0.03) == kept


def test_the_tolerance_is_the_noise_and_counts_once():
    slope = {1: 1.0, 2: 1.02, 3: 1.04, 4: 1.06}
    assert as_many_as_cost_no_more(1, slope, 0.03) == 2
    assert as_many_as_cost_no_more(1, slope, 0.0) == 1


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        (7.0, {"first": 1, "second": 1}),
        (8.9, {"first": 1, "second": 1}),
        (9.0, {"first": 2, "second": 1}),  # 0.15 a unit of time
        (11.0, {"first": 3, "second": 1}),  # 0.05
        (14.4, {"first": 3, "second": 1}),
        (15.0, {"first": 0, "second": 1}),  # 0.025, before the 0.016 of four patterns
        (20.4, {"first": 0, "second": 2}),  # four patterns do not fit by a tenth
        (20.5, {"first": 0, "second": 4}),  # over the dear step of two patterns
        (30.0, {"first": 0, "second": 0}),
    ],
)
def test_time_goes_where_it_gains_most_energy(budget, chosen):
    assert most_energy(TWO_LAYERS, budget) == chosen


def test_what_does_not_fit_at_all_comes_back_as_its_fastest_forms():
    assert most_energy(TWO_LAYERS, 1.0) == {"first": 1, "second": 1}
    assert most_energy({}, 1.0) == {}


def test_a_layer_that_no_pattern_makes_faster_stays_spatial():
    white = forms_of([0.3, 0.6, 0.9, 1.0], {1: 0.5, 2: 0.98, 3: 1.2}, spatial=4.0, tolerance=0.03)
    assert white == [Form(0, 1.0, 4.0), Form(1, 0.3, 2.0)], "a tie is not faster"
    assert most_energy({"white": white}, 4.0) == {"white": 0}
    assert most_energy({"white": white}, 3.9) == {"white": 1}
    assert most_energy({"white": white[:1]}, 0.0) == {"white": 0}


tables = st.dictionaries(
    st.sampled_from("abc"),
    st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.1, 5.0)), min_size=1, max_size=4).map(
        lambda rows: [
            Form(0, 1.0, 4.0),
            *(Form(n, energy, time) for n, (energy, time) in enumerate(sorted(rows), 1)),
        ]
    ),
    min_size=1,
)


@given(tables, st.floats(0.0, 15.0))
@settings(max_examples=40)
def test_a_choice_fits_and_no_layer_could_have_more(forms, budget):
    counts = most_energy(forms, budget)
    spent = time_of(counts, forms)
    cheapest = sum(min(form.time for form in each) for each in forms.values())
    assert spent <= max(budget, cheapest) + 1e-9
    for path, each in forms.items():
        now = next(form for form in each if form.kept == counts[path])
        dearer = [form for form in each if form.energy > now.energy]
        assert all(spent + form.time - now.time > budget - 1e-9 for form in dearer)


@given(tables, st.floats(0.0, 15.0))
@settings(max_examples=40)
def test_it_is_the_best_choice_but_for_one_step(forms, budget):
    every = [
        {path: form.kept for path, form in zip(forms, some, strict=True)}
        for some in product(*forms.values())
    ]
    fitting = [counts for counts in every if time_of(counts, forms) <= budget]
    best = max((energy_of(counts, forms) for counts in fitting), default=0.0)
    assert energy_of(most_energy(forms, budget), forms) > best - 1.0


def in_truth(factor):
    """A network whose layers take so much more than their tables say; the rest takes 10."""
    measured = []

    def measure(counts):
        measured.append(counts)
        return 10.0 + factor * time_of(counts, TWO_LAYERS)

    return measure, measured


def test_what_the_tables_say_is_corrected_by_what_the_network_takes():
    measure, measured = in_truth(1.2)
    found = within_goal(TWO_LAYERS, 10.0, 25.0, measure)
    assert measured[0] == {"first": 0, "second": 1}  # 15 by the tables, 18 in truth
    assert found[-1].counts == {"first": 3, "second": 1}
    assert found[-1].took <= 25.0 < found[0].took
    assert len(found) == 2


def test_time_that_is_left_is_spent():
    found = within_goal(TWO_LAYERS, 10.0, 21.0, lambda counts: 6.0 + time_of(counts, TWO_LAYERS))
    assert [one.counts for one in found] == [
        {"first": 3, "second": 1},  # 21 by the tables, 17 in truth
        {"first": 0, "second": 1},
    ]
    assert found[-1].took == 21.0


def test_a_miss_by_little_is_followed_by_the_next_cheaper_choice():
    found = within_goal(TWO_LAYERS, 0.0, 14.0, lambda counts: time_of(counts, TWO_LAYERS) + 3.1)
    assert [one.counts for one in found] == [
        {"first": 3, "second": 1},  # 11 of 14, and 14.1 in truth
        {"first": 2, "second": 1},
    ]


def test_a_goal_out_of_reach_ends_with_the_fastest():
    found = within_goal(TWO_LAYERS, 10.0, 12.0, lambda _: 17.0)
    assert [one.counts for one in found] == [{"first": 1, "second": 1}]
    assert found[0].took > 12.0


def test_nothing_is_measured_twice_or_forever():
    measure, measured = in_truth(1.0)
    within_goal(TWO_LAYERS, 10.0, 24.6, measure)
    assert len(measured) == 1, "what is left is less than any step"
    stubborn = within_goal(TWO_LAYERS, 10.0, 40.0, lambda _: 99.0)
    assert len(stubborn) <= 5

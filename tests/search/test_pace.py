"""Epochs that fit: only those that ask the teacher cost as much as the short training's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.search.pace import Pace, teacher_seconds
from lilliput.testing import tiny_network


@pytest.mark.parametrize(
    ("pace", "epochs"),
    [
        (Pace(step=1.0), 10),
        (Pace(step=1.0, teacher=0.5), 16),  # four with the teacher, twelve at half the price
        (Pace(step=5.0, teacher=2.5), 2),  # never comes to the second look at a view
        (Pace(step=0.0), 100_000),
    ],
)
def test_epochs_in_a_hundred_seconds_of_ten_steps(pace: Pace, epochs: int) -> None:
    assert pace.epochs_in(100.0, steps=10) == epochs


@given(
    step=st.floats(0.001, 10),
    share=st.floats(0, 0.9),
    seconds=st.floats(0, 1e4),
    steps=st.integers(1, 1000),
    views=st.integers(0, 9),
)
def test_so_many_epochs_take_no_more_than_the_time_and_one_more_would(
    step: float, share: float, seconds: float, steps: int, views: int
) -> None:
    pace = Pace(step, share * step)

    def cost(epochs: int) -> float:
        asking = min(epochs, views) if views and pace.teacher else epochs
        return steps * (epochs * (step - pace.teacher) + asking * pace.teacher)

    epochs = pace.epochs_in(seconds, steps, views)
    assert cost(epochs) <= seconds * (1 + 1e-9) + 1e-9
    assert cost(epochs + 1) > seconds * (1 - 1e-9)


def test_a_teacher_whose_answers_cannot_be_kept_is_paid_for_in_every_step() -> None:
    network = tiny_network()
    inputs = network.example(4)
    assert teacher_seconds(network, inputs, 10, "float32") > 0
    assert teacher_seconds(network, inputs, 10**9, "bfloat16") == 0

"""Cells under one another, none cut, nothing trailing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.columns import GAP, aligned

cells = st.text(st.characters(codec="ascii", categories=["L", "N"]), max_size=6)


def test_words_stand_left_and_figures_right() -> None:
    lines = [["file", "bytes"], ["a.onnx", "7"]]
    assert aligned(lines) == ["file    bytes", "a.onnx  7"]
    assert aligned(lines, right=[1]) == ["file    bytes", "a.onnx      7"]


@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(cells, min_size=n, max_size=n))))
def test_every_cell_begins_where_its_column_does(lines: list[list[str]]) -> None:
    found = aligned(lines)
    assert len(found) == len(lines)
    for line, text in zip(lines, found, strict=True):
        at = 0
        for n, cell in enumerate(line):
            assert text[at:].startswith(cell)
            at += max(len(other[n]) for other in lines) + len(GAP)


def test_lines_of_unequal_length_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="zip"):
        aligned([["a", "b"], ["c"]])

"""The front drawn for notebooks: every file is there, in its place, and names are only text."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lilliput.runs.picture import BOTTOM, LEFT, RIGHT, TOP, Axis, picture

SVG = "{http://www.w3.org/2000/svg}"


def point(name: str, kind: str, across: float | None, metric: float, **more: Any) -> dict[str, Any]:
    return {
        "id": name,
        "name": name,
        "kind": kind,
        "onFront": kind in ("best", "front"),
        "latency": across,
        "latencyRange": None if across is None else [across * 0.9, across * 1.1],
        "bytes": 1000.0,
        "metric": metric,
        "metricRange": [metric - 1, metric + 1],
        "details": [["made by", "quantize"], ["remarks", ""]],
        **more,
    }


def chart(*points: dict[str, Any], **more: Any) -> dict[str, Any]:
    usual = {"metric": "top-1, %", "higher_is_better": True, "limits": {}}
    return {**usual, "points": list(points), **more}


def drawn(given: dict[str, Any]) -> tuple[ElementTree.Element, dict[str, tuple[float, float]]]:
    """The picture, and where each file's mark is."""
    tree = ElementTree.fromstring(picture(given))
    places = {}
    for group in tree.iter(f"{SVG}g"):
        title = group.find(f"{SVG}title")
        circle, star = group.find(f"{SVG}circle"), group.find(f"{SVG}polygon")
        if circle is not None:
            place = (float(circle.get("cx", "")), float(circle.get("cy", "")))
        else:
            corners = [corner.split(",") for corner in star.get("points", "").split()]
            place = (float(corners[0][0]), sum(float(y) for _, y in corners) / 10)
        places[title.text.partition(",")[0]] = place
    return tree, places


def texts(tree: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in tree.iter(f"{SVG}text")]


def test_faster_is_left_and_better_is_up():
    files = (
        point("original", "original", 4.0, 92.0),
        point("fast", "best", 1.0, 91.0),
        point("small", "front", 2.0, 91.5),
        point("bad", "other", 3.0, 80.0),
    )
    tree, at = drawn(chart(*files, limits={"latency": 2.5, "metric": 91.0}))
    assert set(at) == {"original", "fast", "small", "bad"}
    assert at["fast"][0] < at["small"][0] < at["bad"][0] < at["original"][0]
    assert at["original"][1] < at["small"][1] < at["fast"][1] < at["bad"][1]
    assert all(LEFT <= x <= RIGHT and TOP <= y <= BOTTOM for x, y in at.values())
    assert texts(tree).count("limit") == 2
    assert "↑ top-1, %" in texts(tree)
    assert "← latency, ms" in texts(tree)


def test_less_is_better_for_an_error():
    files = (point("a", "original", 2.0, 0.1), point("b", "best", 1.0, 0.3))
    _, at = drawn(chart(*files, higher_is_better=False))
    assert at["a"][1] < at["b"][1]


def test_without_times_sizes_are_drawn():
    files = (point("a", "original", None, 92.0), point("b", "best", None, 91.0, bytes=100.0))
    tree, at = drawn(chart(*files))
    assert at["b"][0] < at["a"][0]
    assert "← size" in texts(tree)
    assert "200 B" in texts(tree)


def test_names_are_only_text():
    name = "<script>alert('1 & 2')</script>.onnx"
    said = picture(chart(point(name, "best", 1.0, 90.0), metric='"><b>'))
    assert "<script" not in said
    tree = ElementTree.fromstring(said)
    assert name in texts(tree)
    assert tree.get("aria-label") == '"><b> against time'


def test_nothing_to_draw_and_a_single_file():
    assert picture(chart()) == ""
    _, at = drawn(chart(point("a", "best", 1.0, 0.0, metricRange=None)))
    assert at["a"] == (pytest.approx((LEFT + RIGHT) / 2), pytest.approx((TOP + BOTTOM) / 2))


def test_nothing_is_fetched_or_run():
    said = picture(chart(point("a", "original", 1.0, 90.0), point("b", "best", 9.0, 91.0)))
    assert said.count("http") == said.count("http://www.w3.org/2000/svg") == 1
    assert "<script" not in said
    assert "<style" not in said


@given(st.lists(st.floats(1e-4, 1e9), min_size=1, max_size=6))
def test_axes_keep_order_and_stay_inside(values: list[float]):
    for axis in (Axis.of_ratios(values, LEFT, RIGHT), Axis.of_scores(values, LEFT, RIGHT)):
        places = [axis(value) for value in sorted(values)]
        assert places == sorted(places)
        assert all(LEFT <= place <= RIGHT for place in places)
        assert len(axis.ticks()) <= 30
        assert all(LEFT <= axis(tick) <= RIGHT for tick in axis.ticks())

"""What was found out of a model's layers, as tables: int8 alone, put back into float, cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lilliput.meter.sensitivities import (
    CutSensitivity,
    LayerSensitivity,
    Loss,
    Sensitivities,
    db,
    percent,
    points,
    share,
)
from lilliput.units import format_count

EXACT = 1e6
"""Decibels that an exact layer is sorted by: the page knows no infinite number."""

Cell = dict[str, Any]
"""A cell's "text", what its column is "sort"ed by, and the "width" of its bar, 0..1."""


def suffering_of(found: Sensitivities) -> dict[str, Any]:
    """The tables of one model, and the sentences that say what they were taken on."""
    return {
        "model": found.model,
        "tables": list(_tables(found)),
        "sentences": [f"{text[:1].upper()}{text[1:]}" for text in _sentences(found)],
    }


def _tables(found: Sensitivities) -> Iterator[dict[str, Any]]:
    yield _table(
        "Each layer alone in 8 bits",
        ["layer", "weights", "SQNR of weights", "SQNR of input"],
        found.layers,
        [_layer(number, layer) for number, layer in enumerate(found.layers)],
        found,
    )
    curve = [
        [_cell(point.path or "(none)", f"{point.count:06d}"), _cell(str(point.count), point.count)]
        for point in found.curve
    ]
    heads = ["put back last", "layers in float"]
    yield _table("Layers put back into float", heads, found.curve, curve, found)
    if found.cuts:
        heads = ["group", "channels cut", "fewer MACs", "fewer weights"]
        cuts = [_cut(number, cut) for number, cut in enumerate(found.cuts)]
        yield _table("Channels of one group cut", heads, found.cuts, cuts, found)


def _layer(number: int, layer: LayerSensitivity) -> list[Cell]:
    return [
        _cell(layer.path, f"{number:06d}"),
        _cell(format_count(layer.params), layer.params),
        _cell(db(layer.weight_sqnr_db), min(layer.weight_sqnr_db, EXACT)),
        _cell(db(layer.input_sqnr_db), min(layer.input_sqnr_db, EXACT)),
    ]


def _cut(number: int, cut: CutSensitivity) -> list[Cell]:
    return [
        _cell(cut.group, f"{number:06d}"),
        _cell(f"{cut.gone} of {cut.width}", cut.gone),
        _cell(share(cut.saved_macs), cut.saved_macs),
        _cell(share(cut.saved_params), cut.saved_params),
    ]


def _table(
    title: str,
    heads: Sequence[str],
    figures: Sequence[Loss],
    rows: Sequence[list[Cell]],
    found: Sensitivities,
) -> dict[str, Any]:
    """The rows, each with its error as a bar and, where drops were taken, its drop."""
    lost = [f"lost, {found.unit}"] if found.scored else []
    largest = max((figure.error for figure in figures), default=0.0) or 1.0
    for cells, figure in zip(rows, figures, strict=True):
        bar = {"width": figure.error / largest}
        cells.append(_cell(percent(figure.error), figure.error) | bar)
        if lost:
            cells.append(_cell(points(figure.drop), figure.drop))
    return {"title": title, "heads": [*heads, "output error", *lost], "rows": rows}


def _cell(text: str, sort: object) -> Cell:
    return {"text": text, "sort": sort}


def _sentences(found: Sensitivities) -> Iterator[str]:
    yield from (f"{path} cannot run in int8: {why}" for path, why in found.skipped.items())
    if not found.cuts:
        yield f"no ranking of cuts: {found.no_cuts}"
    yield from found.conditions()

"""What a network loses by int8 and by cuts, place by place: as figures, text and CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from lilliput.columns import aligned
from lilliput.noun import Noun
from lilliput.units import format_count

CSV_COLUMNS = (
    *("kind", "place", "level", "error", "drop"),
    *("weight_sqnr_db", "input_sqnr_db", "params", "saved_params", "saved_macs"),
)


class Loss(Protocol):
    """What something costs: relative output error, and loss of the metric if it was taken."""

    @property
    def error(self) -> float: ...
    @property
    def drop(self) -> float | None: ...


class LayerSensitivity(Noun):
    """One layer in int8, the rest in float.

    `weight_sqnr_db` is that of its weights, rounded to nearest with a scale for each channel,
    `input_sqnr_db` that of what it reads; infinite where nothing is lost. `error` is the relative
    error of the network's output, `drop` the loss of the metric in its unit.
    """

    path: str
    op: str
    params: int
    weight_sqnr_db: float
    input_sqnr_db: float
    error: float
    drop: float | None = None


class PutBackPoint(Noun):
    """`count` layers in float, the others in int8; `path` returned last."""

    count: int
    path: str
    error: float
    drop: float | None = None


class CutSensitivity(Noun):
    """One group of coupled channels without `gone` of its `width` channels, the rest whole.

    `ratio` is the share that was asked for; `saved_macs` and `saved_params` are shares of the
    whole network, 0..1. Nothing was trained or re-estimated after the cut.
    """

    group: str
    layers: tuple[str, ...]
    width: int
    gone: int
    ratio: float
    saved_macs: float
    saved_params: float
    error: float
    drop: float | None = None


class Sensitivities(Noun):
    """Where a network suffers. Tables have the worst first; errors are relative, 0.01 is 1 %.

    `layers` each alone in int8; `curve` from all layers in int8 to all in float, the worst put
    back first; `skipped` are layers that cannot run in int8, with the reason; `cuts` one group of
    channels at a time, or `no_cuts` says why there are none. `calibrated` and `scored` are numbers
    of examples that errors and drops were taken on; `truth` is what the drops are held against.
    """

    model: str
    sha256: str
    target: str
    data: str
    synthetic: bool
    calibrated: int
    scored: int
    metric: str
    unit: str
    truth: str
    ranges: str
    layers: tuple[LayerSensitivity, ...]
    curve: tuple[PutBackPoint, ...]
    skipped: Mapping[str, str]
    cuts: tuple[CutSensitivity, ...] = ()
    no_cuts: str = ""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values; None in place of an infinite one, which JSON lacks."""
        plain = self.model_dump(mode="json")
        for layer in plain["layers"]:
            for name in ("weight_sqnr_db", "input_sqnr_db"):
                layer[name] = layer[name] if math.isfinite(layer[name]) else None
        return plain

    def as_csv(self) -> str:
        """A line a figure: kind "int8", "put back" or "cut", its place, its level, what it costs.

        The level is "int8", the number of layers in float, or the share of channels that went.
        """
        stream = io.StringIO()
        writer = csv.DictWriter(stream, CSV_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._records())
        return stream.getvalue()

    def _records(self) -> Iterator[dict[str, Any]]:
        for layer in self.layers:
            told = layer.model_dump(exclude={"path", "op"})
            yield {"kind": "int8", "place": layer.path, "level": "int8", **told}
        for point in self.curve:
            told = point.model_dump(exclude={"path", "count"})
            yield {"kind": "put back", "place": point.path, "level": point.count, **told}
        for cut in self.cuts:
            told = cut.model_dump(exclude={"group", "layers", "width", "gone", "ratio"})
            yield {"kind": "cut", "place": cut.group, "level": cut.ratio, **told}

    def _lines(self) -> Iterator[str]:
        yield f"{self.model}: {len(self.layers)} layers in int8 one at a time ({self.ranges})"
        yield from self._table(
            2,
            ("layer", "", "weights", "SQNR of weights", "of input"),
            [
                (x.path, x.op, format_count(x.params), db(x.weight_sqnr_db), db(x.input_sqnr_db))
                for x in self.layers
            ],
            self.layers,
        )
        yield from (f"  not in int8: {path} ({why})" for path, why in self.skipped.items())
        yield ""
        yield "layers put back into float, the worst first"
        yield from self._table(
            1,
            ("the last one", "in float"),
            [(point.path or "(none)", str(point.count)) for point in self.curve],
            self.curve,
        )
        yield ""
        if self.cuts:
            yield "channels cut in one group at a time, nothing trained after it"
            yield from self._table(
                1,
                ("group", "channels", "fewer MACs", "weights"),
                [
                    (c.group, f"{c.gone} of {c.width}", share(c.saved_macs), share(c.saved_params))
                    for c in self.cuts
                ],
                self.cuts,
            )
        else:
            yield f"no ranking of cuts: {self.no_cuts}"
        yield ""
        yield from self.conditions()

    def _table(
        self,
        words: int,
        head: tuple[str, ...],
        lines: list[tuple[str, ...]],
        figures: Sequence[Loss],
    ) -> Iterator[str]:
        """The lines, each with its error and, where drops were taken, its drop.

        The first `words` columns are text.
        """
        heads = [*head, "output error", *([f"lost, {self.unit}"] if self.scored else [])]
        cells = [
            [*line, percent(x.error), *([points(x.drop)] if self.scored else [])]
            for line, x in zip(lines, figures, strict=True)
        ]
        yield from aligned([heads, *cells], right=range(words, len(heads)))

    def conditions(self) -> Iterator[str]:
        """Sentences that say what the figures were taken on."""
        yield f"output error: on {self.calibrated} calibration examples of {self.data}"
        if self.scored:
            yield (
                f"lost: {self.metric} on {self.scored} validation examples in {self.target}, held "
                f"against {self.truth}"
            )
        else:
            yield f"{self.data} has no validation examples: no loss of {self.metric}"
        if self.synthetic:
            yield "the data is random: these figures mean nothing"


def db(ratio: float) -> str:
    """`"41.2 dB"`, or that nothing is lost."""
    return f"{ratio:.1f} dB" if math.isfinite(ratio) else "exact"


def percent(error: float) -> str:
    return f"{100 * error:.2f} %"


def share(part: float) -> str:
    return f"{100 * part:.1f} %"


def points(drop: float | None) -> str:
    """A loss of the metric: positive is worse."""
    shown = "" if drop is None else f"{drop:.2f}"
    return shown.replace("-", "") if shown == "-0.00" else shown

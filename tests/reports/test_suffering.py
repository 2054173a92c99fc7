"""The report's section on layers: there when a run holds one, and deaf to hostile names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from lilliput.meter.sensitivities import (
    CutSensitivity,
    LayerSensitivity,
    PutBackPoint,
    Sensitivities,
    points,
)
from lilliput.reports.html import page
from lilliput.reports.suffering import suffering_of
from lilliput.reports.summary import Summary
from lilliput.runs.folder import RunFolder

HOSTILE = "<script>window.hacked=1</script>"


def study(**changes: Any) -> Sensitivities:
    whole = {
        "model": "net.onnx",
        "sha256": "abc",
        "target": "onnxruntime, 1 thread",
        "data": "digits",
        "synthetic": False,
        "calibrated": 200,
        "scored": 270,
        "metric": "top-1",
        "unit": "%",
        "truth": "the truth",
        "ranges": "ranges by mse",
        "layers": (
            LayerSensitivity(
                path="stem",
                op="Conv",
                params=144,
                weight_sqnr_db=41.23,
                input_sqnr_db=math.inf,
                error=0.02,
                drop=0.37,
            ),
            LayerSensitivity(
                path=HOSTILE,
                op="Gemm",
                params=2304,
                weight_sqnr_db=39.0,
                input_sqnr_db=45.0,
                error=0.01,
                drop=-0.1,
            ),
        ),
        "curve": (
            PutBackPoint(count=0, path="", error=0.03, drop=0.5),
            PutBackPoint(count=2, path=HOSTILE, error=0.0, drop=0.0),
        ),
        "skipped": {"up": "no int8 ConvTranspose"},
        "cuts": (
            CutSensitivity(
                group=HOSTILE,
                layers=("stem",),
                width=16,
                gone=4,
                ratio=0.25,
                saved_macs=0.133,
                saved_params=0.068,
                error=0.7,
                drop=36.67,
            ),
        ),
    }
    return Sensitivities.model_validate(whole | changes)


def text_of(run: RunFolder) -> str:
    return page(Summary.of(run))


def noted(found: Sensitivities) -> dict[str, Any]:
    return {"sensitivities": found.model_dump(mode="json")}


def test_the_page_has_the_tables_of_every_model_once(make_run: Callable[..., RunFolder]) -> None:
    run = make_run(
        old=noted(study(scored=0)), new=noted(study()), other=noted(study(model="b.onnx"))
    )
    text = text_of(run)
    assert re.findall(r"Which layer of (\S+) suffers", text) == ["net.onnx", "b.onnx"]
    for figure in ("41.2 dB", "exact", "2.00 %", "36.67", "4 of 16", "13.3 %", "0.37"):
        assert figure in text
    assert "Up cannot run in int8: no int8 ConvTranspose" in text
    assert HOSTILE not in text
    assert "&lt;script&gt;window.hacked" in text


def test_a_run_without_one_and_one_that_cannot_be_read_have_no_section(
    make_run: Callable[..., RunFolder],
) -> None:
    assert "suffers" not in text_of(make_run(broken={"sensitivities": {"model": 3}}))


def test_bars_are_drawn_against_the_worst_and_drops_only_where_they_were_taken() -> None:
    tables = {table["title"]: table for table in suffering_of(study())["tables"]}
    alone = tables["Each layer alone in 8 bits"]
    assert [row[4]["width"] for row in alone["rows"]] == [1.0, 0.5]
    assert alone["heads"][-2:] == ["output error", "lost, %"]
    assert alone["rows"][0][3] == {"text": "exact", "sort": 1e6}
    unscored = suffering_of(study(scored=0, cuts=(), no_cuts="it is a file"))
    assert [table["heads"][-1] for table in unscored["tables"]] == ["output error"] * 2
    assert "No ranking of cuts: it is a file" in unscored["sentences"]


def test_a_loss_that_rounds_to_nothing_has_no_sign() -> None:
    assert [points(drop) for drop in (-0.001, 0.001, -0.1, None)] == ["0.00", "0.00", "-0.10", ""]


def test_random_data_is_said() -> None:
    assert (
        "The data is random: these figures mean nothing"
        in suffering_of(study(synthetic=True))["sentences"]
    )

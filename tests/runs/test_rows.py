"""Rows: the same figures everywhere, with signs and doubts as they were measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.candidate import Candidate
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.runs.folder import RunFolder
from lilliput.runs.record import candidate_to_json
from lilliput.runs.result import Front, RunResult
from lilliput.runs.rows import NARROW, WIDE, filled_columns, headers, made_by, plain_table, rows_of


def figure(quantity: str, value: float, unit: str = "", **more: Any) -> Measurement:
    conditions = more.pop("conditions", {})
    return Measurement(quantity=quantity, value=value, unit=unit, conditions=conditions, **more)


def candidate(
    folder: Path,
    name: str,
    *,
    ratio: float = 1.0,
    metric: float = 91.7,
    drop: float = 0.0,
    size: int = 100,
    prefix: str = "",
    verdict: str = "tie",
    **timing: Any,
) -> Candidate:
    path = folder / f"{name}.bin"
    path.write_bytes(b"x" * size)
    told = {"verdict": verdict, **timing}
    made = Candidate(
        id=name,
        artifact=Artifact.of(path, metadata=ArtifactMetadata(precision="int8")),
        parent="original",
        stage="quantize",
        history=({"prune": {"ratio": 0.5}}, {"quantize": {}}),
        labels=("a label",),
    )
    return made.measured(
        figure("bytes", size, "B"),
        figure("macs", 20_400_000, "MACs", estimated=True),
        figure("params", 78_000, estimated=True),
        figure("latency", 3 * ratio, "ms", interval=(2.9 * ratio, 3.1 * ratio), conditions=told),
        figure("latency_p90", 3.3 * ratio, "ms", conditions=told),
        figure("ratio", ratio, interval=(0.9 * ratio, 1.1 * ratio), conditions=told),
        figure(f"{prefix}metric", metric, "%", conditions={"metric": "top-1"}),
        figure(f"{prefix}drop", drop, "%", interval=(drop - 0.1, drop + 0.1)),
    )


def test_cells_of_a_row(tmp_path: Path):
    original = candidate(tmp_path, "original")
    fast = candidate(tmp_path, "fast", ratio=0.5, metric=91.2, drop=0.5, verdict="faster")
    first, second = rows_of([original, fast], front=["fast"], best="fast")
    assert [first.id, second.id] == ["fast", "original"]
    assert first.cells() == {
        "file": "★ fast.bin",
        "metric": "91.20",
        "change": "−0.50 [−0.60, −0.40]",
        "latency": "1.5 ms [1.45, 1.55]",
        "speed": "2.00× [1.82, 2.22] faster",
        "size": "100 B",
        "also": "",
        "p90": "1.65 ms",
        "MACs": "20.4 M",
        "weights": "78 k",
        "precision": "int8",
        "made by": "prune(ratio=0.5) → quantize",
        "remarks": "a label",
    }
    assert second.cells()["change"] == "0.00 [−0.10, +0.10]"
    assert second.cells()["file"] == "· original.bin"
    assert set(first.cells()) == set(WIDE)


def test_a_metric_where_less_is_better_changes_with_its_own_sign(tmp_path: Path):
    original = candidate(tmp_path, "o", metric=2.0)
    worse = candidate(tmp_path, "w", metric=2.5, drop=0.5, ratio=0.9)
    change = rows_of([original, worse])[0].change
    assert change is not None
    assert (change.value, change.interval) == (0.5, (0.4, 0.6))


def test_the_test_split_comes_first_where_it_was_scored(tmp_path: Path):
    original = candidate(tmp_path, "o").measured(figure("test_metric", 90.0, "%"))
    both = candidate(tmp_path, "b", metric=50.0, ratio=0.9, drop=40.0).measured(
        figure("test_metric", 89.0, "%"), figure("test_drop", 1.0, "%")
    )
    row = rows_of([original, both])[0]
    assert (row.split, row.cells()["metric"], row.cells()["change"]) == ("test", "89.00", "−1.00")
    untested = rows_of([original, both, candidate(tmp_path, "c", ratio=0.9)])
    assert [("scored on validation alone" in r.remarks) for r in untested] == [
        r.id == "c" for r in untested
    ]
    assert rows_of([candidate(tmp_path, "v")])[0].split == "validation"


def test_unstable_times_are_remarked(tmp_path: Path):
    row = rows_of([candidate(tmp_path, "u", unstable_because=["it got 20% slower"])])[0]
    assert row.remarks == ("a label", "unstable: it got 20% slower")


def test_nothing_is_shown_where_nothing_was_measured(tmp_path: Path):
    path = tmp_path / "x.bin"
    path.touch()
    row = rows_of([Candidate(id="x", artifact=Artifact.of(path))])[0]
    told = {column: text for column, text in row.cells().items() if text}
    assert told == {"file": "· x.bin", "precision": "fp32"}
    assert row.verdict == ""
    assert plain_table([row]).splitlines()[0].split() == [
        *("file", "metric", "change", "latency", "speed", "size")
    ]


def test_what_goes_with_the_metric_has_a_column_of_its_own(tmp_path: Path):
    plain = candidate(tmp_path, "o")
    told = plain.measured(
        figure("also SSIM on luminance", 0.91, ""), figure("test_also SSIM on luminance", 0.92, "")
    )
    row = rows_of([told])[0]
    assert row.cells()["also"] == "0.9100"
    assert headers([row], ["also", "size"]) == ["SSIM on luminance", "size"]
    assert "also" in filled_columns([row])
    assert "also" not in filled_columns(rows_of([plain]))
    tested = rows_of([told.measured(figure("test_metric", 90.0, "%"))])[0]
    assert tested.cells()["also"] == "0.9200"


def test_the_table_is_aligned_and_names_the_metric(tmp_path: Path):
    files = [candidate(tmp_path, "original"), candidate(tmp_path, "a", ratio=0.5)]
    lines = plain_table(rows_of(files)).splitlines()
    assert "top-1, %" in lines[0]
    assert lines[0].index("speed") == lines[1].index("2.00×") == lines[2].index("1.00×")


def test_a_history_as_a_sentence():
    assert made_by([{"a": {}}, {"b": {"x": 1, "y": [2]}}, {"c": None}]) == "a → b(x=1, y=[2]) → c"


class Text:
    """A recipe whose budget the files below keep or miss."""

    def __init__(self, budget: str) -> None:
        self.text = f"budget: {budget}\n"

    def placed(self, home: Path) -> Text:
        return self

    def dump(self) -> str:
        return self.text


def run_with(tmp_path: Path, budget: str, files: bool = True) -> RunResult:
    with RunFolder.create(tmp_path / "run", Text(budget)) as run:
        if files:
            made = [
                candidate(run.files, "original"),
                candidate(run.files, "fast", ratio=0.5, drop=0.5, metric=91.2, size=60),
                candidate(run.files, "bad", ratio=0.6, drop=2.0, metric=89.7, size=60),
            ]
            stored = [candidate_to_json(c, c.the_artifact().path, run.path) for c in made]
            run.journal.note("measured", candidates=stored)
        return RunResult.of(run)


def test_a_result_from_the_journal(tmp_path: Path):
    result = run_with(tmp_path, "{max_drop: 1.0}")
    assert result.best is not None
    assert (result.best.id, result.missed, result.exit_code) == ("fast", (), 0)
    assert {c.id for c in result.candidates} == {"original", "fast", "bad"}
    assert {c.id for c in result.front} == {"original", "fast"}
    assert result.best_file == tmp_path / "run" / "best.bin"
    assert result.summary() == f"recommended: {tmp_path}/run/best.bin"
    assert "bad" not in str(result)


def test_a_notebook_shows_the_front_as_chart_and_table(tmp_path: Path):
    result = run_with(tmp_path, "{max_drop: 1.0}")
    page = ElementTree.fromstring(result.front._repr_html_())
    svg = "{http://www.w3.org/2000/svg}"
    names = [title.text.splitlines()[0] for title in page.iter(f"{svg}title")]
    assert sorted(names) == [
        "bad.bin, beaten",
        "fast.bin, recommended",
        "original.bin, the original",
    ]
    cells = [["".join(cell.itertext()) for cell in row] for row in page.iter("tr")]
    assert [row[0] for row in cells] == ["file", "★ fast.bin", "original.bin"]
    assert cells[0] == headers(result.rows, NARROW)
    assert str(result.front) == result.table()
    assert tuple(result.front) == tuple(c for c in result.candidates if c.id != "bad")
    whole = result._repr_html_()
    assert whole.startswith(result.front._repr_html_())
    assert f"recommended: {tmp_path}/run/best.bin" in whole


def test_a_name_is_only_text_in_a_notebook(tmp_path: Path):
    odd = candidate(tmp_path, "<i>&amp;")
    page = Front([odd], rows_of([odd], front=["<i>&amp;"]))._repr_html_()
    cells = ["".join(cell.itertext()) for cell in ElementTree.fromstring(page).iter("td")]
    assert cells[0] == "<i>&amp;.bin"


def test_a_front_of_nothing_is_a_table_of_nothing():
    assert ElementTree.fromstring(Front()._repr_html_()).find("table") is not None


def test_a_missed_budget_exits_with_3(tmp_path: Path):
    # users-ask 14
    result = run_with(tmp_path, "{max_latency_ms: 1.0}")
    assert result.exit_code == 3
    assert result.summary() == (
        f"the budget is missed; closest: {tmp_path}/run/best.bin: latency 1.5 ms misses the limit "
        "of 1 ms by 0.5 ms; the files at hand would keep --max-latency 1.5ms"
    )


def test_a_run_without_files(tmp_path: Path):
    result = run_with(tmp_path, "{}", files=False)
    assert (result.best, result.exit_code, result.best_file) == (None, 3, None)
    assert result.summary().startswith("no file was measured; the reasons are in ")


def test_a_result_of_changed_files_is_refused(tmp_path: Path):
    run_with(tmp_path, "{}")
    (tmp_path / "run" / "files" / "fast.bin").write_bytes(b"other")
    with pytest.raises(LilliputError, match="this file was changed since it was made"):
        RunResult.of(RunFolder.look(tmp_path / "run"))

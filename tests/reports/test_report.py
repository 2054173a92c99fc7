"""Reports: rebuilt from the journal, complete, and honest about what is shaky."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.reports import write_report
from lilliput.reports.summary import Summary
from lilliput.reports.table import shortened, show_rows
from lilliput.runs.folder import RunFolder
from lilliput.runs.record import candidate_to_json
from lilliput.runs.rows import WIDE

MakeRun = Callable[..., RunFolder]


def test_the_page_says_what_to_take_and_how_it_was_measured(make_run: MakeRun):
    run = make_run(finished={"best": "fast", "missed": [], "seconds": 75.2})
    text = write_report(run).text
    assert f"**Recommended: `{run.path}/files/fast.bin`**" in text
    assert "onnxruntime.InferenceSession(" in text
    front, others = text.split("## The front")[1].split("## The other files")
    assert "★ fast.bin" in front
    assert "original.bin" in front
    assert "· lossy.bin" in others
    assert "no gain over its parent" in others
    assert "quantize(method=a\\|b)" in front
    assert "| 1 shrink | original | too thin \\| x |" in text
    for condition in (
        "| target | onnxruntime, 1 thread |",
        "| limits | drop ≤ 1 |",
        "| data | name digits, examples (train 10), sha256 abc |",
        "| seed | 7 |",
        "| other load | at most 0.10 cores were used by others; differences below 1.2% are called",
        "| last session | 1 min 15 s |",
    ):
        assert condition in text
    assert "not finished" not in text
    assert "lilliput resume" not in text
    assert f"lilliput run {run.path}/recipe.yaml" in text


def test_every_row_of_a_markdown_table_has_all_columns(make_run: MakeRun):
    text = write_report(make_run()).text
    front = text.split("## The front")[1].split("\n\n")[1]
    cells = [line.replace("\\|", "").count("|") for line in front.splitlines()]
    # Nothing is reported beside the metric, and nothing remarked: these columns are left out.
    assert set(cells) == {len(WIDE) - 2 + 1}


def test_reports_are_the_same_whenever_they_are_made(make_run: MakeRun):
    run = make_run()
    first = write_report(run)
    for name in ("report.md", "report.json", "front.csv"):
        (run.path / name).unlink()
    assert write_report(RunFolder.look(run.path)).text == first.text
    assert first.path == run.report
    assert (run.path / "report.md").read_text(encoding="utf-8") == str(first)
    assert first._repr_markdown_() == first.text


def test_an_unfinished_run_says_how_to_go_on(make_run: MakeRun):
    run = make_run()
    text = write_report(run).text
    assert "The run is not finished: these are the files so far." in text
    assert f"lilliput resume {run.path}" in text


def test_a_missed_budget_is_the_first_thing_said(make_run: MakeRun):
    # users-ask 14
    text = write_report(make_run("budget: {max_latency_ms: 1.0}\n")).text
    assert "**The budget is missed.** The closest file is" in text
    assert "latency 1.5 ms misses the limit of 1 ms by 0.5 ms" in text
    assert "What would reach it: the files at hand would keep --max-latency 1.5ms." in text


def test_random_data_is_said(make_run: MakeRun):
    text = write_report(make_run(data={"synthetic": True})).text
    assert "> **The data is random:" in text


def test_validation_from_test_is_said(make_run: MakeRun):
    text = write_report(make_run(data={"validation_from_test": "the network knows CIFAR-10"})).text
    assert "> **The network knows CIFAR-10.**" in text


def test_another_machine_is_said(make_run: MakeRun):
    # users-ask 11
    text = write_report(make_run(session={"cpu": "other", "isa": "none", "versions": {}})).text
    assert "Session 2 ran elsewhere (cpu, isa, versions differ from the first)" in text


def test_a_loss_on_test_beyond_the_limit_is_said(make_run: MakeRun):
    run = make_run()
    record = run.history().records["fast"]
    lost = Measurement(quantity="test_drop", value=1.4, unit="%")
    changed = {**record.model_dump(mode="json")}
    changed["measurements"]["test_drop"] = lost.model_dump(mode="json")
    with RunFolder.open(run.path) as again:
        again.journal.note("tested", candidate=changed)
    text = write_report(run).text
    assert "On the test split fast.bin loses 1.4 %, more than the limit of 1;" in text


def test_changed_and_lost_files_do_not_stop_a_report(make_run: MakeRun):
    run = make_run()
    (run.files / "fast.bin").write_bytes(b"other")
    (run.files / "lossy.bin").unlink()
    text = write_report(run).text
    assert "files/fast.bin was changed since; its row tells what it was." in text
    assert "files/lossy.bin is gone; its row tells what it was." in text


def test_a_changed_journal_does(make_run: MakeRun):
    run = make_run()
    path = run.path / "journal.jsonl"
    path.write_text(path.read_text().replace('"drop":0.4', '"drop":0.1').replace("0.41", "0.14"))
    with pytest.raises(LilliputError, match="or was changed since"):
        write_report(run)


def test_the_json_holds_every_figure_with_its_interval(make_run: MakeRun):
    run = make_run(finished={"best": "fast"})
    write_report(run)
    data = json.loads((run.path / "report.json").read_text())
    assert data["finished"] is True
    assert data["recommended"].endswith("fast.bin")
    assert set(data["front"]) == {"original", "fast"}
    first = data["files"][0]
    assert (first["id"], first["verdict"], first["recommended"]) == ("fast", "faster", True)
    assert first["figures"]["ratio"]["interval"] == [0.49, 0.51]
    assert first["figures"]["macs"]["estimated"] is True
    assert first["sha256"] == run.history().records["fast"].artifact.sha256  # type: ignore[union-attr]
    assert data["failures"][0]["error"] == "too\nthin | x"
    assert data["conditions"]["seed"] == 7
    assert data["conditions"]["noise_floor"] == 0.012


def test_every_line_of_the_csv_names_seed_data_versions_and_command(make_run: MakeRun):
    # users-ask 34
    run = make_run()
    write_report(run)
    lines = list(csv.DictReader(io.StringIO((run.path / "front.csv").read_text())))
    assert [line["file"] for line in lines] == [
        "files/fast.bin",
        "files/original.bin",
        "files/lossy.bin",
    ]
    for line in lines:
        assert (line["seed"], line["data"], line["data_hash"]) == ("7", "digits", "abc")
        assert "numpy=" in line["versions"]
        assert line["command"]
    assert float(lines[0]["latency_ms"]) == 1.5
    assert float(lines[0]["ratio_high"]) == 0.51


def test_a_run_without_files(tmp_path: Path, make_run: MakeRun):
    run = make_run()
    journal = run.path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    report = write_report(run)
    assert "No file was measured yet." in report.text
    assert "No file has all its figures yet." in report.text
    assert "| other load | nothing was timed |" in report.text
    assert (run.path / "front.csv").read_text().startswith("file,target,")


def test_the_delivered_copy_is_named_once_it_is_there(make_run: MakeRun):
    run = make_run()
    (run.path / "best.bin").touch()
    assert Summary.of(run).best_file == run.path / "best.bin"


@pytest.mark.parametrize(
    ("target", "label"),
    [
        ("openvino:bf16", "openvino:bf16, 1 thread"),
        ("{runtime: onnxruntime, threads: 2}", "onnxruntime, 2 threads"),
        ("{threads: many}", "onnxruntime, 1 thread"),
    ],
)
def test_the_target_is_read_from_the_recipe(make_run: MakeRun, target: str, label: str):
    assert Summary.of(make_run(f"target: {target}\n")).conditions["target"] == label


def shown(run: RunFolder, width: int, *, terminal: bool) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=terminal, color_system=None)
    show_rows(Summary.of(run).rows, console)
    return stream.getvalue()


@pytest.mark.parametrize("width", [200, 150, 120, 112, 100, 80, 60, 40, 20])
def test_no_line_of_the_table_is_wider_than_the_terminal(make_run: MakeRun, width: int):
    lines = shown(make_run(), width, terminal=True).splitlines()
    assert max(map(len, lines[:4])) <= width
    assert "fast.bin" in lines[1]


def test_a_narrow_terminal_keeps_what_matters_most(make_run: MakeRun):
    run = make_run()
    wide, narrow = (shown(run, width, terminal=True).splitlines() for width in (200, 60))
    assert "2.00× [1.96, 2.04] faster" in wide[1]
    assert "quantize" in wide[1]
    assert "made by" in wide[0]
    assert "made by" not in narrow[0]
    assert "2.00× faster" in narrow[1]


def test_long_names_lose_their_middle():
    assert shortened("a-very-long-name-int8.onnx", 13) == "a-very…8.onnx"
    assert shortened("short", 5) == "short"


def test_remarks_stand_below_the_table(make_run: MakeRun):
    lines = shown(make_run(), 100, terminal=True).splitlines()
    assert lines[4].startswith("  lossy.bin: no gain over its parent")


def test_a_pipe_is_as_wide_as_columns_says(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch):
    run = make_run()
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, shown(run, 999, terminal=False).splitlines()[:4])) <= 60
    monkeypatch.delenv("COLUMNS")
    assert max(map(len, shown(run, 999, terminal=False).splitlines()[:4])) <= 120


def test_rows_come_from_records_and_candidates_alike(make_run: MakeRun):
    from lilliput.runs.result import RunResult

    run = make_run()
    told = [row.cells() for row in Summary.of(run).rows]
    assert [row.cells() for row in RunResult.of(run).rows] == told
    candidate = RunResult.of(run).candidates[0]
    again = candidate_to_json(candidate, candidate.the_artifact().path, run.path)
    assert again == run.history().records[candidate.id].model_dump(mode="json")

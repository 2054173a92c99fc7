"""The HTML report: the figures of report.md, whole in one file, and deaf to hostile texts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest

from lilliput.measurement import Measurement
from lilliput.reports import write_report
from lilliput.reports.html import ASSETS, page
from lilliput.reports.summary import Summary
from lilliput.runs.chart import chart_of
from lilliput.runs.folder import RunFolder
from lilliput.runs.rows import filled_columns

MakeRun = Callable[..., RunFolder]

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
"""As in the fixture `full_run`."""

VOID = {"meta", "link", "input", "img", "br"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction"}


class Page(HTMLParser):
    """Tags with their attributes, the text of every row, and what scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.rows: list[list[str]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.append((tag, given))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "script":
            self.scripts.append((given, ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            given, text = self.scripts[-1]
            self.scripts[-1] = (given, text + data)
            return
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data
        if "style" not in self._open:
            self.text += data


@pytest.fixture
def full(full_run: RunFolder) -> Page:
    write_report(full_run)
    return Page((full_run.path / "report.html").read_text(encoding="utf-8"))


def test_the_files_have_the_figures_of_the_markdown(full_run: RunFolder, full: Page) -> None:
    summary = Summary.of(full_run)
    columns = filled_columns(summary.rows)
    text = write_report(full_run).text
    for row in summary.rows:
        cells = [row.cells()[column] for column in columns]
        assert cells in full.rows
        for cell in cells:
            assert cell.replace("|", "\\|") in text


def test_every_file_is_a_point_with_its_settings(full_run: RunFolder, full: Page) -> None:
    chart = json.loads(full.scripts[0][1])
    assert {point["id"]: point["kind"] for point in chart["points"]} == {
        "fast": "best",
        "original": "original",
        "lossy": "other",
    }
    fast = chart["points"][0]
    assert (fast["latency"], fast["latencyRange"]) == (1.5, [1.49, 1.51])
    assert ["made by", "quantize(method=a|b)"] in fast["details"]
    # A change of −0.4 in [−0.41, −0.39], put where the original is.
    assert fast["metricRange"] == pytest.approx([91.29, 91.31])
    assert chart["higher_is_better"] is True
    assert chart["limits"] == {"metric": pytest.approx(90.7)}


def test_files_of_different_splits_are_compared_by_their_change(make_run: MakeRun) -> None:
    run = make_run()
    with RunFolder.open(run.path) as again:
        records = [again.history().records[name] for name in ("original", "fast")]
        for record, value in zip(records, (80.0, 79.5), strict=True):
            figures = dict(record.measurements)
            for name, shown in (("test_metric", value), ("test_drop", 80.0 - value)):
                told = {"quantity": name, "value": shown, "unit": "%", "conditions": {}}
                figures[name] = Measurement.model_validate(told)
            changed = record.model_copy(update={"measurements": figures})
            again.journal.note("tested", candidates=[changed.model_dump(mode="json")])
    summary = Summary.of(run)
    points = {
        point["id"]: point["metric"] for point in chart_of(summary.rows, summary.budget)["points"]
    }
    # `lossy` lost 3 on validation, where the original had 91.7: it is no 88.7 beside an 80.
    assert points == {"original": 80.0, "fast": 79.5, "lossy": pytest.approx(77.0)}
    assert "scored on validation alone" in page(summary)


def test_a_limit_missed_on_test_alone_is_said(make_run: MakeRun) -> None:
    run = make_run()
    with RunFolder.open(run.path) as again:
        record = again.history().records["fast"]
        drop = Measurement(quantity="test_drop", value=2.0, unit="%")
        figures = {**record.measurements, "test_drop": drop}
        changed = record.model_copy(update={"measurements": figures})
        again.journal.note("tested", candidates=[changed.model_dump(mode="json")])
    assert "budget kept on validation, missed on test" in page(Summary.of(run))


def test_nothing_is_fetched(full: Page) -> None:
    for tag, attributes in full.tags:
        for name in LOADING & attributes.keys():
            assert attributes[name].startswith(("data:", "#")), (tag, name, attributes[name])
        assert tag not in ("iframe", "object", "embed", "base")
    for name in ("report.css", "report.js"):
        text = (ASSETS / name).read_text()
        assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", text)


def test_only_the_page_s_own_scripts_may_run(full: Page) -> None:
    (policy,) = (
        each["content"] for tag, each in full.tags if each.get("http-equiv", "").endswith("Policy")
    )
    assert "default-src 'none'" in policy
    own = [text for given, text in full.scripts if given.get("type") != "application/json"]
    hashes = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in own}
    assert len(own) == 3
    assert set(re.findall(r"'sha256-([^']+)'", policy)) == hashes
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_hostile_texts_are_shown_and_no_part_of_the_page(full: Page) -> None:
    # As a layer, a tensor, a class, a setting, a warning, a stage that failed and its reason.
    assert full.text.count(HOSTILE) >= 7
    assert not [given for tag, given in full.tags if tag == "img" and given["src"] == "x"]
    assert len(full.scripts) == 4
    assert not [given for _, given in full.tags if any(name.startswith("on") for name in given)]


def test_failures_are_rows_with_their_reason(full: Page) -> None:
    assert ["1 shrink", "original", "too\nthin | x"] in full.rows
    assert [f"2 {HOSTILE}", "cut", f"broke: {HOSTILE}"] in full.rows


def test_stages_show_the_metric_before_and_after(full_run: RunFolder, full: Page) -> None:
    cut = [f"1 shrink(removed={HOSTILE})", "cut", "original", "91.70", "≈ 91.50", "1 min 1 s"]
    fast = ["2 quantize", "fast", "cut", "≈ 91.50", "91.30", "1 min 1 s"]
    assert cut in full.rows
    assert fast in full.rows
    told = write_report(full_run).text
    assert f"| {' | '.join(fast)} |" in told
    # The original passed the first stage unchanged: that is no row.
    assert not [row for row in full.rows if row[1:2] == ["original"] and row[0].startswith("1 o")]


def test_the_recommended_file_is_taken_apart(full: Page) -> None:
    assert ["stem", "conv3x3, 1 → 8", "int8", "72", "4.61 k", "2.0 µs", "1.23%"] in full.rows
    assert ["Add ×2", "without weights", "fp32", "", "", "1.0 µs", ""] in full.rows
    bill = [row for row in full.rows if row[-1].endswith("%") and row[2].isdigit()]
    assert sum(int(row[2]) for row in bill[:-1]) == int(bill[-1][2]) == 400
    assert "Few multiply-adds to a byte." in full.text


def test_samples_come_from_the_samples_alone(full: Page) -> None:
    pictures = [given["src"] for tag, given in full.tags if tag == "img"]
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0].partition(",")[2]).startswith(b"\x89PNG")
    assert "differ on 1 of 20 test examples" in " ".join(full.text.split())


def test_a_sample_that_is_no_picture_is_left_out(full_run: RunFolder) -> None:
    (full_run.path / "samples" / "0-input.png").write_text("<svg onload=alert(1)>")
    assert "data:image" not in page(Summary.of(full_run))


def test_warnings_of_the_inputs_reach_both_reports(full_run: RunFolder, full: Page) -> None:
    told = f"The normalisation looks wrong: {HOSTILE}."
    assert told in write_report(full_run).text
    assert told in full.text


def test_conditions_are_told(full: Page) -> None:
    for text in ("digits, examples (train 10), sha256 abc", "budget kept", "drop ≤ 1", "at most"):
        assert text in full.text


def test_a_missed_budget_is_said_first(make_run: MakeRun) -> None:
    text = page(Summary.of(make_run("budget: {max_bytes: 300}\n")))
    assert "budget missed" in text
    assert "size 400 B misses the limit of 300 B by 100 B" in text
    assert "What would reach it" in text


def test_a_run_without_files_has_a_page(make_run: MakeRun) -> None:
    run = make_run()
    journal = run.path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().splitlines(keepends=True)[0])
    told = Page(page(Summary.of(run)))
    assert "No file was measured yet." in told.text
    assert "No file has all its figures yet." in told.text


def test_the_page_is_small_and_repeats_the_licence(full_run: RunFolder) -> None:
    text = page(Summary.of(full_run))
    assert len(text.encode()) < 1_500_000
    assert "Permission to use, copy, modify" in text


def test_the_vendored_library_is_what_its_readme_says() -> None:
    told = (ASSETS / "vendor" / "README.md").read_text()
    for name in ("d3.min.js", "plot.umd.min.js"):
        content = (ASSETS / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() in told
        assert b"</script" not in content

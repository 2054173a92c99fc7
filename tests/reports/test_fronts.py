"""What a search found, in every form of the report: estimates, files beside them, how to ask."""

from __future__ import annotations

import json
import re

from lilliput.reports import write_report
from lilliput.reports.fronts import MOST_IN_SHORT, fronts_of
from lilliput.reports.summary import Summary
from lilliput.runs.folder import RunFolder

NAME = "search_any original"
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>"
"""As in the fixture `searched_run`."""


def test_members_with_their_estimates_and_the_file_of_the_one_that_has_one(
    searched_run: RunFolder,
) -> None:
    front = fronts_of(Summary.of(searched_run))[NAME]
    assert front.heads == [
        "member",
        "generation",
        "≈ loss, %",
        "≈ coded bytes",
        "≈ macs",
        "≈ loss when trained, inputs on grids",
        "file",
        "its loss, measured",
        "size",
    ]
    assert [front.cells(m) for m in front.members] == [
        ["0000aaaa", "2", "2.50", "900 B", "9 k", "", "", "", ""],
        [HOSTILE, "2", "9.00", "300 B", "3 k", "", "", "", ""],
        [
            "1111bbbb",
            "2",
            "12.00",
            "500 B",
            "5 k",
            "3.40",
            "lossy.bin",
            "3.00 [2.99, 3.01]",
            "500 B",
        ],
    ]
    assert (
        front.members[0].summary
        == f"stem: 6 of 8 channels, weights 4 bits; {HOSTILE}: weights in float"
    )


def test_every_form_of_the_report_shows_them_and_how_to_have_another(
    searched_run: RunFolder,
) -> None:
    report = write_report(searched_run)
    asked = '  - search_any:\n      deliver: ["0000aaaa"]'
    assert f"```yaml\n{asked}\n```" in report.text
    assert f"lilliput resume {searched_run.path}\n" in report.text
    assert (
        "| 1111bbbb | 2 | 12.00 | 500 B | 5 k | 3.40 | lossy.bin | 3.00 [2.99, 3.01] |"
        in report.text
    )
    assert "A file computes them in float" in report.text
    (search,) = json.loads((searched_run.path / "report.json").read_text())["searches"]
    assert [m["deliver"] for m in search["members"]] == ["0000aaaa", HOSTILE, "1111bbbb"]
    assert search["members"][2]["files"] == ["lossy"]
    assert search["members"][2]["estimated_loss_trained"] == 3.4
    assert [m["on_front"] for m in search["members"]] == [True, True, False]
    page = report.page.read_text()
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    points = json.loads(data)["searches"][NAME]["points"]
    assert [point["lines"] for point in points] == [
        asked,
        f'  - search_any:\n      deliver: ["{HOSTILE}"]',
        "",
    ]
    assert "<script>window" not in page


def test_of_many_members_the_short_table_has_some_and_those_with_files(make_run) -> None:
    facts = {
        "search": NAME,
        "stage": "search_any",
        "candidate": "original",
        "objectives": {"loss": "%", "latency": "of the original's"},
        "examples": 60,
    }
    figures = [{"loss": n / 10, "latency": 1 - n / 100} for n in range(40)]
    members = [{"id": f"id{n}", "generation": 1, "figures": f} for n, f in enumerate(figures)]
    made = [{"id": "x", "parent": "original", "settings": {"search_any": {"genome": "id7"}}}]
    run = make_run(
        g={"generation": {"search": NAME}},
        front={"front": {**facts, "members": members}},
        stage={"number": 1, "name": "search_any", "made": made},
    )
    front = fronts_of(Summary.of(run))[NAME]
    short = [member.id for member in front.short()]
    assert len(short) == MOST_IN_SHORT + 1
    assert {"id0", "id7", "id39"} <= set(short)
    assert front.cells(front.members[1])[2:4] == ["0.10", "0.99×"]
    assert "27 more members are in report.html" in write_report(run).text


def test_where_several_searches_share_a_stage_the_id_says_whose(make_run) -> None:
    def told(candidate: str) -> dict[str, object]:
        return {
            "search": f"search_any {candidate}",
            "stage": "search_any",
            "candidate": candidate,
            "objectives": {"loss": "%", "params": ""},
            "members": [{"id": "aa", "generation": 1, "figures": {"loss": 1.0, "params": 10.0}}],
        }

    run = make_run(one={"front": told("thin")}, two={"front": told("thinner")})
    assert [front.members[0].wanted for front in fronts_of(Summary.of(run)).values()] == [
        "thin/aa",
        "thinner/aa",
    ]

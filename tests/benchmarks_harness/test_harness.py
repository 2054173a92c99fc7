"""A claim's file: computed judgements, other machines' rows, tables, committed files."""

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks import __main__ as command_line
from benchmarks import harness, tables
from benchmarks.harness import Claim, Options, Peer, Row
from benchmarks.networks.lenet import lenet5, lenet5_thin, lenet300
from torch import nn

from lilliput.errors import LilliputError
from lilliput.measurement import Measurement


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty benchmarks folder inside an empty repository."""
    folder = tmp_path / "repo" / "benchmarks"
    (folder / "claims").mkdir(parents=True)
    return folder


def add_claim(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, **functions: object) -> None:
    stem = name.replace("-", "_")
    (home / "claims" / f"{stem}.py").write_text("")
    module = types.ModuleType(f"benchmarks.claims.{stem}")
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.mark.parametrize(
    ("build", "params"), [(lenet300, 266_610), (lenet5, 431_080), (lenet5_thin, 29_122)]
)
def test_the_lenets_have_the_size_that_the_literature_counts(
    build: Callable[[], nn.Module], params: int
) -> None:
    assert sum(parameter.numel() for parameter in build().parameters()) == params


@pytest.mark.parametrize(
    ("goal", "figure", "holds"),
    [
        ("<= 0.7", 0.7, True),
        ("<= 0.7", 0.71, False),
        (">= 2.7", 2.69, False),
        ("< 5e-2", 0.04, True),
        ("> -1", -1.0, False),
        ("== 0", 0.0, True),
        (None, 3.0, None),
        ("<= 1", None, None),
    ],
)
def test_holds_is_computed(goal: str | None, figure: float | None, holds: bool | None) -> None:
    assert Row(name="x", figure=figure, goal=goal).holds is holds


def test_a_typed_judgement_is_not_believed() -> None:
    row = Row.model_validate({"name": "x", "figure": 2.0, "goal": "<= 1", "holds": True})
    assert row.holds is False


def test_a_goal_that_nobody_can_read_is_refused() -> None:
    with pytest.raises(ValueError, match=r"goal 'about 3' is not like '<= 0\.7'"):
        Row(name="x", figure=1.0, goal="about 3")


def test_a_row_takes_a_measurement_over() -> None:
    figure = Measurement(quantity="drop", value=0.4, unit="points", interval=(0.1, 0.7))
    row = Row.of("accuracy lost", figure, goal="<= 0.5")
    assert (row.figure, row.unit, row.interval, row.holds) == (0.4, "points", (0.1, 0.7), True)


def test_a_run_leaves_figures_and_conditions(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: Options) -> Claim:
        rows = (Row(name="seconds", figure=0.2, unit="s", goal="< 0.3"),)
        return Claim(says="it is quick", rows=rows, conditions={"set": "digits"})

    add_claim(home, monkeypatch, "is-quick", run=run)
    options = Options(name="is-quick", home=home, seeds=(0, 1))
    harness.run(options, command=["python", "-m", "benchmarks", "is-quick"])
    stored = json.loads((home / "results" / "is-quick.json").read_text())
    assert stored["claim"] == "is-quick"
    assert stored["rows"] == [
        {"name": "seconds", "figure": 0.2, "unit": "s", "goal": "< 0.3", "holds": True}
    ]
    assert stored["conditions"]["set"] == "digits"
    assert stored["conditions"]["command"] == "python -m benchmarks is-quick"
    assert stored["conditions"]["seeds"] == [0, 1]
    assert {"machine", "versions", "seconds", "date"} <= set(stored["conditions"])
    assert harness.read("is-quick", home=home).rows[0].holds is True


def test_a_smoke_run_does_not_touch_the_result(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_claim(home, monkeypatch, "c", run=lambda options: Claim(says="s", rows=()))
    harness.run(Options(name="c", home=home, smoke=True), command=[])
    assert not (home / "results").exists()
    assert (home / "work" / "c-smoke" / "smoke.json").is_file()


def test_another_machine_keeps_its_rows(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goals = {"avx2": ">= 2.2", "vnni": ">= 2.7"}
    for isa, figure in (("vnni", 2.9), ("avx2", 2.1)):
        monkeypatch.setattr("lilliput.meter.host.isa_class", lambda _flags, isa=isa: isa)
        rows = harness.per_isa("ratio", figure, goals, unit="×")
        add_claim(
            home, monkeypatch, "fast", run=lambda options, rows=rows: Claim(says="s", rows=rows)
        )
        claim = harness.run(Options(name="fast", home=home), command=[])
    by_isa = {row.isa: row for row in claim.rows}
    assert (by_isa["vnni"].figure, by_isa["vnni"].holds) == (2.9, True)
    assert by_isa["vnni"].machine is not None
    assert by_isa["vnni"].machine["isa"] == "vnni"
    assert (by_isa["avx2"].figure, by_isa["avx2"].holds) == (2.1, False)
    assert claim.missed == (by_isa["avx2"],)


def test_a_verification_fills_only_rows_that_are_open(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goals = {"vnni": ">= 2.7", "avx2": ">= 2.2"}

    def measured(isa: str, figure: float, *, verify: bool) -> Claim:
        monkeypatch.setattr("lilliput.meter.host.isa_class", lambda _flags: isa)
        rows = harness.per_isa("ratio", figure, goals, unit="×")
        claim = Claim(says="s", rows=(Row(name="lost", figure=figure), *rows))
        add_claim(home, monkeypatch, "c", run=lambda _: claim, verify=lambda _: claim)
        return harness.run(Options(name="c", home=home), command=[], verify=verify)

    measured("vnni", 2.9, verify=False)
    verified = measured("avx2", 2.4, verify=True)
    (row,) = harness.settle(verified, home=home)
    assert (row.isa, row.figure, row.holds) == ("avx2", 2.4, True)
    claim = harness.read("c", home=home)
    assert [r.figure for r in claim.rows] == [2.9, 2.9, 2.4]
    assert claim.conditions["machine"]["isa"] == "vnni"
    assert claim.rows[2].machine is not None
    assert claim.rows[2].machine["isa"] == "avx2"
    assert harness.settle(verified, home=home) == ()


def test_a_machine_of_another_class_is_stated_without_a_goal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lilliput.meter.host.isa_class", lambda _flags: "neon")
    rows = harness.per_isa("ratio", 1.5, {"avx2": ">= 2.2"})
    assert [(row.isa, row.figure, row.goal) for row in rows] == [
        ("avx2", None, ">= 2.2"),
        ("neon", 1.5, None),
    ]


def test_committed_files_are_checked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = home / "net.onnx"
    made.write_bytes(b"weights")

    def run(options: Options) -> Claim:
        return Claim(says="s", rows=(), files={"best": options.commit(made, "c/net.onnx")})

    add_claim(home, monkeypatch, "c", run=run)
    options = Options(name="c", home=home)
    entry = harness.run(options, command=[]).files["best"]
    assert (entry.path, entry.bytes) == ("benchmarks/artifacts/c/net.onnx", 7)
    assert options.committed("best").read_bytes() == b"weights"
    with pytest.raises(LilliputError, match="has no file 'worst'"):
        options.committed("worst")
    (home / "artifacts" / "c" / "net.onnx").write_bytes(b"others")
    with pytest.raises(LilliputError, match="is not the file that claim 'c' was measured on"):
        options.committed("best")


def test_a_large_file_is_not_committed(home: Path) -> None:
    big = home / "big.onnx"
    big.write_bytes(bytes(harness.ARTIFACT_LIMIT + 1))
    with pytest.raises(LilliputError, match="committed files have at most 1000000"):
        Options(name="c", home=home).commit(big, "big.onnx")


def test_verify_needs_a_claim_that_can(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_claim(home, monkeypatch, "c", run=lambda options: Claim(says="s", rows=()))
    with pytest.raises(LilliputError, match="'c' keeps no file that could be measured again"):
        harness.run(Options(name="c", home=home), command=[], verify=True)


def test_an_unknown_claim_gets_the_nearest_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_claim(home, monkeypatch, "stopwatch", run=lambda options: Claim(says="s", rows=()))
    with pytest.raises(LilliputError, match="did you mean 'stopwatch'"):
        harness.run(Options(name="stopwach", home=home), command=[])


def test_tables_are_written_from_results(home: Path) -> None:
    rows = (
        Row(name="lost", figure=0.58, unit="points", interval=(0.41, 0.75), goal="<= 0.7"),
        Row(name="multiply-adds", figure=20.1e6, unit="MACs", goal="<= 20.0e6", limits="one layer"),
        Row(name="ratio", figure=None, goal=">= 2", isa="vnni"),
    )
    lost = Row(name="lost", figure=2.0, unit="points")
    bytes_ = Row(name="size", figure=4e5, unit="B")
    peers = (Peer(name="other 1.0", rows=(lost,)), Peer(name="third", rows=(bytes_, lost)))
    claim = Claim(claim="half", says="Half the work", rows=rows, peers=peers)
    harness.write(claim, harness.result_path("half", home))
    page = home / "page.md"
    page.write_text("before\n<!-- claims:half -->\nstale words\n<!-- /claims:half -->\nafter\n")
    assert tables.stale([page], home=home) == [page]
    assert tables.renew([page], home=home) == [page]
    text = page.read_text()
    assert "| lost | 0.58 points [0.41, 0.75] | <= 0.7 | yes |" in text
    assert "| multiply-adds | 20.1 M MACs | <= 20.0e6 | **no** |" in text
    assert "- multiply-adds: one layer" in text
    assert "| ratio (vnni) | open | >= 2 |  |" in text
    assert "| beside it | lost | size |\n| --- | --- | --- |" in text
    assert "| other 1.0 | 2 points |  |\n| third | 2 points | 400 kB |" in text
    assert text.startswith("before\n")
    assert text.endswith("<!-- /claims:half -->\nafter\n")
    assert "stale words" not in text
    assert tables.stale([page], home=home) == []


def test_many_figures_of_few_peers_are_rows() -> None:
    rows = (Row(name="lost", figure=2.0), Row(name="ratio", figure=3.0))
    text = tables.table(Claim(claim="c", says="s", rows=rows, peers=(Peer(name="one", rows=rows),)))
    assert "| beside it | one |\n| --- | --- |\n| lost | 2 |\n| ratio | 3 |" in text


def test_a_table_without_a_result_is_an_error(home: Path) -> None:
    text = "<!-- claims:none -->\n<!-- /claims:none -->"
    with pytest.raises(LilliputError, match="'none' has no result yet"):
        tables.renewed(text, home=home)


@pytest.mark.parametrize(
    ("value", "text"), [(20.1e6, "20.1 M"), (291034, "291 k"), (0.5846, "0.5846"), (-3.0, "-3")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert tables.number(value) == text


@pytest.mark.parametrize(
    ("figure", "unit", "text"),
    [(102_216, "B", "102.2 kB"), (812, "B", "812 B"), (20.1e6, "MACs", "20.1 M MACs")],
)
def test_sizes_are_written_as_sizes(figure: float, unit: str, text: str) -> None:
    assert tables.figure_text(Row(name="size", figure=figure, unit=unit)) == text


def test_the_command_tells_what_was_missed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (Row(name="seconds", figure=4.0, unit="s", goal="< 3"),)
    missed = Claim(claim="c", says="s", rows=rows)
    monkeypatch.setattr(harness, "run", lambda options, **_: missed)
    assert command_line.main(["c"]) == 1
    assert "missed: seconds: 4 s, goal < 3" in capsys.readouterr().out
    assert command_line.main(["c", "--smoke"]) == 0


def test_the_command_explains_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["no-such-claim"]) == 2
    assert "no claim 'no-such-claim'" in capsys.readouterr().err


def test_the_command_lists_claims(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == harness.names()


def test_parts_of_a_claim_are_kept_until_it_has_a_result(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def run(options: Options) -> Claim:
        part = options.parts / "first.onnx"
        if not part.is_file():
            made.append(part)
            part.write_bytes(b"trained")
            part.with_suffix(".seconds").write_text("61.5")
        if len(made) == 1 and made.append(part) is None and not options.smoke:
            raise KeyboardInterrupt
        return Claim(says="it took long", rows=(Row(name="parts", figure=1),))

    add_claim(home, monkeypatch, "long", run=run)
    options = Options(name="long", home=home)
    with pytest.raises(KeyboardInterrupt):
        harness.run(options, command=[])
    assert (home / "parts" / "long" / "first.onnx").is_file()
    claim = harness.run(options, command=[])
    assert claim.conditions["seconds_of_parts"] == 61.5
    assert "s, after parts of 62 s;" in tables.table(claim)
    assert made == [home / "parts" / "long" / "first.onnx"] * 2, "the part was made again"
    assert not (home / "parts" / "long").exists()
    assert Options(name="long", home=home, smoke=True).parts == home / "work" / "long-smoke"

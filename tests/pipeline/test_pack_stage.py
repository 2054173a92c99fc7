"""A recipe whose last stage is `pack`: the packed file is a candidate like any other."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lilliput.budget import Budget
from lilliput.candidate import Candidate
from lilliput.errors import Refused
from lilliput.onnx_io import read_bytes
from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.reports.snippet import loading_code
from lilliput.runs.folder import RunFolder
from lilliput.runs.front import NO_GAIN
from lilliput.runs.result import RunResult
from lilliput.runtimes.opening import open_session, random_feeds
from lilliput.steps.export import Export
from lilliput.steps.pack import Pack
from lilliput.target import Target
from lilliput.testing import tiny_context, tiny_network
from lilliput.verbs.compress import compress

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: classification
preprocessing: {{mean: [0.4], std: [0.2]}}
budget: {{max_drop: 100}}
stages:
  - export: {{}}
  - pack: {{}}
"""


def run(home: Path) -> RunResult:
    recipe = Recipe.parse(RECIPE.format(home=home))
    with RunFolder.create(home / "run", recipe) as folder:
        return execute(recipe, folder)


def test_the_packed_file_takes_the_place_of_the_plain_one(home: Path) -> None:
    result = run(home)
    found = {c.id: c for c in result.candidates}
    plain, packed = found["original-fp32"], found["original-fp32-lil"]
    assert packed.value("bytes") < plain.value("bytes")
    for quantity in ("metric", "drop", "latency", "ratio", "macs", "params"):
        assert packed.value(quantity) == plain.value(quantity), quantity
    assert packed.measurements["latency"].conditions["timed_as"] == "original-fp32.onnx"
    assert NO_GAIN not in packed.labels
    assert [c.id for c in result.front] == ["original-fp32-lil"]
    assert result.best_file == result.path / "best.lil"
    assert packed.the_artifact().metadata == plain.the_artifact().metadata
    assert read_bytes(result.best_file) == plain.the_artifact().path.read_bytes()


def test_where_it_is_needed_only_a_file_that_is_too_large_is_packed(home: Path) -> None:
    plain = run(home).candidates[0].value("bytes")
    for limit, names in ((plain, ["fp32"]), (plain - 1, ["fp32", "fp32-lil"])):
        text = RECIPE.replace("max_drop: 100", f"max_bytes: {limit:.0f}")
        recipe = Recipe.parse(
            text.replace("pack: {{}}", "pack: {{when: needed}}").format(home=home)
        )
        with RunFolder.create(home / f"run{limit:.0f}", recipe) as folder:
            result = execute(recipe, folder)
        assert [c.id for c in result.candidates] == [f"original-{name}" for name in names]
        assert result.best.id == f"original-{names[-1]}"


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "plain"), [(2600, True), (1400, False)])
def test_compress_packs_where_no_plain_file_keeps_the_size(
    home: Path, limit: int, plain: bool
) -> None:
    goals = {"data": f"{home}/photos.py:examples", "weights": home / "net.safetensors"}
    size = {"budget": Budget(max_bytes=limit), "epochs": 0, "time_budget_minutes": 0.1}
    result = compress(f"{home}/net.py:build", **goals, **size, out=home / "run")
    found = {c.id: c.value("bytes") for c in result.candidates}
    assert found["original-prune_weights-int8"] > 10_000
    assert found["original-prune_weights-int8-lil"] < 2600, "single weights went"
    assert result.exit_code == 0
    fitting = {c.the_artifact().format for c in result.candidates if c.value("bytes") <= limit}
    assert fitting == ({"onnx", "lil"} if plain else {"lil"})
    # Which of two tiny networks is faster is for the machine to say: either form may be best.
    assert result.best_file.suffix.removeprefix(".") in fitting
    assert result.best_file.stat().st_size <= limit


def test_the_report_shows_the_bill_and_code_that_runs(home: Path) -> None:
    result = run(home)
    page, text = ((result.path / f"report.{kind}").read_text() for kind in ("html", "md"))
    length = f"{result.best_file.stat().st_size:,}"
    assert f"The bill of its {length} bytes" in page
    assert f"## The bill of its {length} bytes" in text
    assert "; values " in text
    assert "import lilliput.onnx_io" in page
    artifact = result.best.the_artifact()
    code = loading_code(result.best_file, artifact)
    scope: dict[str, np.ndarray] = {}
    exec(compile(code, "snippet", "exec"), scope)
    assert scope["outputs"][0].shape == (1, 4)


def test_the_bill_is_journalled_and_adds_up(home: Path) -> None:
    result = run(home)
    events = [json.loads(line) for line in (result.path / "journal.jsonl").open()]
    (noted,) = (event["facts"] for event in events if event["event"] == "packed")
    packed = next(c for c in result.candidates if c.id.endswith("-lil"))
    assert sum(noted["parts"].values()) == noted["bytes"] == packed.value("bytes")
    assert noted["ratio"] > 1


def test_a_resumed_run_packs_nothing_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(home)
    monkeypatch.setattr(Pack, "apply", lambda *_: pytest.fail("packed again"))
    recipe = Recipe.parse(RECIPE.format(home=home))
    with RunFolder.open(home / "run") as folder:
        again = execute(recipe, folder)
    assert [c.id for c in again.front] == [c.id for c in first.front]


def test_what_is_packed_is_refused(tmp_path: Path) -> None:
    context = tiny_context(tmp_path)
    plain = Export().apply(Candidate(id="net", network=tiny_network()), context)
    packed = Pack().apply(Candidate(id="net-lil", artifact=plain.the_artifact()), context)
    with pytest.raises(Refused, match=r"pack works on ONNX files, and 'net-lil.lil' is \.lil"):
        Pack().requires(packed, context)
    with (
        closing(open_session(plain.the_artifact().path, Target())) as one,
        closing(open_session(packed.the_artifact().path, Target())) as other,
    ):
        feeds = random_feeds(one.inputs)
        assert np.array_equal(one.run(feeds)[0], other.run(feeds)[0])

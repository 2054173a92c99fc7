"""The command line: what it passes on, what it prints, what it leaves as exit code."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import BaseModel, ValidationError

import lilliput
from lilliput.budget import Budget
from lilliput.errors import LilliputError, Missing, VerificationFailed
from lilliput.preprocessing import Preprocessing
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.runs.result import RunResult
from lilliput.target import Target

Finished = Callable[..., RunResult]


Call = Callable[..., tuple[int, str, str]]


def spoken(text: str) -> str:
    """The words of a help page or error without their frames."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("verb", lilliput.VERBS)
def test_every_verb_has_help_with_an_example(lilliput_: Call, verb: str):
    # users-ask 42
    code, out, _ = lilliput_(verb, "--help")
    assert code == 0
    assert f"Example: lilliput {verb}" in spoken(out)


def test_the_first_page_groups_the_verbs(lilliput_: Call):
    code, out, _ = lilliput_("--help")
    assert code == 0
    page = spoken(out)
    assert page.index("Runs") < page.index("compress") < page.index("Networks and files")
    assert all(verb in page for verb in lilliput.VERBS)


@pytest.fixture
def compressed(monkeypatch: pytest.MonkeyPatch, finished: Finished) -> dict[str, Any]:
    """What `compress` was called with; it answers with a finished run."""
    told: dict[str, Any] = {}

    def fake(model: str, **settings: Any) -> RunResult:
        told.update(settings, model=model)
        return finished(**told.get("answer", {}))

    monkeypatch.setattr("lilliput.verbs.compress.compress", fake)
    return told


def test_compress_passes_everything_on(lilliput_: Call, compressed: dict[str, Any]):
    code, _, err = lilliput_(
        *("compress", "mynet.py:build", "--weights", "w.safetensors", "--data", "photos"),
        *("--task", "super_resolution", "--target", "openvino:bf16", "--threads", 2),
        *("--isa", "avx2", "--isa", "fma", "--max-latency", "3ms", "--max-size", "200kB"),
        *("--max-drop", 0.5, "--max-macs", "20M", "--max-params", "300k"),
        *("--input-shape", "1x3x32x32", "--mean", "0.5,0.4,0.3", "--std", "0.2"),
        *("--time-budget", "1h30m", "--epochs", 7, "--seed", 5, "--out", "runs/x", "--quiet"),
        *("--track", "mlflow", "--track", "tensorboard"),
        *("--teacher", "big.py:build", "--teacher-weights", "b.safetensors"),
    )
    assert (code, err) == (0, "")
    compressed.pop("progress")
    assert compressed == {
        "model": "mynet.py:build",
        "weights": Path("w.safetensors"),
        "data": "photos",
        "task": "super_resolution",
        "target": Target(runtime="openvino", precision="bf16", threads=2, isa=("avx2", "fma")),
        "budget": Budget(
            max_latency_ms=3, max_bytes=200_000, max_drop=0.5, max_macs=20e6, max_params=300e3
        ),
        "preprocessing": Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2,)),
        "input_shape": (1, 3, 32, 32),
        "seed": 5,
        "time_budget_minutes": 90.0,
        "epochs": 7,
        "out": Path("runs/x"),
        "track": ["mlflow", "tensorboard"],
        "teacher": "big.py:build",
        "teacher_weights": Path("b.safetensors"),
    }


def test_compress_without_options_decides_by_itself(lilliput_: Call, compressed: dict[str, Any]):
    assert lilliput_("compress", "nets/mynet.py:build")[0] == 0
    assert compressed["preprocessing"] is None
    assert compressed["budget"] == Budget()
    assert re.fullmatch(r"runs/mynet-\d{8}-\d{6}", str(compressed["out"]))


@pytest.mark.parametrize(
    ("options", "channels"),
    [(("--scale", "1"), 3), (("--scale", "1", "--input-shape", "1x1x8x8"), 1)],
)
def test_the_number_of_channels(
    lilliput_: Call, compressed: dict[str, Any], options: tuple[str, ...], channels: int
):
    lilliput_("compress", "a.py:b", *options)
    assert compressed["preprocessing"] == Preprocessing(scale=1.0, channels=channels)


@pytest.mark.parametrize(
    ("text", "size"), [("96x128", (96, 128)), ("96,128", (96, 128)), ("96", (96, 96))]
)
def test_pictures_are_resized_to_what_is_asked(
    lilliput_: Call, compressed: dict[str, Any], text: str, size: tuple[int, int]
):
    lilliput_("compress", "a.py:b", "--size", text)
    assert compressed["preprocessing"] == Preprocessing(size=size)


@pytest.mark.parametrize(
    ("option", "text", "said"),
    [
        ("--max-latency", "3", "'3' is not a latency; write it like 3ms, 800us, 0.5s"),
        ("--max-size", "big", "'big' is not a size; write it like 200kB"),
        ("--time-budget", "30", "'30' is not a time budget; write it like 90s, 30m"),
        ("--input-shape", "3xthree", "'3xthree' is not a shape"),
        ("--max-drop", "-1", "Invalid value for '--max-drop'"),
        ("--size", "3x96x96", "'3x96x96' is not a height and width; write it like 96x96"),
        ("--size", "big", "'big' is not a height and width"),
    ],
)
def test_options_that_cannot_be_read(lilliput_: Call, option: str, text: str, said: str):
    # users-ask 39: seconds or milliseconds is never guessed
    code, _, err = lilliput_("compress", "a.py:b", option, text)
    assert code == 2
    assert said in spoken(err)


def test_the_end_of_a_run_shows_table_file_and_report(
    lilliput_: Call, compressed: dict[str, Any], tmp_path: Path
):
    # users-ask 32: the last lines are the table and the paths
    code, out, _ = lilliput_("compress", "a.py:b")
    assert code == 0
    assert "★ fast.bin" in out
    assert "original.bin" in out
    assert f"recommended: {tmp_path}/run/best.bin" in out
    assert f"load it: session = onnxruntime.InferenceSession('{tmp_path}/run/best.bin')" in out
    assert f"report: {tmp_path}/run/report.html" in out
    assert (tmp_path / "run" / "report.md").is_file()


def test_a_missed_budget_leaves_with_3(lilliput_: Call, compressed: dict[str, Any]):
    # users-ask 14
    compressed["answer"] = {"max_latency_ms": 1.0}
    code, out, _ = lilliput_("compress", "a.py:b")
    assert code == 3
    assert "the budget is missed; closest:" in out
    assert "--max-latency 1.5ms" in out


def test_json_is_all_there_is_on_standard_output(lilliput_: Call, compressed: dict[str, Any]):
    code, out, err = lilliput_("compress", "a.py:b", "--json")
    assert (code, err) == (0, "")
    assert [row["id"] for row in json.loads(out)["files"]] == ["fast", "original"]


def test_a_dry_run_shows_the_plan_and_makes_nothing(
    lilliput_: Call, compressed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    # users-ask 39
    told: dict[str, Any] = {}
    monkeypatch.setattr(
        "lilliput.verbs.compress.recipe_for", lambda model, **goals: told.update(goals) or model
    )
    monkeypatch.setattr("lilliput.verbs.check.check_goals", lambda recipe: f"plan of {recipe}")
    code, out, _ = lilliput_("compress", "a.py:b", "--dry-run", "--epochs", 3)
    assert (code, out) == (0, "plan of a.py:b\n")
    assert told["epochs"] == 3
    assert "model" not in compressed


def recipe_file(folder: Path, text: str = "") -> Path:
    path = folder / "recipe.yaml"
    (folder / "net.onnx").touch()
    path.write_text(text or "model: net.onnx\ndata: digits\ntask: classification\nstages: []\n")
    return path


def test_run_gives_the_recipe_and_a_folder(
    lilliput_: Call, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: dict[str, Any] = {}

    def fake(recipe: Recipe, **settings: Any) -> RunResult:
        told.update(settings, recipe=recipe)
        return finished()

    monkeypatch.setattr("lilliput.verbs.run.run", fake)
    assert lilliput_("run", recipe_file(tmp_path))[0] == 0
    assert told["recipe"].model.file == str(tmp_path / "net.onnx")
    assert str(told["out"]).startswith("runs/net-")


def test_all_mistakes_of_a_recipe_reach_the_user(lilliput_: Call, tmp_path: Path):
    # users-ask 39
    recipe = recipe_file(tmp_path, "model: net.onnx\ndta: digits\nseed: x\nstages: []\n")
    code, out, err = lilliput_("run", recipe)
    assert (code, out) == (2, "")
    assert err.startswith("error: 4 mistakes\n  1. ")
    assert f"{recipe}:2: dta: there is no such key" in err
    assert "Traceback" not in err


def test_ctrl_c_says_where_things_are_and_how_to_go_on(
    lilliput_: Call, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finished()

    def interrupted(run: Path, **_: Any) -> RunResult:
        raise KeyboardInterrupt

    monkeypatch.setattr("lilliput.verbs.resume.resume", interrupted)
    run = tmp_path / "run"
    code, _, err = lilliput_("resume", run)
    assert code == 130
    assert err == f"stopped; what is done is in {run}; go on with: lilliput resume {run}\n"
    assert (run / "report.md").is_file()
    code, _, err = lilliput_("resume", tmp_path / "none")
    assert (code, err) == (130, "stopped\n")


def test_a_run_that_fails_leaves_its_report(
    lilliput_: Call, finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finished()

    def failing(run: Path, **_: Any) -> RunResult:
        raise LilliputError("nothing came out of stage 1")

    monkeypatch.setattr("lilliput.verbs.resume.resume", failing)
    code, _, err = lilliput_("resume", tmp_path / "run")
    assert (code, err) == (2, "error: nothing came out of stage 1\n")
    assert (tmp_path / "run" / "report.md").is_file()


def refused_by_pydantic(model: type[BaseModel], **settings: Any) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(settings)
    return caught.value


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (LilliputError("bad thing", at="x.py:3", hint="mend it"), 2, "x.py:3: bad thing\n  → mend"),
        (VerificationFailed("differs"), 4, "error: differs\n"),
        (Missing("no torch", hint="pip install"), 5, "error: no torch\n  → pip install\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/y"), 1, "device (/x/y)\n"),
        (
            ModuleNotFoundError("none", name="torch.nn"),
            5,
            (
                "error: this command needs torch, which is not installed\n"
                '  → pip install "lilliput[train]"\n'
            ),
        ),
        (refused_by_pydantic(Target, threads=0), 2, "error: threads: 0 must be at least 1\n"),
        (refused_by_pydantic(Preprocessing, std=[0]), 2, "error: std[0]: 0 must be more than 0\n"),
        (ModuleNotFoundError("none", name="odd"), 1, "this is a bug in lilliput"),
        (TypeError("odd"), 1, "error: TypeError: odd at "),
        (TypeError("odd"), 1, "this is a bug in lilliput, not your mistake; LILLIPUT_DEBUG=1"),
    ],
)
def test_errors_are_told_without_a_traceback(
    lilliput_: Call, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, said: str
):
    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("lilliput.verbs.report.report", failing)
    monkeypatch.delenv("LILLIPUT_DEBUG", raising=False)
    left, out, err = lilliput_("report", "x")
    assert (left, out) == (code, "")
    assert said in err
    assert "Traceback" not in err
    monkeypatch.setenv("LILLIPUT_DEBUG", "1")
    left, _, err = lilliput_("report", "x")
    assert left == code
    assert "Traceback" in err


def test_check_prints_the_plan(lilliput_: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lilliput.verbs.check.check", lambda recipe: f"plan of {recipe.name}")
    assert lilliput_("check", recipe_file(tmp_path)) == (0, "plan of recipe.yaml\n", "")


def test_report_and_list(lilliput_: Call, finished: Finished, tmp_path: Path):
    finished("first")
    finished("second", max_latency_ms=1.0)
    with RunFolder.open(tmp_path / "first"):
        code, out, _ = lilliput_("list", tmp_path)
    assert code == 0
    newest, oldest = out.splitlines()
    assert newest.startswith(f"{tmp_path}/second  finished  2 files  2.00×")
    assert newest.endswith("500 B  (budget missed)")
    assert re.match(rf"{tmp_path}/first  running, pid \d+  2 files", oldest)
    assert lilliput_("list", tmp_path / "first")[1].count("\n") == 1
    code, out, _ = lilliput_("list", tmp_path, "--json")
    assert [run["state"] for run in json.loads(out)] == ["finished", "finished"]
    code, out, _ = lilliput_("report", tmp_path / "first")
    assert out.startswith("# first\n")
    code, out, _ = lilliput_("report", tmp_path / "first", "--json")
    assert json.loads(out)["finished"] is True


def test_lists_of_nothing_and_of_damage(lilliput_: Call, finished: Finished, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    assert lilliput_("list", tmp_path / "empty")[1] == f"no runs in {tmp_path}/empty\n"
    code, _, err = lilliput_("list", tmp_path / "none")
    assert code == 2
    assert "lilliput list FOLDER" in err
    path = finished().path / "journal.jsonl"
    path.write_text(path.read_text().replace("measured", "mesaured"))
    assert "damaged: this line was not written by lilliput" in lilliput_("list", tmp_path)[1]


def test_measure_explain_and_inspect_files(
    lilliput_: Call, digits_file: Callable[..., Path], tmp_path: Path
):
    small, large = digits_file("small.onnx"), digits_file("large.onnx", hidden=1500)
    code, out, err = lilliput_("measure", large, small, "--max-time", "300ms", "--quiet")
    assert (code, err) == (0, "")
    assert re.search(r"small.onnx +[\d.]+ ms .* faster", out)
    code, out, _ = lilliput_("measure", small, "--max-time", "300ms", "--json")
    found = json.loads(out)
    assert found["reference"] == str(small)
    assert found["files"][str(small)]["bytes"] == small.stat().st_size
    code, out, _ = lilliput_("explain", large)
    assert code == 0
    assert "large.onnx on onnxruntime, 1 thread" in out
    code, out, _ = lilliput_("inspect", small)
    assert code == 0
    assert "1 layers with weights" in out
    assert "layer0: linear 64 → 10, fp32" in out
    code, out, _ = lilliput_("inspect", small, "--json")
    assert json.loads(out)["artifact"]["bytes"] == small.stat().st_size


def test_evaluate_a_file(lilliput_: Call, digits_file: Callable[..., Path]):
    one, other = digits_file("one.onnx"), digits_file("other.onnx", seed=1)
    options = ("--data", "digits", "--scale", "1/255")
    code, _, err = lilliput_("evaluate", one, "--data", "digits")
    assert code == 2
    assert "one.onnx does not say what it was made for\n  → say it: --task classification" in err
    code, _, err = lilliput_("evaluate", one, "--data", "digits", "--task", "classification")
    assert code == 2
    assert "does not say how pictures become its input\n  → say it: --scale 1/255" in err
    told = (*options, "--task", "classification", "--quiet")
    code, out, err = lilliput_("evaluate", one, *told, "--against", other)
    assert (code, err) == (0, "")
    assert re.search(r"one.onnx: top-1 [\d.]+ % \[.*\] on \d+ test examples of digits", out)
    assert "lost against the other file:" in out
    code, out, _ = lilliput_("evaluate", one, *told, "--json")
    found = json.loads(out)
    assert found["split"] == "test"
    assert 0 < found["metric"]["value"] < 60


def test_evaluate_resizes_photos_of_any_size(
    lilliput_: Call, digits_file: Callable[..., Path], tmp_path: Path
):
    rng = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(12):
            picture = rng.integers(0, 256, (9 + n, 20 - n), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / name / f"{n}.png")
    told = ("evaluate", digits_file(), "--data", tmp_path / "photos", "--task", "classification")
    code, _, err = lilliput_(*told, "--scale", "1/255")
    assert code == 2
    assert "needs pictures of one size, got" in err
    assert "or --size 224x224" in err
    code, out, err = lilliput_(*told, "--size", "8x8", "--quiet")
    assert (code, err) == (0, "")
    assert "test examples of photos" in out


def test_new_and_doctor(lilliput_: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("lilliput.verbs.new.new", lambda folder, progress: f"wrote {folder}")
    assert lilliput_("new", tmp_path) == (0, f"wrote {tmp_path}\n", "")
    code, out, _ = lilliput_("doctor", "--json")
    assert code == 0
    assert json.loads(out)["version"]
    ill = type("Ill", (), {"healthy": False, "__str__": lambda self: "nothing works"})()
    monkeypatch.setattr("lilliput.verbs.doctor.doctor", lambda: ill)
    assert lilliput_("doctor")[:2] == (5, "nothing works\n")


def test_a_reader_that_has_gone_is_no_error(lilliput_: Call, monkeypatch: pytest.MonkeyPatch):
    hushed: list[bool] = []
    monkeypatch.setattr("lilliput.console.hush_broken_pipe", lambda: hushed.append(True))

    def gone(*_: Any) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("lilliput.verbs.report.report", gone)
    code, _, err = lilliput_("report", "x")
    assert (code, err, hushed) == (1, "", [True])

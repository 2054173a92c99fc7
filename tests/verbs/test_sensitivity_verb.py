"""`sensitivity`: one call for files and networks, kept layer by layer, as text, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from typer.testing import CliRunner

import lilliput
from lilliput.artifact import ArtifactMetadata
from lilliput.cli import app
from lilliput.data.dataset import EMPTY, Dataset, Split
from lilliput.encode.outcome import Settings
from lilliput.encode.study import plain_settings
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.meter.sensitivities import CSV_COLUMNS, Sensitivities
from lilliput.meter.trials import Trials
from lilliput.models.store import save_network
from lilliput.onnx_io import read_model, write_model
from lilliput.preprocessing import Preprocessing
from lilliput.runs.folder import RunFolder
from lilliput.testing.tiny import tiny_data, tiny_network
from lilliput.verbs import sensitivity as module

MODEL = "lilliput.testing.tiny:TinyResidual"
HERE = "sensitivity_examples"
EFFORT = {"images": 32, "validation_images": 24}

Ask = Callable[..., Sensitivities]


def labelled() -> Dataset:
    return tiny_data()


def unlabelled() -> Dataset:
    data = tiny_data()
    return replace(data, validation=Split(data.validation.inputs))


def without_validation() -> Dataset:
    data = tiny_data()
    return replace(data, validation=EMPTY, test=EMPTY, train=EMPTY)


def quickly(settings: Settings) -> Settings:
    return replace(settings, ranges="minmax")


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """The data sets of this file can be imported, and no search for ranges takes time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, HERE, sys.modules[__name__])
        patch.setattr(module, "plain_settings", lambda **told: quickly(plain_settings(**told)))
        yield


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Calls the verb on the data sets of this file; what one test asked, others are told."""
    cache = tmp_path_factory.mktemp("cache")

    def call(model: Path | str, data: str = "labelled", **more: Any) -> Sensitivities:
        given = {"cache_dir": cache, **EFFORT, **more}
        return lilliput.sensitivity(model, data=f"{HERE}:{data}", **given)

    return call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's weights, and the same network as a file."""
    place = tmp_path_factory.mktemp("net")
    network = tiny_network()
    save_network(network, place / "net.safetensors")
    metadata = ArtifactMetadata(
        preprocessing=network.preprocessing, task={"name": "classification"}
    )
    export_network(network, place / "net.onnx", metadata=metadata)
    return place


@pytest.fixture
def known(folder: Path, ask: Ask) -> Sensitivities:
    """What is found of the network."""
    return ask(MODEL, weights=folder / "net.safetensors")


def test_a_network_tells_of_its_layers_the_curve_and_its_cuts(known: Sensitivities) -> None:
    # users-ask 16
    layers = {layer.path for layer in known.layers}
    assert layers == {"stem", "classify"} | {f"block{b}.conv{c}" for b in (1, 2) for c in (1, 2)}
    assert [point.count for point in known.curve] == [0, 1, 2, 3, 5, 6]
    assert known.curve[-1].error == 0.0
    assert known.curve[-1].drop == 0.0
    assert {cut.ratio for cut in known.cuts} == {0.25, 0.5}
    assert (known.calibrated, known.scored, known.truth) == (32, 24, "the truth")
    text = str(known)
    assert "one group at a time" in text
    assert "lost, %" in text
    told = "lost: top-1 on 24 validation examples in onnxruntime, 1 thread, held against the truth"
    assert told in text


def test_the_csv_gives_every_figure_back(known: Sensitivities) -> None:
    rows = list(csv.DictReader(io.StringIO(known.as_csv())))
    assert tuple(rows[0]) == CSV_COLUMNS
    kinds = {kind: [r for r in rows if r["kind"] == kind] for kind in ("int8", "put back", "cut")}
    for layer, row in zip(known.layers, kinds["int8"], strict=True):
        assert (row["place"], int(row["params"])) == (layer.path, layer.params)
        for name in ("error", "drop", "weight_sqnr_db", "input_sqnr_db"):
            assert float(row[name]) == getattr(layer, name)
    for point, row in zip(known.curve, kinds["put back"], strict=True):
        assert (row["place"], int(row["level"])) == (point.path, point.count)
        assert (float(row["error"]), float(row["drop"])) == (point.error, point.drop)
    for cut, row in zip(known.cuts, kinds["cut"], strict=True):
        assert (row["place"], float(row["level"])) == (cut.group, cut.ratio)
        for name in ("error", "drop", "saved_macs", "saved_params"):
            assert float(row[name]) == getattr(cut, name)


def test_json_has_no_infinite_number(known: Sensitivities) -> None:
    exact = known.layers[0].model_copy(update={"input_sqnr_db": math.inf})
    changed = known.model_copy(update={"layers": (exact, *known.layers[1:])})
    told = json.loads(json.dumps(changed.as_json(), allow_nan=False))
    assert told["layers"][0]["input_sqnr_db"] is None
    assert told["layers"][0]["error"] == exact.error
    assert "exact" in str(changed)
    # The journal keeps it as it is.
    assert Sensitivities.model_validate(changed.model_dump(mode="json")) == changed


def test_an_interrupted_call_goes_on_and_ends_as_an_undisturbed_one(
    folder: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # users-ask 16, 30
    whole = ask(folder / "net.onnx")
    asked: list[str] = []
    drop = Trials.drop

    def counted(self: Trials, model: onnx.ModelProto) -> float:
        if len(asked) == stop:
            raise KeyboardInterrupt
        asked.append("")
        return drop(self, model)

    monkeypatch.setattr(Trials, "drop", counted)
    stop = 4
    with pytest.raises(KeyboardInterrupt):
        ask(folder / "net.onnx", cache_dir=tmp_path)
    stop = 10**6
    asked.clear()
    assert ask(folder / "net.onnx", cache_dir=tmp_path) == whole
    assert len(asked) == 2 + 6  # two layers were left, and the six points of the curve
    asked.clear()
    monkeypatch.setattr(module, "study_layers", None)
    assert ask(folder / "net.onnx", cache_dir=tmp_path) == whole
    assert not asked


def test_other_settings_are_another_question(folder: Path, ask: Ask, tmp_path: Path) -> None:
    first = ask(folder / "net.onnx")
    second = ask(folder / "net.onnx", seed=1, cache_dir=tmp_path)
    assert first.curve != second.curve
    other = Preprocessing(mean=(0.1,), std=(0.9,))
    third = ask(folder / "net.onnx", preprocessing=other, cache_dir=tmp_path)
    assert len({study.curve[0].error for study in (first, second, third)}) == 3
    assert len(list((tmp_path / "sensitivity").iterdir())) == 2


def test_a_packed_file_is_the_same_question_and_files_are_not_cut(
    folder: Path, ask: Ask, tmp_path: Path
) -> None:
    plain = ask(folder / "net.onnx", cache_dir=tmp_path)
    packed = lilliput.pack(folder / "net.onnx", out=tmp_path / "net.lil").path
    found = ask(packed, cache_dir=tmp_path)
    assert found == plain.model_copy(update={"model": str(packed)})
    assert len(list((tmp_path / "sensitivity").iterdir())) == 1
    assert not plain.cuts
    assert (
        "no ranking of cuts: a file's channels are not cut; give the network's code and weights "
        "for that"
    ) in str(plain)


def test_without_labels_the_answers_of_the_float_file_stand_in(folder: Path, ask: Ask) -> None:
    found = ask(folder / "net.onnx", "unlabelled")
    assert found.truth == "the float file's own answers"
    assert found.curve[-1].drop == 0.0
    assert min(layer.drop for layer in found.layers if layer.drop is not None) >= 0.0


def test_without_validation_examples_there_are_errors_alone(folder: Path, ask: Ask) -> None:
    found = ask(MODEL, "without_validation", weights=folder / "net.safetensors", ratios=(0.5,))
    assert found.scored == 0
    assert {x.drop for x in (*found.layers, *found.curve, *found.cuts)} == {None}
    assert "lost, %" not in str(found)
    assert "has no validation examples: no loss of top-1" in str(found)


def test_no_share_or_no_whole_channel_is_said(folder: Path, ask: Ask) -> None:
    weights = folder / "net.safetensors"
    none = ask(MODEL, weights=weights, ratios=())
    assert (none.cuts, none.no_cuts) == ((), "none was asked for")
    few = ask(MODEL, weights=weights, ratios=(0.05,))
    assert (few.cuts, few.no_cuts) == ((), "no share comes to a whole channel")
    with pytest.raises(LilliputError, match=r"1\.5 is no share of channels to cut\n  → between 0"):
        ask(MODEL, weights=weights, ratios=(1.5,))


def test_what_cannot_be_looked_into_is_refused(folder: Path, ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"net\.onnx' holds its weights; leave `weights` out"):
        ask(folder / "net.onnx", weights=folder / "net.safetensors")
    with pytest.raises(LilliputError, match=r"no file at 'gone\.onnx'"):
        ask("gone.onnx")
    with pytest.raises(LilliputError, match="no run at"):
        ask(folder / "net.onnx", run=tmp_path / "gone")
    model = read_model(folder / "net.onnx")
    del model.metadata_props[:]
    bare = write_model(model, tmp_path / "bare.onnx")
    with pytest.raises(Refused, match=r"bare\.onnx does not say what it was made for"):
        ask(bare)
    with pytest.raises(Refused, match=r"bare\.onnx does not say how pictures become its input"):
        ask(bare, task="classification")
    found = ask(bare, task="classification", preprocessing=tiny_network().preprocessing)
    assert found.curve == ask(folder / "net.onnx").curve
    model.graph.node.add(op_type="DequantizeLinear")
    with pytest.raises(Refused, match="is quantized already\n  → give the float file"):
        ask(write_model(model, tmp_path / "int8.onnx"))


def test_a_run_shows_it_in_its_report(folder: Path, ask: Ask, tmp_path: Path) -> None:
    class Text(str):
        def placed(self, home: Path) -> Text:
            return self

        def dump(self) -> str:
            return str(self)

    with RunFolder.create(tmp_path / "run", Text("budget: {}\n")):
        pass
    found = ask(folder / "net.onnx", run=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"Which layer of {found.model} suffers" in page
    assert "block1.conv2" in page


def test_the_command_prints_and_writes_all_of_it(
    folder: Path, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))
    shutil.copy(folder / "net.onnx", tmp_path / "net.onnx")
    monkeypatch.chdir(tmp_path)
    command = ["sensitivity", "net.onnx", "--data", f"{HERE}:labelled"]
    command += ["--images", "32", "--validation-images", "24", "--csv", "out.csv"]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    expected = ask("net.onnx")
    assert json.loads(done.stdout) == json.loads(json.dumps(expected.as_json()))
    assert (tmp_path / "out.csv").read_text() == expected.as_csv()
    done = CliRunner().invoke(app, [*command, "--scale", "1/255", "-q"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("net.onnx: 6 layers in int8 one at a time (")


def test_ctrl_c_says_how_to_go_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "sensitivity", stopped)
    done = CliRunner().invoke(app, ["sensitivity", str(folder / "net.onnx"), "--data", "digits"])
    assert done.exit_code == 130
    assert "stopped; the same command goes on where it was" in done.output

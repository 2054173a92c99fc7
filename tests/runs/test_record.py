"""Candidates in the journal: there and back, with their files checked."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.runs.history import History, stage_key
from lilliput.runs.journal import Entry
from lilliput.runs.record import candidate_from_json, candidate_to_json, record_from_json, sha256_of


def file_candidate(folder: Path, name: str = "a") -> Candidate:
    path = folder / f"{name}.onnx.bin"
    path.write_bytes(name.encode())
    return Candidate(
        id=name,
        artifact=Artifact.of(path),
        parent="original",
        stage="quantize",
        settings={"bits": 8},
        history=({"prune": {"ratio": 0.5}}, {"quantize": {"bits": 8}}),
        measurements={
            "latency": Measurement(quantity="latency", value=1.5, unit="ms", interval=(1.4, 1.6))
        },
        labels=("fast",),
    )


def refuse(path: Path) -> Any:
    raise AssertionError(f"{path} should not be opened")


def test_a_file_goes_there_and_back_and_the_run_can_be_moved(tmp_path: Path):
    root = tmp_path / "run"
    root.mkdir()
    candidate = file_candidate(root)
    stored = candidate_to_json(candidate, candidate.the_artifact().path, root)
    assert stored["artifact"]["path"] == "a.onnx.bin"
    assert candidate_from_json(stored, root, refuse) == candidate
    moved = shutil.move(root, tmp_path / "elsewhere")
    assert candidate_from_json(stored, moved, refuse).the_artifact().path == moved / "a.onnx.bin"


def test_a_file_outside_the_run_keeps_its_path(tmp_path: Path):
    candidate = file_candidate(tmp_path)
    stored = candidate_to_json(candidate, candidate.the_artifact().path, tmp_path / "run")
    assert stored["artifact"]["path"] == str(tmp_path / "a.onnx.bin")
    assert candidate_from_json(stored, tmp_path / "run", refuse) == candidate


def test_changed_and_lost_files_are_refused(tmp_path: Path):
    candidate = file_candidate(tmp_path)
    path = candidate.the_artifact().path
    stored = candidate_to_json(candidate, path, tmp_path)
    path.write_bytes(b"other")
    with pytest.raises(LilliputError, match="this file was changed since it was made"):
        candidate_from_json(stored, tmp_path, refuse)
    path.unlink()
    with pytest.raises(LilliputError, match="a file of this run is gone"):
        candidate_from_json(stored, tmp_path, refuse)


def test_a_network_is_loaded_from_what_was_saved(tmp_path: Path):
    network: Any = SimpleNamespace(name="net")
    saved = tmp_path / "net"
    saved.mkdir()
    (saved / "weights").write_bytes(b"w")
    (saved / "edits").write_bytes(b"e")
    stored = candidate_to_json(Candidate(id="n", network=network), saved, tmp_path)
    opened: list[Path] = []

    def load(path: Path) -> Any:
        opened.append(path)
        return network

    assert candidate_from_json(stored, tmp_path, load).network is network
    assert opened == [saved]
    (saved / "edits").write_bytes(b"E")
    with pytest.raises(LilliputError, match="was changed"):
        candidate_from_json(stored, tmp_path, load)


def test_the_hash_of_a_folder_knows_names_and_contents(tmp_path: Path):
    hashes = set()
    for name, content in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        folder = tmp_path / "f"
        folder.mkdir()
        (folder / name).write_bytes(content)
        hashes.add(sha256_of(folder))
        shutil.rmtree(folder)
    assert len(hashes) == 3


def test_a_record_of_another_version_is_said(tmp_path: Path):
    candidate = file_candidate(tmp_path)
    stored = candidate_to_json(candidate, candidate.the_artifact().path, tmp_path)
    with pytest.raises(LilliputError, match="record of candidate 'a' cannot be read: 1 of its"):
        record_from_json({**stored, "colour": "red"})
    record = record_from_json(stored)
    assert record.kind == "artifact"
    assert record.value("latency") == 1.5
    assert record.value("drop") != record.value("drop")


def entries(*told: tuple[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(n, f"t{n}", event, facts) for n, (event, facts) in enumerate(told, 1)]


def test_a_history_adds_up(tmp_path: Path):
    a, b = file_candidate(tmp_path, "a"), file_candidate(tmp_path, "b")
    stored = {c.id: candidate_to_json(c, c.the_artifact().path, tmp_path) for c in (a, b)}
    faster = {**stored["a"], "labels": ["faster"]}
    failed = {"stage": "prune", "number": 1, "candidate": "a", "error": "too thin", "kind": "X"}
    history = History.of(
        entries(
            ("session", {"cpu": "one"}),
            ("data", {"name": "digits", "seed": 3}),
            (
                "once",
                {"key": stage_key(1, "export", "original"), "result": {"candidate": stored["a"]}},
            ),
            ("stage", {"candidates": ["a"], "number": 1}),
            ("failed", {**failed, "more": "facts"}),
            ("failed", {**failed, "candidate": "b"}),
            ("once", {"key": stage_key(1, "prune", "b"), "result": {"x": 1}}),
            ("once", {"key": "odd", "result": None}),
            ("measured", {"candidates": [faster, stored["b"], {"id": "no record"}]}),
            ("finished", {"best": "a", "missed": []}),
        )
    )
    assert list(history.records) == ["a", "b"]
    assert history.records["a"].labels == ("faster",)
    assert [(f.candidate, f.error) for f in history.failures] == [("a", "too thin")]
    assert history.sessions == ({"cpu": "one"},)
    assert history.data == {"name": "digits", "seed": 3}
    assert history.finished == {"best": "a", "missed": []}
    assert (history.began, history.ended) == ("t1", "t10")
    assert [f.id for f in history.files] == ["a", "b"]
    assert History.of([]).began == ""

"""What doctor says is true of this machine, and each lack comes with its command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lilliput.runtimes.opening import installed_version
from lilliput.verbs import doctor as doctor_module
from lilliput.verbs.doctor import Diagnosis, Part, doctor


def test_it_tells_what_is_there() -> None:
    found = doctor()
    assert found.healthy
    versions = {part.name: part.version for part in found.packages}
    assert versions["onnxruntime"] == installed_version("onnxruntime")
    assert {part.name for part in found.runtimes} >= {"onnxruntime", "torch", "openvino"}
    text = str(found)
    assert found.machine["cpu"] in text
    assert "instruction set" in text
    assert f"{'onnxruntime':<17} {'works':<13}" in text
    assert Diagnosis.model_validate(json.loads(found.model_dump_json())) == found


def test_what_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """users-ask 36: doctor prints what works."""
    monkeypatch.setattr(
        doctor_module, "installed_version", lambda name: None if name == "torch" else "1.0"
    )
    found = doctor()
    torch = next(part for part in found.packages if part.name == "torch")
    assert torch.missing == 'pip install "lilliput[train]"'
    assert '→ pip install "lilliput[train]"' in str(found)
    assert not found.workshop


def test_an_optional_runtime_is_no_part_of_the_workshop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        doctor_module, "installed_version", lambda name: None if name == "openvino" else "1.0"
    )
    assert doctor().workshop


def test_without_a_runtime_nothing_can_be_measured() -> None:
    found = doctor()
    broken = [Part(name="onnxruntime", purpose="", missing="pip install lilliput")]
    null = Part(name="null", purpose="")
    assert not found.model_copy(update={"runtimes": (*broken, null)}).healthy


def test_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LILLIPUT_DATA", str(tmp_path))
    data, cache = doctor().folders
    assert (data.path, data.found) == (tmp_path, True)
    assert cache.path.name == "lilliput"
    monkeypatch.setenv("LILLIPUT_DATA", str(tmp_path / "none"))
    lacking = doctor()
    assert not lacking.folders[0].found
    assert "→ export LILLIPUT_DATA=FOLDER" in str(lacking)
    monkeypatch.delenv("LILLIPUT_DATA")
    assert doctor().folders[0].path == Path("..") / "shared" / "data"


def test_warnings_about_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = doctor().machine | {"saturates": True, "governor": "powersave", "usable_cores": 2}
    monkeypatch.setattr(doctor_module, "fingerprint", lambda: machine)
    monkeypatch.setattr(doctor_module, "load_average", lambda: (1.7, 1.0, 1.0))
    text = str(doctor())
    assert "int8 files for it get 7-bit weights" in text
    assert "governor 'powersave'" in text
    assert "load 1.7" in text
    quiet = machine | {"saturates": False, "governor": None}
    monkeypatch.setattr(doctor_module, "fingerprint", lambda: quiet)
    monkeypatch.setattr(doctor_module, "load_average", lambda: None)
    assert doctor().warnings == ()

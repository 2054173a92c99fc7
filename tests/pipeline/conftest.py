"""A user's folder: a model file, its weights, and data that a function yields."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from lilliput import opening, pipeline
from lilliput.testing import tiny_network

MODEL = """
from lilliput.testing import tiny_network


def build():
    return tiny_network(seed=7).module
"""

DATA = """
from lilliput.testing import tiny_data


def examples():
    return tiny_data()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """`net.py:build`, `net.safetensors` (other weights than the class makes), `photos.py`."""
    (tmp_path / "net.py").write_text(MODEL)
    (tmp_path / "photos.py").write_text(DATA)
    save_file(tiny_network(seed=0).module.state_dict(), tmp_path / "net.safetensors")
    return tmp_path


@pytest.fixture(autouse=True)
def short_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instant each: what is tested here is that figures are taken, not how exactly."""
    monkeypatch.setattr(opening, "timing_seconds", lambda _: 0.3)
    monkeypatch.setattr(pipeline, "LAST_SECONDS", 0.3)

"""Fixtures that every folder of tests shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Examples are the same in every run, and none is failed for being slow on a busy machine.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and pretrained networks, or a skip that says what is missing."""
    named = os.environ.get("LILLIPUT_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data at {folder}; set LILLIPUT_DATA to run this test")
    return folder

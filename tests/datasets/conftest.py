"""Tiny data of every kind, and a cache that no test shares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def paint() -> Callable[..., Path]:
    """Writes a picture of its own noise and gives its path."""
    rng = np.random.default_rng(0)

    def write(path: Path, *, mode: str = "RGB", size: tuple[int, int] = (6, 5)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        bands = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
        Image.fromarray(rng.integers(0, 256, (*size, *bands), np.uint8)).save(path)
        return path

    return write

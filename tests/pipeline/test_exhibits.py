"""What a finished run leaves for its reader, and that it never costs the run anything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from lilliput import exhibits, pipeline
from lilliput.errors import Refused
from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.reports.summary import Summary
from lilliput.runs.folder import RunFolder
from lilliput.testing import tiny_network

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/photos.py:examples"
task: {task}
stages:
  - export: {{}}
"""

UPSCALER = """
from lilliput.testing import tiny_data, tiny_network


def build():
    return tiny_network("super_resolution", seed=7).module


def examples():
    return tiny_data("super_resolution")
"""


def finished(home: Path, task: str = "classification") -> Summary:
    with RunFolder.create(home / "run", Recipe.parse(RECIPE.format(home=home, task=task))) as run:
        execute(Recipe.read(run.recipe), run)
    return Summary.of(RunFolder.look(home / "run"))


def test_a_classifier_leaves_parts_and_answers(home: Path) -> None:
    summary = finished(home)
    parts = summary.anatomy
    assert parts is not None
    assert parts.graph_bytes + sum(t.bytes for t in parts.tensors) == parts.bytes
    assert parts.bytes == summary.best.artifact.bytes  # type: ignore[union-attr]
    samples = summary.samples
    assert samples["split"] == "test"
    assert samples["differing"] == 0  # one file against itself
    assert 0 < len(samples["examples"]) <= exhibits.SHOWN
    for example in samples["examples"]:
        assert example["original"] == example["recommended"]
        assert set(example) == {"input", "original", "recommended", "truth"}
        with Image.open(summary.path / example["input"]["picture"]) as picture:
            assert picture.format == "PNG"
    assert (summary.path / "report.html").read_text().count("data:image/png") == len(
        samples["examples"]
    )


def test_an_upscaler_leaves_pictures_side_by_side(home: Path) -> None:
    (home / "net.py").write_text(UPSCALER)
    (home / "photos.py").write_text(UPSCALER)
    save_file(tiny_network("super_resolution").module.state_dict(), home / "net.safetensors")
    summary = finished(home, "{name: super_resolution, scale: 2}")
    assert 0 < len(summary.samples["examples"]) <= exhibits.SHOWN_PICTURES
    for example in summary.samples["examples"]:
        sizes = {}
        for role, shown in example.items():
            with Image.open(summary.path / shown["picture"]) as picture:
                sizes[role] = picture.size
        assert sizes["truth"] == sizes["original"] == sizes["recommended"]
        assert sizes["truth"] == tuple(2 * side for side in sizes["input"])
        assert max(sizes["truth"]) <= exhibits.MOST_PIXELS


def test_what_cannot_be_had_costs_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise Refused("no such operator")

    said: list[str] = []
    monkeypatch.setattr(exhibits, "anatomy", refuses)
    monkeypatch.setattr(
        "lilliput.context.SilentProgress.say", lambda _, line: said.append(line), raising=True
    )
    summary = finished(home)
    assert summary.history.finished is not None
    assert summary.anatomy is None
    assert [line for line in said if "without the anatomy of original-fp32: no such" in line]


def test_differing_examples_come_first_and_all_are_shown_once() -> None:
    chosen = exhibits._chosen([200, 201, 202], 256)
    assert chosen[:3] == [200, 201, 202]
    assert len(set(chosen)) == len(chosen) == exhibits.SHOWN
    assert exhibits._chosen([], 2) == [0, 1]


def test_the_middle_of_a_large_picture_is_kept() -> None:
    picture = np.arange(100, dtype=np.uint8).reshape(10, 10, 1)
    assert exhibits._middle(picture, 4)[0, 0, 0] == 33
    assert exhibits._middle(picture, 40).shape == (10, 10, 1)


def test_a_resumed_run_has_the_same_exhibits(home: Path) -> None:
    first = finished(home)
    with RunFolder.open(home / "run") as run:
        pipeline.execute(Recipe.read(run.recipe), run)
    again = Summary.of(RunFolder.look(home / "run"))
    assert (again.samples, again.anatomy) == (first.samples, first.anatomy)

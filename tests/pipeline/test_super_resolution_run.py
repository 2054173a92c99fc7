"""The same pipeline on pictures: no step assumes classification (users-ask 40)."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from lilliput.pipeline import execute
from lilliput.recipe import Recipe
from lilliput.runs.folder import RunFolder
from lilliput.testing import tiny_network
from lilliput.verbs.evaluate import evaluate

FILES = {
    "net.py": """
from lilliput.testing import tiny_network


def build():
    return tiny_network("super_resolution", seed=7).module
""",
    "pictures.py": """
from dataclasses import replace
from lilliput.testing import tiny_data


def examples():
    return tiny_data("super_resolution")
""",
}

RECIPE = """
model: {{factory: "{home}/net.py:build", weights: "{home}/net.safetensors"}}
data: "{home}/pictures.py:examples"
task: {{name: super_resolution, scale: 2, patch: 8, patches_per_image: 4}}
stages:
  - prune_channels: {{ratio: 0.3, multiple_of: 1}}
  - distill: {{epochs: 1, batch_size: 8, optimizer: adam, learning_rate: 0.001}}
  - export: {{}}
  - quantize: {{calibration_images: 2}}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    state = tiny_network("super_resolution").module.state_dict()
    save_file(state, tmp_path / "net.safetensors")
    return tmp_path


def test_an_upscaler_is_cut_distilled_and_quantized_in_decibels(home: Path) -> None:
    recipe = Recipe.parse(RECIPE.format(home=home))
    with RunFolder.create(home / "run", recipe) as folder:
        result = execute(recipe, folder)
    assert len(result.candidates) == 3
    for candidate in result.candidates:
        assert candidate.measurements["metric"].unit == "dB"
    # Only the front and the original look at test, and the stopwatch decides what is on the front.
    tested = [c for c in result.candidates if "test_metric" in c.measurements]
    assert {"original-fp32", *(c.id for c in result.front)} <= {c.id for c in tested}
    assert all(c.measurements["test_metric"].value > 0 for c in tested)
    cut = next(c for c in result.candidates if c.id.endswith("distill-fp32"))
    whole = next(c for c in result.candidates if c.id == "original-fp32")
    assert cut.value("params") < whole.value("params")
    report = (home / "run" / "report.md").read_text()
    assert "SSIM on luminance" in report
    assert "SSIM on luminance" in (home / "run" / "report.html").read_text()
    told = evaluate(cut.the_artifact().path, data=f"{home}/pictures.py:examples")
    assert "SSIM on luminance: 0." in str(told)
    (ssim,) = told.also
    assert told.as_json()["also"][0]["value"] == ssim.value
    shapes = {len(spec.shape) for spec in cut.the_artifact().metadata.inputs}
    assert shapes == {4}

"""What is wrong at the end of a recipe is said before its beginning is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from lilliput.errors import LilliputError, Mistakes
from lilliput.recipe import Recipe
from lilliput.verbs.check import check
from lilliput.verbs.run import run

TRAINED = "  - finetune: {epochs: 1}\n"

UNVALIDATED = """
import numpy as np
from lilliput.data.dataset import Dataset, Split

def pictures():
    inputs = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 3), np.uint8)
    return Dataset("pictures", test=Split(inputs, np.arange(64) % 4))
"""


def recipe(home: Path, stages: str, data: str = "photos.py:examples") -> Recipe:
    model = f"model: {{factory: {home}/net.py:build, weights: {home}/net.safetensors}}\n"
    return Recipe.parse(f"{model}data: {home}/{data}\ntask: classification\nstages:\n{stages}")


@pytest.mark.parametrize("settings", ["", ", when: possible"])
def test_a_pattern_that_will_match_no_layer_of_the_file(home: Path, settings: str) -> None:
    stages = f"{TRAINED}  - export\n  - quantize: {{exclude: ['nothere*']{settings}}}\n"
    with pytest.raises(LilliputError, match="'nothere\\*' matches no layer") as told:
        check(recipe(home, stages))
    assert told.value.at == "stages[2].quantize"
    with pytest.raises(LilliputError, match="matches no layer"):
        run(recipe(home, stages), out=home / "out")
    assert not (home / "out").exists()
    check(recipe(home, stages.replace("nothere", "stem")))


def test_a_recipe_that_delivers_nothing(home: Path) -> None:
    with pytest.raises(LilliputError, match="only files are measured and delivered") as told:
        check(recipe(home, TRAINED))
    assert "put `- export` behind it" in str(told.value)


def test_a_runtime_that_opens_no_file_of_a_run(home: Path) -> None:
    with pytest.raises(
        LilliputError, match=r"measures \.onnx files, and torch opens \.pt2"
    ) as told:
        check(recipe(home, "  - export\ntarget: torch\n"))
    assert told.value.at == "target.runtime"
    assert "onnxruntime" in str(told.value)


def test_data_that_nothing_can_be_judged_by(home: Path) -> None:
    (home / "data.py").write_text(UNVALIDATED)
    stages = "  - export\n  - quantize: {exclude: ['nothere*']}\n"
    with pytest.raises(Mistakes) as told:
        check(recipe(home, stages, "data.py:pictures"))
    assert "has no validation examples" in str(told.value)
    assert "matches no layer" in str(told.value)


def test_a_forward_that_decides_by_values_is_told_with_its_place(home: Path) -> None:
    stages = "  - export\n"
    said = "gives the values of a tensor to Python at net.py:4"
    assert said not in " ".join(check(recipe(home, stages)).warnings)
    (home / "net.py").write_text(
        "import lilliput.testing\n"
        "class Net(type(lilliput.testing.tiny_network().module)):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x if x.mean() > 5 else x + 1)\n"
        "build = Net\n"
    )
    assert said in " ".join(check(recipe(home, stages)).warnings)

"""`workers` of a recipe, and of the command that runs it."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lilliput import pipeline
from lilliput.errors import LilliputError
from lilliput.recipe import Recipe
from lilliput.verbs.run import run

PLAIN = {"model": {"file": "net.onnx"}, "data": "digits", "task": "classification", "stages": []}


def test_one_process_unless_the_recipe_says_otherwise():
    assert Recipe.model_validate(PLAIN).workers == "1"
    for known in ("8", "ray", "ray://head:10001"):
        assert Recipe.model_validate({**PLAIN, "workers": known}).workers == known


def test_workers_that_are_none_are_a_mistake_of_the_recipe():
    with pytest.raises((ValidationError, LilliputError), match="workers"):
        Recipe.model_validate({**PLAIN, "workers": "many"})


def test_those_of_the_command_replace_those_of_the_recipe(tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr("lilliput.verbs.run.checked", lambda _recipe: (None, None, ()))
    monkeypatch.setattr(
        pipeline, "execute", lambda recipe, *_rest, **_opened: ran.append(recipe.workers)
    )
    recipe = Recipe.model_validate({**PLAIN, "workers": "3"})
    run(recipe, out=tmp_path / "as-written")
    run(recipe, out=tmp_path / "as-told", workers="2")
    assert ran == ["3", "2"]

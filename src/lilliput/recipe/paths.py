"""Paths in a recipe: relative ones begin at the recipe's folder; files must be there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lilliput.errors import LilliputError, nearest
from lilliput.recipe.mistakes import Mistake

MODELS = ("model", "teacher")
"""Sections that name a network."""

_DATA_FIELDS = ("source", "validation", "calibration", "test")


def with_short_forms(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe with `model: net.py:build` and `data: digits` written out as sections."""
    full = dict(plain)
    for section in MODELS:
        model = full.get(section)
        if isinstance(model, str):
            full[section] = model_section(model)
    if isinstance(full.get("data"), str):
        full["data"] = {"source": full["data"]}
    return full


def model_section(model: str) -> dict[str, Any]:
    """The section of what the user calls a model: a `.onnx` or `.pt2` file, or a factory."""
    is_file = Path(model).suffix.lower() in (".onnx", ".pt2")
    return {"file" if is_file else "factory": model}


def placed(plain: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """The recipe with its relative paths joined to `home`.

    A data source is a path if something of that name is there, unless a named set is called so,
    which `load_data` prefers too. The part of a reference before its colon is a path if it ends
    in .py.
    """
    full = with_short_forms(plain)
    changes = {**dict.fromkeys(MODELS, _model_placed), "data": _data_placed}
    for section, change in changes.items():
        if isinstance(full.get(section), Mapping):
            full[section] = change(full[section], home)
    return full


def _model_placed(section: Mapping[str, Any], home: Path) -> dict[str, Any]:
    full = dict(section)
    for name in ("file", "weights"):
        if isinstance(full.get(name), str):
            full[name] = str(home / full[name])
    if isinstance(full.get("factory"), str):
        full["factory"] = _reference_placed(full["factory"], home)
    return full


def _data_placed(section: Mapping[str, Any], home: Path) -> dict[str, Any]:
    from lilliput.data.sources.named import NAMED

    full = dict(section)
    for name in _DATA_FIELDS:
        if isinstance(full.get(name), str) and full[name] not in NAMED:
            there = home / full[name]
            reference = _reference_placed(full[name], home)
            full[name] = str(there) if there.exists() else reference
    return full


def _reference_placed(reference: str, home: Path) -> str:
    file, colon, function = reference.rpartition(":")
    return f"{home / file}{colon}{function}" if file.endswith(".py") else reference


def missing_data(plain: Mapping[str, Any]) -> list[Mistake]:
    """Data sources of names that mean nothing here."""
    from lilliput.data.sources.loading import why_no_source

    section = plain.get("data")
    named = section if isinstance(section, Mapping) else {}
    given = ((name, named.get(name)) for name in _DATA_FIELDS)
    found = ((name, why_no_source(value)) for name, value in given if isinstance(value, str))
    return [(("data", name), error) for name, error in found if error is not None]


def missing_files(plain: Mapping[str, Any]) -> list[Mistake]:
    """Files of models that are not there, each with the nearest name beside it."""
    mistakes: list[Mistake] = []
    for section in MODELS:
        named = plain.get(section)
        for name in ("factory", "file", "weights"):
            value = named.get(name) if isinstance(named, Mapping) else None
            if not isinstance(value, str):
                continue
            path = Path(value.rpartition(":")[0] if name == "factory" else value)
            if (name != "factory" or path.suffix == ".py") and not path.is_file():
                mistakes.append(((section, name), _not_there(path)))
    return mistakes


def _not_there(path: Path) -> LilliputError:
    if not path.parent.is_dir():
        return LilliputError(f"no file at {str(path)!r}", hint=f"there is no folder {path.parent}")
    beside = [p.name for p in path.parent.iterdir() if p.suffix == path.suffix]
    hint = nearest(path.name, beside) if beside else f"{path.parent} has no {path.suffix} file"
    return LilliputError(f"no file at {str(path)!r}", hint=hint)

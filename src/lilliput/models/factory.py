"""From `file.py:function` or `package.module:function` to the module that it builds."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from lilliput.errors import LilliputError, Refused, nearest
from lilliput.user_code import leaving_no_bytecode

MADE_UP = "lilliput_user_"
"""How the names of modules begin that are files given as `file.py:function`."""

FORMS = "mynet.py:build, or package.module:build, where `build()` returns an nn.Module"


def build_module(spec: str) -> nn.Module:
    """The `nn.Module` that `spec` names: a function that makes one, its class, or the thing itself.

    A file is run under a module name of its own and may import its neighbours; the search path
    and the random state are as before when this returns, and nothing is left in its folder.
    Weights that the function leaves random are the same in every call.

    Raises:
        LilliputError: no such file, module or function; the user's code failed, with its place.
        Refused: the function needs arguments, or does not return a module.
    """
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise LilliputError(f"model {spec!r} names no function", hint=f"write {FORMS}")
    is_file = source.endswith(".py")
    folder = Path(source).resolve().parent if is_file else Path.cwd()
    with leaving_no_bytecode(), _importable(folder, private=is_file), _repeatable():
        code = _run_file(Path(source)) if is_file else _import(source, spec)
        found = _member(code, name, spec)
        return found if isinstance(found, nn.Module) else _called(found, spec)


def modules_of_files() -> list[ModuleType]:
    """Of the files that were run so far. Their names are made up: no other process imports them."""
    return [code for name, code in sys.modules.items() if name.startswith(MADE_UP)]


def _called(function: Any, spec: str) -> nn.Module:
    if not callable(function):
        raise Refused(f"{spec!r} is a {type(function).__name__}, not a function", hint=FORMS)
    needed = _required_arguments(function)
    if needed:
        raise Refused(
            f"{spec!r} cannot be called without {', '.join(needed)}",
            hint="give it a default, or write a function without arguments that calls it",
        )
    try:
        module = function()
    except Exception as error:
        raise _users_mistake(spec, error) from error
    if not isinstance(module, nn.Module):
        raise Refused(f"{spec!r} returns a {type(module).__name__}, not an nn.Module", hint=FORMS)
    return module


def _required_arguments(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in free]


def _member(code: ModuleType, name: str, spec: str) -> Any:
    try:
        found: Any = code
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError:
        own = [n for n, v in vars(code).items() if callable(v) and not n.startswith("_")]
        place = spec.rpartition(":")[0]
        raise LilliputError(f"{place!r} has no {name!r}", hint=nearest(name, own)) from None
    return found


def _run_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = [str(p) for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
        raise LilliputError(f"no file at {str(path)!r}", hint=nearest(str(path), near))
    mark = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"{MADE_UP}{path.stem}_{mark}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise LilliputError(f"{str(path)!r} is not Python code")
    code = importlib.util.module_from_spec(spec)
    # Dataclasses, pickling and torch.export look classes up by their module's name.
    sys.modules[name] = code
    try:
        spec.loader.exec_module(code)
    except Exception as error:
        del sys.modules[name]
        raise _users_mistake(str(path), error) from error
    return code


def _import(name: str, spec: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _users_mistake(name, error) from error
        raise LilliputError(
            f"no module {error.name!r} for the model {spec!r}",
            hint=f"run from the folder that holds it, install it, or write {FORMS}",
        ) from error
    except Exception as error:
        raise _users_mistake(name, error) from error


def _users_mistake(thing: str, error: Exception) -> LilliputError:
    """What went wrong in the user's code, at the last line of it that ran."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if f.filename != __file__ and "importlib" not in f.filename]
    place = f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else None
    if isinstance(error, SyntaxError):
        place = f"{error.filename}:{error.lineno}"
    missing = isinstance(error, ModuleNotFoundError)
    return LilliputError(
        f"{thing!r} failed: {type(error).__name__}: {error}",
        at=place,
        hint=f"pip install the package that holds {error.name!r}" if missing else None,  # type: ignore[attr-defined]
    )


@contextlib.contextmanager
def _importable(folder: Path, *, private: bool) -> Iterator[None]:
    """Put the folder first on the search path, and take it off again.

    Neighbours that a file imported are forgotten (`private`), so that a second file with another
    `blocks.py` beside it gets its own.
    """
    before, entry = set(sys.modules), str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
        if private:
            for name in set(sys.modules) - before:
                home = getattr(sys.modules[name], "__file__", None) or ""
                own = name.startswith(MADE_UP)
                if not own and Path(home).parent == folder:
                    del sys.modules[name]


@contextlib.contextmanager
def _repeatable() -> Iterator[None]:
    """Fixed seeds for whatever the user's code draws; the caller's random state comes back."""
    # The user's code may draw from numpy's old global generator: no other one is theirs to find.
    python, array = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)  # noqa: NPY002
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(array)  # noqa: NPY002

"""Examples from the user's own code: a function that returns a Dataset or yields batches."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lilliput.data.dataset import Array, Dataset, Split
from lilliput.data.sources.memory import refuse_too_large
from lilliput.data.sources.raw import WHOLE, Raw, as_inputs, as_labels
from lilliput.errors import LilliputError, nearest
from lilliput.user_code import leaving_no_bytecode


def load_python(source: str) -> Raw | Dataset:
    """What `module:function` or `file.py:function` gives, called without arguments.

    The function returns a `Dataset`, or something to iterate over: batches of inputs, or of
    (inputs, targets), as arrays or torch tensors; or a mapping of "train", "validation", "test"
    to such. uint8 batches are pictures, others ready network inputs.

    Raises:
        LilliputError: it cannot be found, it fails, or what it gives is none of these.
    """
    place, _, name = source.rpartition(":")
    made = _called(_function(place, name, source), source)
    if isinstance(made, Dataset):
        return made
    given = made if isinstance(made, Mapping) else {WHOLE: made}
    parts: dict[str, Split] = {}
    layouts = set()
    for part, batches in given.items():
        if part not in (WHOLE, "train", "calibration", "validation", "test"):
            raise LilliputError(
                f"the function gives a part {part!r}",
                at=source,
                hint="parts are called train, calibration, validation and test",
            )
        parts[part], layout, found = _gathered(batches, source)
        layouts.add(layout)
    if len(layouts) != 1:
        raise LilliputError("some parts are uint8 pictures and others ready inputs", at=source)
    return Raw(name, parts, layout=layouts.pop(), facts={"arrays": found})


def _called(function: Callable[[], Any], source: str) -> Any:
    try:
        return function()
    except LilliputError:
        raise
    except Exception as error:
        raise LilliputError(
            f"the function failed: {type(error).__name__}: {error}",
            at=source,
            hint="it is called without arguments",
        ) from error


def _gathered(batches: Any, source: str) -> tuple[Split, str, str]:
    """All batches as one split, its layout and what the arrays were found to be."""
    inputs: list[Array] = []
    targets: list[Array] = []
    size = 0
    for batch in _iterated(_each(batches, source), source):
        x, y = _pair(batch, source)
        size += x.nbytes
        refuse_too_large(size, at=source)
        if y is not None and len(y) != len(x):
            raise LilliputError(
                f"batch {len(inputs) + 1} has {len(x)} inputs and {len(y)} targets",
                at=source,
                hint="every input has a target of its own, in the same place",
            )
        inputs.append(x)
        if y is not None:
            targets.append(y)
    if not inputs:
        raise LilliputError(
            "the function gives no batches", at=source, hint="a generator can be used only once"
        )
    if targets and len(targets) < len(inputs):
        raise LilliputError("some batches have targets and others have none", at=source)
    values, layout, found = as_inputs(_joined(inputs, source), at=source)
    labels = None
    if targets:
        labels = as_labels(_joined(targets, source), at=source, count=len(values))
    return Split(values, labels), layout, found


def _each(batches: Any, source: str) -> Iterable[Any]:
    if isinstance(batches, tuple) and len(batches) == 2 and hasattr(batches[0], "shape"):
        return [batches]
    if hasattr(batches, "shape"):
        return [batches]
    if not isinstance(batches, Iterable) or isinstance(batches, (str, bytes)):
        raise LilliputError(
            f"the function gives a {type(batches).__name__}",
            at=source,
            hint="return a lilliput Dataset, or yield batches (inputs, targets)",
        )
    return batches


def _iterated(batches: Iterable[Any], source: str) -> Iterator[Any]:
    """The batches; what a generator fails at is told as what a function fails at."""
    iterator, end = iter(batches), object()
    while (batch := _called(lambda: next(iterator, end), source)) is not end:
        yield batch


def _pair(batch: Any, source: str) -> tuple[Array, Array | None]:
    if isinstance(batch, (tuple, list)):
        if len(batch) != 2:
            raise LilliputError(
                f"a batch has {len(batch)} parts", at=source, hint="yield (inputs, targets)"
            )
        return _array(batch[0], source), _array(batch[1], source)
    return _array(batch, source), None


def _array(value: Any, source: str) -> Array:
    """An array of numbers, from numpy or torch (which is not imported for it)."""
    bare = value.detach().cpu() if hasattr(value, "detach") else value
    try:
        array: Array = np.asarray(bare)
    except (TypeError, ValueError) as error:
        raise LilliputError(
            f"a batch holds a {type(value).__name__} that is no array of numbers: {error}",
            at=source,
            hint="yield float32 inputs, or uint8 pictures, all of one shape",
        ) from error
    if array.dtype == object or array.ndim == 0:
        raise LilliputError(
            f"a batch holds a {type(value).__name__}, not an array of numbers", at=source
        )
    return array


def _joined(arrays: list[Array], source: str) -> Array:
    shapes = sorted({a.shape[1:] for a in arrays})
    if len(shapes) > 1:
        raise LilliputError(
            f"batches have different shapes: {shapes[0]} and {shapes[1]}",
            at=source,
            hint="resize pictures to one size, or give them as a folder",
        )
    return np.concatenate(arrays)


def _function(place: str, name: str, source: str) -> Callable[[], Any]:
    module = _file(Path(place), source) if place.endswith(".py") else _module(place, source)
    function = getattr(module, name, None)
    if function is None:
        known = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise LilliputError(f"{place!r} has no function {name!r}", hint=nearest(name, known))
    if not callable(function):
        raise LilliputError(f"{name!r} is a {type(function).__name__}, not a function", at=place)
    found: Callable[[], Any] = function
    return found


def _module(name: str, source: str) -> ModuleType:
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        with leaving_no_bytecode():
            return importlib.import_module(name)
    except Exception as error:
        raise LilliputError(
            f"cannot import {name!r}: {error}",
            at=source,
            hint="is it installed here, or in the current folder? a file is file.py:function",
        ) from error
    finally:
        if added:
            sys.path.remove(here)


def _file(path: Path, source: str) -> ModuleType:
    if not path.is_file():
        raise LilliputError(f"no file {str(path)!r}", at=source)
    name = f"_lilliput_data_{zlib.crc32(str(path.resolve()).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[name] = module
    try:
        with leaving_no_bytecode():
            spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise LilliputError(
            f"running the file failed: {type(error).__name__}: {error}", at=str(path)
        ) from error
    finally:
        sys.path.remove(folder)
    return module

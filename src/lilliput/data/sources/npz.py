"""Arrays in an `.npz`, by the names that people give them. Nothing is ever unpickled."""

from __future__ import annotations

import difflib
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lilliput.data.dataset import Array, Split
from lilliput.data.sources.memory import refuse_too_large
from lilliput.data.sources.raw import WHOLE, Raw, as_inputs, as_labels
from lilliput.errors import LilliputError, nearest

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
    *(OSError, EOFError, ValueError, RuntimeError),
)
"""What zipfile and numpy raise on bytes that are no archive of arrays."""

NAMES = (
    ("train", "x_train", "y_train"),
    ("validation", "x_val", "y_val"),
    ("validation", "x_validation", "y_validation"),
    ("test", "x_test", "y_test"),
    ("train", "train_images", "train_labels"),
    ("validation", "val_images", "val_labels"),
    ("test", "test_images", "test_labels"),
    (WHOLE, "x", "y"),
    (WHOLE, "images", "labels"),
)
"""The part, its inputs and its targets (which may be left out)."""

NEARLY = 0.8
"""A name so like one of these is a slip: `xtrain`, `x_trian`, `train_image`."""


def load_npz(path: Path) -> Raw:
    """The examples of an `.npz` file; capital letters in names make no difference.

    uint8 arrays are pictures, in NHWC, NCHW or NHW as their shape tells (stated in the facts);
    other numbers are ready network inputs.

    Raises:
        LilliputError: not an npz, names missing or misspelt, arrays of objects, shapes that do
            not fit.
    """
    arrays = _read(path)
    parts: dict[str, Split] = {}
    layouts: dict[str, str] = {}
    forms: dict[str, str] = {}
    for part, inputs, targets in NAMES:
        if inputs not in arrays:
            continue
        at = f"{path}, {inputs}"
        values, layouts[part], forms[inputs] = as_inputs(arrays[inputs], at=at)
        labels = arrays.get(targets)
        if labels is not None:
            labels = as_labels(labels, at=f"{path}, {targets}", count=len(values))
        parts[part] = Split(values, labels)
    if not parts:
        raise LilliputError(
            f"no array of a known name, only {', '.join(sorted(arrays)) or 'nothing'}",
            at=str(path),
            hint="call them x_train, y_train, x_test, y_test, or x, y, or images, labels",
        )
    if len(set(layouts.values())) > 1:
        raise LilliputError(
            "some parts are uint8 pictures and others ready inputs",
            at=str(path),
            hint="give all parts one type",
        )
    layout = next(iter(layouts.values()))
    return Raw(path.stem, parts, layout=layout, facts={"arrays": forms})


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with zipfile.ZipFile(path) as archive:
            refuse_too_large(sum(i.file_size for i in archive.infolist()), at=str(path))
        with np.load(path, allow_pickle=False) as held:
            named = _known(held.files, path)
            return {known: _array(held, n, path) for known, n in named.items()} or dict.fromkeys(
                held.files, np.zeros(0)
            )
    except DAMAGE as error:
        raise LilliputError(
            f"not a readable .npz: {error}", at=str(path), hint="copy it again, or save it anew"
        ) from error


def _known(given: Sequence[str], path: Path) -> dict[str, str]:
    """{name as we know it: name in the file}; what is called something else altogether is left.

    Raises:
        LilliputError: A name is nearly one that we know, so that examples would be lost.
    """
    known = {name for _, *names in NAMES for name in names}
    named: dict[str, str] = {}
    for name in given:
        if name.lower() in named:
            twin = named[name.lower()]
            raise LilliputError(f"{twin!r} and {name!r} mean the same", at=str(path))
        if name.lower() in known:
            named[name.lower()] = name
    missing = known - named.keys()
    for name in set(given) - set(named.values()):
        if difflib.get_close_matches(name.lower(), missing, cutoff=NEARLY):
            raise LilliputError(
                f"array {name!r} is none of the known names",
                at=str(path),
                hint=nearest(name.lower(), missing, count=1),
            )
    return named


def _array(held: np.lib.npyio.NpzFile, name: str, path: Path) -> Array:
    try:
        array: Array = held[name]
    except ValueError as error:
        raise LilliputError(
            f"array {name!r} cannot be read without unpickling, which may run foreign code",
            at=str(path),
            hint="save numbers, not objects: np.savez(file, x=np.asarray(x, np.uint8), ...)",
        ) from error
    if not isinstance(array, np.ndarray):
        raise LilliputError(f"{name!r} is no array", at=str(path))
    if array.ndim == 0:
        raise LilliputError(f"array {name!r} holds a single value", at=str(path))
    return array

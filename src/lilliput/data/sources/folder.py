"""Pictures in folders: one folder a class, or no classes at all; train, val, test on top."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lilliput.data.dataset import Array, Split
from lilliput.data.form import resized
from lilliput.data.sources.memory import refuse_too_large
from lilliput.data.sources.raw import WHOLE, Raw
from lilliput.errors import LilliputError
from lilliput.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm")
)

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "calibration": "calibration",
    "test": "test",
    "testing": "test",
}
"""Names of folders on top that mean a split."""

GREY = frozenset(("1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B"))
"""The picture library's modes without colour."""


class Head(NamedTuple):
    """What a picture file says before it is decoded."""

    mode: str
    height: int
    width: int


class Found(NamedTuple):
    """One part's files; `labels` are positions in `classes`, None without classes."""

    files: list[Path]
    labels: list[int] | None
    classes: tuple[str, ...]


def load_folder(folder: Path, form: Preprocessing | None = None) -> Raw:
    """Every picture below `folder`, decoded, with the name of its class folder as its label.

    Classes are the sorted names of the folders (as in most training code, so that label i is
    output i). Pictures of one size become one array, others a list. Pixels are taken as stored:
    orientation tags are not applied. Channels and size are what `form` declares, pictures being
    resized as soon as they are decoded; left out, sizes stay, and colour or grey is what most
    pictures are. The facts say how many were converted.

    Raises:
        LilliputError: no pictures, pictures both in and beside class folders, parts with
            different classes, a file that cannot be decoded, more than fits into memory.
    """
    found = {part: _listed(place) for part, place in _parts(folder).items()}
    classes = _one_set_of_classes(found, folder)
    every = [file for part in found.values() for file in part.files]
    heads = [_head(file) for file in every]
    size = None if form is None else form.size
    modes = [head.mode for head in heads]
    mode = _declared(form) or ("L" if 2 * sum(m in GREY for m in modes) > len(modes) else "RGB")
    pixels = [size or (head.height, head.width) for head in heads]
    bands = 1 if mode == "L" else 3
    refuse_too_large(bands * sum(height * width for height, width in pixels), at=str(folder))
    parts = {
        part: Split(
            pictures_of(listed.files, mode, size),
            None if listed.labels is None else np.asarray(listed.labels, np.int64),
        )
        for part, listed in found.items()
    }
    facts: dict[str, Any] = {"mode": mode, "converted": sum(m != mode for m in modes)}
    if size is not None and any((head.height, head.width) != size for head in heads):
        facts["resized_to"] = list(size)
    return Raw(folder.resolve().name, parts, augment=("flip",), classes=classes, facts=facts)


def pictures_of(
    files: Sequence[Path], mode: str, size: tuple[int, int] | None = None
) -> Sequence[Array] | Array:
    """These files as uint8 (H, W, C): one array if all have one size, a list otherwise."""
    pictures = [
        decode(file, mode) if size is None else resized(decode(file, mode), size) for file in files
    ]
    if len({p.shape for p in pictures}) == 1:
        return np.stack(pictures)
    return pictures


def decode(file: Path, mode: str) -> Array:
    """One picture as uint8 (H, W, 1) or (H, W, 3); alpha is dropped, 16 bits become 8.

    Raises:
        LilliputError: naming the file that cannot be decoded, or does not say what is white.
    """
    with _opened(file) as picture:
        if picture.mode == "F" or (picture.mode == "I" and picture.format == "TIFF"):
            raise LilliputError(
                "a picture of floats or 32-bit numbers does not say which of them is white",
                at=str(file),
                hint="save it with 8 or 16 bits a channel, or give ready inputs in an .npz",
            )
        try:
            if picture.mode.startswith("I"):
                # A file of 16 bits is "I" or "I;16", as the picture library's version has it.
                deep = np.asarray(picture).clip(0, 0xFFFF).astype(np.uint32)
                grey = (deep >> 8).astype(np.uint8)[..., None]
                return np.repeat(grey, 1 if mode == "L" else 3, axis=-1)
            pixels = np.array(picture.convert(mode), np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise _undecodable(file, error) from error
    return pixels[..., None] if mode == "L" else pixels


def listed_pictures(folder: Path) -> list[Path]:
    """All pictures below a folder, by name, hidden ones left out."""
    return [
        Path(place) / name
        for place, folders, names in _walk(folder)
        for name in sorted(names)
        if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES
    ]


def _walk(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        yield place, folders, names


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _parts(folder: Path) -> dict[str, Path]:
    """The folders of the splits, or the folder itself as an undivided whole."""
    inside = _folders(folder)
    named = {p: PARTS[p.name.lower()] for p in inside if p.name.lower() in PARTS}
    if not named:
        return {WHOLE: folder}
    others = [p for p in inside if p not in named and listed_pictures(p)]
    if others and (len(named) < 2 or "train" not in named.values()):
        return {WHOLE: folder}
    if others:
        raise LilliputError(
            f"{others[0].name!r} lies beside {' and '.join(repr(p.name) for p in named)}, so it is "
            "not clear whether the folders are splits or classes",
            at=str(folder),
            hint="move it elsewhere if they are splits, or rename those two if they are classes",
        )
    parts: dict[str, Path] = {}
    for place, part in named.items():
        if part in parts:
            raise LilliputError(
                f"{parts[part].name!r} and {place.name!r} both mean {part}",
                at=str(folder),
                hint="keep one of the two folders",
            )
        parts[part] = place
    return parts


def _listed(folder: Path) -> Found:
    every = [(inside, listed_pictures(inside)) for inside in _folders(folder)]
    holders = [(inside, files) for inside, files in every if files]
    total = listed_pictures(folder)
    beside = len(total) - sum(len(files) for _, files in holders)
    if not total:
        raise LilliputError(
            "no pictures here",
            at=str(folder),
            hint=f"pictures end in {', '.join(sorted(SUFFIXES))}",
        )
    if len(holders) < 2:
        return Found(total, None, ())
    if beside:
        raise LilliputError(
            f"{beside} pictures lie beside {len(holders)} folders of pictures, so it is not clear "
            "whether the folders are classes",
            at=str(folder),
            hint="put every picture into its class's folder, or all of them into one folder",
        )
    empty = [inside.name for inside, files in every if not files]
    if empty:
        raise LilliputError(
            f"no pictures in {', '.join(map(repr, empty))}: without that class, those after it "
            "would have other numbers than the network knows",
            at=str(folder),
            hint="put pictures into it, or take it away if it is no class",
        )
    labels = [label for label, (_, files) in enumerate(holders) for _ in files]
    files = [file for _, inside in holders for file in inside]
    return Found(files, labels, tuple(inside.name for inside, _ in holders))


def _one_set_of_classes(found: dict[str, Found], folder: Path) -> tuple[str, ...]:
    """The classes of all parts that have labels, which must agree."""
    labelled = {part: f.classes for part, f in found.items() if f.labels is not None}
    if len(set(labelled.values())) > 1:
        (first, ours), (second, theirs) = _two_that_differ(labelled)
        odd = sorted(set(ours) ^ set(theirs))
        raise LilliputError(
            f"{first} and {second} have different classes: {', '.join(odd[:8])} in one only",
            at=str(folder),
            hint="give every part a folder with pictures for every class",
        )
    return next(iter(labelled.values()), ())


def _two_that_differ(labelled: dict[str, Any]) -> tuple[tuple[str, Any], tuple[str, Any]]:
    first, *others = labelled.items()
    return first, next(other for other in others if other[1] != first[1])


def _opened(file: Path) -> Image:
    from PIL import Image

    try:
        return Image.open(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _undecodable(file, error) from error


def _undecodable(file: Path, error: Exception) -> LilliputError:
    return LilliputError(
        f"this picture cannot be decoded: {str(error).splitlines()[0]}",
        at=str(file),
        hint="remove the file or replace it by a whole one",
    )


def _head(file: Path) -> Head:
    with _opened(file) as picture:
        return Head(picture.mode, picture.height, picture.width)


def _declared(form: Preprocessing | None) -> str | None:
    """The picture library's mode for the channels that a preprocessing declares."""
    if form is None:
        return None
    if form.channels not in (1, 3):
        raise LilliputError(
            f"the preprocessing declares {form.channels} channels, and pictures in files are "
            "brought to 1 or 3",
            hint="set `channels` of the preprocessing to 1 or 3, or give ready float32 inputs",
        )
    return "L" if form.channels == 1 else "RGB"

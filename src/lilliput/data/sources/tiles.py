"""Small pictures packed as tiles of large ones, unpacked once into memory-mapped arrays."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import secrets
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lilliput.data.sources.download import cache_folder
from lilliput.errors import LilliputError

SIDE = 32
ACROSS = 50
MOST_FILES = 64
MOST_BYTES = 16 << 20

Pictures = NDArray[np.uint8]


def tiled_pictures(archive: Path) -> Pictures:
    """All 32x32 RGB pictures of a zip of `tiles_NN` files, (N, 32, 32, 3), memory-mapped.

    The first call decodes them into the cache, whose file name holds the archive's checksums; a
    machine that cannot write there gets them in memory, each time anew.

    Raises:
        LilliputError: the archive is broken, or a member is not a sheet of tiles.
    """
    try:
        with zipfile.ZipFile(archive) as held:
            sheets = _sheets(held, archive)
            cached = cache_folder() / "unpacked" / f"{archive.stem}-{_key(sheets)}.npy"
            known = _mapped(cached, len(sheets) * ACROSS * ACROSS)
            if known is not None:
                return known
            pictures = np.concatenate([_cut(held.read(s), archive, s.filename) for s in sheets])
    except (zipfile.BadZipFile, OSError) as error:
        raise LilliputError(f"this archive cannot be read: {error}", at=str(archive)) from error
    return _stored(pictures, cached)


def labels_of(archive: Path) -> NDArray[np.int64]:
    """The archive's `labels.npy`, (N,); never unpickled."""
    try:
        with zipfile.ZipFile(archive) as held:
            member = held.getinfo("labels.npy")
            if member.file_size > MOST_BYTES:
                raise LilliputError("labels.npy is too large", at=str(archive))
            labels = np.load(io.BytesIO(held.read(member)), allow_pickle=False)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError) as error:
        raise LilliputError(f"no readable labels.npy: {error}", at=str(archive)) from error
    return np.asarray(labels).astype(np.int64)


def _sheets(held: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    members = [m for m in held.infolist() if m.filename.startswith("tiles_")]
    sheets = sorted(members, key=lambda m: m.filename)
    if not sheets or len(sheets) > MOST_FILES or any(s.file_size > MOST_BYTES for s in sheets):
        raise LilliputError(
            f"{len(sheets)} files of tiles, each of at most {MOST_BYTES >> 20} MB, are not what "
            "this set consists of",
            at=str(archive),
        )
    return sheets


def _key(sheets: list[zipfile.ZipInfo]) -> str:
    text = ";".join(f"{s.filename},{s.file_size},{s.CRC}" for s in sheets)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _cut(content: bytes, archive: Path, name: str) -> Pictures:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as sheet:
            if sheet.size != (SIDE * ACROSS, SIDE * ACROSS):
                raise LilliputError(f"{name} has the size {sheet.size}", at=str(archive))
            pixels = np.asarray(sheet.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise LilliputError(f"{name} cannot be decoded: {error}", at=str(archive)) from error
    grid = pixels.reshape(ACROSS, SIDE, ACROSS, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, SIDE, SIDE, 3)


def _mapped(path: Path, count: int) -> Pictures | None:
    """The cached array, or None where there is none or it is not what was to be written."""
    try:
        known = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    fits = known.shape == (count, SIDE, SIDE, 3) and known.dtype == np.uint8
    return known if fits else None


def _stored(pictures: Pictures, path: Path) -> Pictures:
    neighbour = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with neighbour.open("xb") as stream:
            np.save(stream, pictures, allow_pickle=False)
        neighbour.replace(path)
    except OSError:
        return pictures
    finally:
        with contextlib.suppress(OSError):
            neighbour.unlink(missing_ok=True)
    mapped = _mapped(path, len(pictures))
    return pictures if mapped is None else mapped

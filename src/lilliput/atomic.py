"""Files that are there whole or not at all, whenever the power goes or the disk is full."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from lilliput.errors import CannotWrite

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EROFS, errno.EACCES, errno.EPERM)

_UNFINISHED = ".*.tmp"


def write_atomically(path: Path, content: bytes | bytearray | memoryview) -> None:
    """Write a neighbour, fsync it, rename it over `path`, fsync the folder.

    A reader sees the old file or the new one, never a part of either; folders are made.

    Raises:
        CannotWrite: The disk is full, broken or read-only; nothing is left of the attempt.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        neighbour = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            with neighbour.open("xb", buffering=0) as stream:
                write_all(stream.fileno(), content)
                os.fsync(stream.fileno())
            neighbour.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                neighbour.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


def write_all(handle: int, content: bytes | bytearray | memoryview) -> None:
    """Write all of it: a single write may take only a part, as when a disk becomes full."""
    left = memoryview(content)
    while left:
        left = left[os.write(handle, left) :]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing here into an error with a way out.

    Raises:
        CannotWrite: In place of any OSError.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(error, path) from error


def cannot_write(error: OSError, path: Path | str) -> CannotWrite:
    """The error for a user whose disk refused to write to `path`."""
    hint = "see that the disk is there and sound"
    if error.errno in FULL:
        hint = "make room on this disk"
    elif error.errno in FORBIDDEN:
        hint = "allow writing here, or give another folder"
    return CannotWrite(
        f"cannot write: {error.strerror or error}",
        at=str(path),
        hint=f"{hint}; a run goes on with `lilliput resume`",
    )


def sweep(folder: Path) -> None:
    """Remove what killed writers left of their neighbours; nobody else may be writing here."""
    for unfinished in folder.glob(_UNFINISHED):
        with contextlib.suppress(OSError):
            unfinished.unlink()


def is_unfinished(path: Path) -> bool:
    """Whether a killed writer left it."""
    return path.match(_UNFINISHED)


def _sync_folder(folder: Path) -> None:
    # Windows cannot open a folder, and some network disks refuse to sync one: the rename stands.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

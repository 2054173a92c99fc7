"""One process at a time works in a run's folder."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.atomic import cannot_write, write_atomically
from lilliput.errors import LilliputError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"
HOLDER = ".lock.json"

DYING_SECONDS = 1.0
"""How long a process that was killed may hold its lock still, while its memory is given back."""


def acquire(folder: Path) -> BaseFileLock:
    """Take the folder's lock; the system gives it back when this process ends, however it ends.

    Raises:
        LilliputError: Another process has it; it is named.
        CannotWrite: The folder lies on a disk that is full or read-only.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=DYING_SECONDS)
    try:
        lock.acquire()
    except Timeout as error:
        raise LilliputError(
            f"another process works in this run: {_described(folder)}",
            at=str(folder),
            hint="wait for it, or stop it and then `lilliput resume` the run",
        ) from error
    except OSError as error:
        raise cannot_write(error, folder / LOCK) from error
    holder = {
        "pid": os.getpid(),
        "host": platform.node(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        write_atomically(folder / HOLDER, json.dumps(holder).encode())
    except BaseException:
        lock.release()
        raise
    return lock


def holder(folder: Path) -> dict[str, Any] | None:
    """{"pid", "host", "since"} of the process that works in the folder now; None if none does."""
    from filelock import FileLock, Timeout

    if not (folder / LOCK).exists():
        return None
    try:
        with FileLock(folder / LOCK, timeout=0):
            return None
    except Timeout:
        return _recorded(folder)
    except OSError:
        return None


def _recorded(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / HOLDER).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _described(folder: Path) -> str:
    known = _recorded(folder)
    if not known:
        return "its number is not known yet"
    return f"pid {known.get('pid')} on {known.get('host')}, since {known.get('since')}"

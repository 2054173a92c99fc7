"""Results outside a run, kept one by one: what was found before an interruption is not lost.

A journal in the user's cache folder, under the digest of all that the results depend on. Who asks
the same again goes on where the first stopped, or reads what it found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.context import Progress
from lilliput.errors import LilliputError
from lilliput.runs import lock
from lilliput.runs.journal import JournalFile

Work = Mapping[str, Callable[[], dict[str, Any]]]
"""Pieces of work by key; what each returns must go to JSON."""

Collect = Callable[[str, Work], dict[str, dict[str, Any]]]
"""Does all of the work, watched under a label; results by key, in the order of the work."""


def collected(label: str, work: Work) -> dict[str, dict[str, Any]]:  # noqa: ARG001
    """Does the work now, and remembers nothing."""
    return {key: piece() for key, piece in work.items()}


@dataclass(frozen=True)
class Cache:
    """Results that are on disk before the next piece of work begins."""

    journal: JournalFile
    progress: Progress

    def collect(self, label: str, work: Work) -> dict[str, dict[str, Any]]:
        """The results of all pieces; only those are done that no earlier call finished."""
        left = [key for key in work if key not in self.journal]
        if 0 < len(left) < len(work):
            before = len(work) - len(left)
            self.progress.say(f"{label}: {before} of {len(work)} were found before")
        for key in self.progress.track(left, label=label):
            self.journal.once(key, work[key])
        return {key: self.journal.once(key, piece) for key, piece in work.items()}


@contextmanager
def cache_for(
    kind: str, asked: Mapping[str, Any], progress: Progress, *, root: Path | None = None
) -> Iterator[Cache]:
    """The cache of what was asked; nobody else has it meanwhile.

    Args:
        kind: The folder's name, as "sensitivity".
        asked: All that the results depend on; goes to JSON.
        progress: Watches the work.
        root: Where caches are kept; the user's cache folder by default.

    Raises:
        LilliputError: Another process has it, or its file was changed.
    """
    folder = (root or _users_own()) / kind / digest_of(asked)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        locked = lock.acquire(folder)
    except LilliputError as error:
        if lock.holder(folder) is None:
            raise
        raise LilliputError(
            "another process is finding out the same",
            at=str(folder),
            hint="wait for it: what it finds need not be done again",
        ) from error
    try:
        with _journal(folder) as journal:
            if not journal.entries:
                journal.note("asked", **asked)
            yield Cache(journal, progress)
    finally:
        locked.release()


def digest_of(asked: Mapping[str, Any]) -> str:
    """20 hexadecimal digits that stand for the values."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]


def _journal(folder: Path) -> JournalFile:
    try:
        return JournalFile(folder / "journal.jsonl")
    except LilliputError as error:
        raise LilliputError(
            error.thing, at=error.at, hint=f"this is a cache: delete {folder}"
        ) from error


def _users_own() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("lilliput"))

"""Where named sets lie, and how they get there: the user's folder, a cache, a checked download."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lilliput.atomic import write_atomically
from lilliput.errors import LilliputError

VARIABLE = "LILLIPUT_DATA"
TIMEOUT_S = 30
CHUNK = 1 << 20


class Remote(NamedTuple):
    """A file at its public home. The MD5 is its publisher's: it guards against a broken copy."""

    url: str
    md5: str
    most_bytes: int


def cache_folder() -> Path:
    """Where downloads and unpacked pictures are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("lilliput")) / "data"


def places(root: Path | None = None) -> list[Path]:
    """The folders in which a named set is looked for, in this order."""
    if root is not None:
        return [Path(root)]
    named = os.environ.get(VARIABLE)
    beside = Path("../shared/data")
    return [
        *([Path(named)] if named else []),
        *([beside] if beside.is_dir() else []),
        cache_folder(),
    ]


def find(names: tuple[str, ...], root: Path | None = None) -> Path | None:
    """The first place that has all of these files or folders."""
    return next((p for p in places(root) if all((p / n).exists() for n in names)), None)


def not_here(name: str, files: tuple[str, ...], remotes: tuple[Remote, ...] = ()) -> LilliputError:
    """The error that tells how to get a set by hand."""
    homes = " ".join(r.url for r in remotes)
    fetch = (
        f"download {homes} and put it into {cache_folder()}"
        if remotes
        else (f"put {', '.join(files)} into {cache_folder()}")
    )
    return LilliputError(
        f"the data {name!r} is not on this machine",
        hint=f"{fetch}, or set {VARIABLE} to the folder that holds {', '.join(files)}",
    )


def fetch(name: str, file: str, remote: Remote) -> Path:
    """Download one file into the cache, unless it is there; checked before it gets its name.

    Raises:
        LilliputError: offline, larger than declared, or not the file that was published.
    """
    path = cache_folder() / file
    if path.is_file():
        return path
    try:
        content = b"".join(_chunks(remote))
    except OSError as error:
        raise LilliputError(
            f"the data {name!r} is not here, and {remote.url} cannot be reached: {error}",
            hint=f"download it elsewhere and put it into {cache_folder()} as {file}, or set "
            f"{VARIABLE} to a folder that has it",
        ) from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != remote.md5:
        raise LilliputError(
            f"{remote.url} is not the file that was published: MD5 {found}, not {remote.md5}",
            hint=f"try again, or get {file} elsewhere and put it into {cache_folder()}",
        )
    write_atomically(path, content)
    return path


def _chunks(remote: Remote) -> Iterator[bytes]:
    request = urllib.request.Request(remote.url)  # noqa: S310  # the URL is a constant of ours
    size = 0
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # the same
        while chunk := answer.read(CHUNK):
            size += len(chunk)
            if size > remote.most_bytes:
                raise LilliputError(f"{remote.url} sends more than {remote.most_bytes} bytes")
            yield chunk

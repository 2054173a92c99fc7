"""Sizes are looked at before anything is read: a declared size is a promise we can refuse."""

from __future__ import annotations

from lilliput.errors import LilliputError

SHARE = 0.8
"""Of the memory that is free; splitting copies, so this is generous already."""


def refuse_too_large(size_bytes: int, *, at: str) -> None:
    """Raise `LilliputError` where unpacked data would not fit into memory."""
    import psutil

    free = psutil.virtual_memory().available
    if size_bytes > SHARE * free:
        raise LilliputError(
            f"unpacked this is {size_bytes / 1e9:.1f} GB, and {free / 1e9:.1f} GB of memory are "
            "free",
            at=at,
            hint="give fewer or smaller pictures; calibration and scoring need a few thousand",
        )

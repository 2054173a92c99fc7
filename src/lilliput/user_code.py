"""Running what a user wrote, in the user's folders."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def leaving_no_bytecode() -> Iterator[None]:
    """Python writes no `__pycache__` into the folders that code is imported from meanwhile."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before

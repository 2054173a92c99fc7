"""The idx files of MNIST and its kin: a magic number, sizes, bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lilliput.errors import LilliputError

UINT8 = 0x08
MOST_BYTES = 1 << 28


def read_idx(path: Path) -> NDArray[np.uint8]:
    """A `.gz` idx file of unsigned bytes, as an array of the sizes that it declares.

    Raises:
        LilliputError: not such a file, or not as long as it says.
    """
    try:
        with gzip.open(path) as stream:
            head = stream.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != UINT8 or not 1 <= head[3] <= 4:
                raise LilliputError("not an idx file of bytes", at=str(path))
            sizes = np.frombuffer(stream.read(4 * head[3]), ">u4").astype(int).tolist()
            total = math.prod(sizes)
            if len(sizes) != head[3] or total > MOST_BYTES:
                raise LilliputError(f"declares {total} bytes", at=str(path))
            content = stream.read(total + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise LilliputError(f"this file cannot be read: {error}", at=str(path)) from error
    if len(content) != total:
        raise LilliputError(f"is not of the {total} bytes that it declares", at=str(path))
    return np.frombuffer(content, np.uint8).reshape(sizes)

"""The ONNX file out of a packed one."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

from lilliput.atomic import write_atomically
from lilliput.codec.container import DEFAULT_LIMIT
from lilliput.noun import Noun
from lilliput.onnx_io import existing, unpacked
from lilliput.units import format_bytes
from lilliput.verbs.pack import chosen


class Unpacked(Noun):
    """The ONNX file that was in a `.lil` file, to the last bit."""

    path: Path
    source: Path
    bytes: int
    sha256: str
    unpack_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.path}: {format_bytes(self.bytes)}, unpacked in {self.unpack_seconds:.2g} s\n"
            f"  sha256: {self.sha256}"
        )


def unpack(
    file: Path | str, *, out: Path | str | None = None, max_bytes: int = DEFAULT_LIMIT
) -> Unpacked:
    """Write the ONNX file that is in a `.lil` file.

    Args:
        file: What `pack` wrote.
        out: The ONNX file; beside the other, under its name, unless given.
        max_bytes: The largest ONNX file that is made; the file says its size beforehand.

    Raises:
        LilliputError: No such file; or the file to write is there, and was not named.
        Refused: Damaged, cut short, of a later version, or too large.
    """
    file = existing(file)
    target = chosen(file, out, ".onnx")
    began = time.perf_counter()
    content = unpacked(file, max_bytes=max_bytes)
    seconds = time.perf_counter() - began
    write_atomically(target, content)
    return Unpacked(
        path=target,
        source=file,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        unpack_seconds=seconds,
    )

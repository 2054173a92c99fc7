"""An ONNX file in the fewest bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lilliput.atomic import write_atomically
from lilliput.codec.bill import Bill
from lilliput.codec.verified import encode_verified
from lilliput.errors import LilliputError, Refused
from lilliput.noun import Noun
from lilliput.onnx_io import read_bytes, read_model
from lilliput.units import format_bytes


class Packed(Noun):
    """A file that was packed, and where the bytes went; they add up to its length."""

    path: Path
    source: Path
    bill: Bill
    pack_seconds: float
    unpack_seconds: float

    @property
    def bytes(self) -> int:
        """Length of the packed file."""
        return self.bill.bytes

    @property
    def ratio(self) -> float:
        """How many times smaller than the ONNX file."""
        return self.bill.raw_bytes / self.bill.bytes

    def __str__(self) -> str:
        sizes = f"{format_bytes(self.bytes)} of {format_bytes(self.bill.raw_bytes)}"
        again = f"unpacked and compared in {self.unpack_seconds:.2g} s"
        return "\n".join(
            [
                f"{self.path}: {sizes}, {self.ratio:.2f}× smaller",
                f"  packed in {self.pack_seconds:.2g} s, {again}",
                str(self.bill),
            ]
        )

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "ratio": self.ratio,
            "pack_seconds": self.pack_seconds,
            "unpack_seconds": self.unpack_seconds,
            **self.bill.as_json(),
        }


def pack(file: Path | str, *, out: Path | str | None = None) -> Packed:
    """Pack an ONNX file; what was packed is unpacked and compared before it is kept.

    Args:
        file: A self-contained ONNX file.
        out: The `.lil` file; beside the other, under its name, unless given.

    Raises:
        LilliputError: No such file; or the file to write is there, and was not named.
        Refused: Not an ONNX file, or tensors lie in other files.
    """
    file = Path(file)
    if file.suffix == ".lil":
        raise Refused(f"{str(file)!r} is packed already", hint=f"lilliput unpack {file}")
    target = chosen(file, out, ".lil")
    read_model(file)
    made = encode_verified(bytes(read_bytes(file)), str(file))
    write_atomically(target, made.packed)
    return Packed(
        path=target,
        source=file,
        bill=made.bill,
        pack_seconds=made.pack_seconds,
        unpack_seconds=made.unpack_seconds,
    )


def chosen(file: Path, out: Path | str | None, suffix: str) -> Path:
    """The file to write: `out`, or a new one beside `file`.

    Raises:
        LilliputError: `out` ends otherwise, or the new one is there already.
    """
    if out is None:
        beside = file.with_suffix(suffix)
        if beside.exists():
            raise LilliputError(
                f"{str(beside)!r} is there already", hint=f"to replace it, name it: -o {beside}"
            )
        return beside
    if Path(out).suffix != suffix:
        raise LilliputError(f"such a file ends in {suffix}, not {Path(out).name!r}")
    return Path(out)

"""An ONNX file in the fewest bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lilliput.atomic import write_atomically
from lilliput.codec.bill import Bill
from lilliput.codec.rivals import Rival, rivals
from lilliput.codec.verified import encode_verified
from lilliput.columns import aligned
from lilliput.errors import LilliputError, Refused
from lilliput.noun import Noun
from lilliput.onnx_io import read_bytes, read_model, tensors
from lilliput.units import format_bytes

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray


class Packed(Noun):
    """A file that was packed, and where the bytes went; they add up to its length.

    `rivals` is what other coders make of it, where that was asked for.
    """

    path: Path
    source: Path
    bill: Bill
    pack_seconds: float
    unpack_seconds: float
    rivals: tuple[Rival, ...] = ()

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
                *self._compared(),
            ]
        )

    def _compared(self) -> list[str]:
        if not self.rivals:
            return []
        head = ["by other coders", "theirs", "ours", "ratio"]
        sizes = (
            (r.name, format_bytes(r.bytes), format_bytes(r.ours), r.ratio) for r in self.rivals
        )
        rows = [[*cells, f"{ratio:.2f}×"] for *cells, ratio in sizes]
        return ["", *aligned([head, *rows], right=range(1, 4)), "the last without the graph"]

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        return {
            "path": str(self.path),
            "source": str(self.source),
            "ratio": self.ratio,
            "pack_seconds": self.pack_seconds,
            "unpack_seconds": self.unpack_seconds,
            **self.bill.as_json(),
            "rivals": [rival.as_json() for rival in self.rivals],
        }


def pack(file: Path | str, *, out: Path | str | None = None, compare: bool = False) -> Packed:
    """Pack an ONNX file; what was packed is unpacked and compared before it is kept.

    Args:
        file: A self-contained ONNX file.
        out: The `.lil` file; beside the other, under its name, unless given.
        compare: Also say what gzip, xz and the code of Deep Compression make of it.

    Raises:
        LilliputError: No such file; or the file to write is there, and was not named.
        Refused: Not an ONNX file, or tensors lie in other files.
    """
    file = Path(file)
    if file.suffix == ".lil":
        raise Refused(f"{str(file)!r} is packed already", hint=f"lilliput unpack {file}")
    target = chosen(file, out, ".lil")
    model, content = read_model(file), bytes(read_bytes(file))
    made = encode_verified(content, str(file))
    write_atomically(target, made.packed)
    return Packed(
        path=target,
        source=file,
        bill=made.bill,
        pack_seconds=made.pack_seconds,
        unpack_seconds=made.unpack_seconds,
        rivals=rivals(content, arrays_of(model), made.bill) if compare else (),
    )


def arrays_of(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    """Every tensor stored in the model, by its place and name."""
    from onnx import numpy_helper

    stored = enumerate(tensors(model))
    return {f"{at} {tensor.name}": numpy_helper.to_array(tensor) for at, tensor in stored}


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

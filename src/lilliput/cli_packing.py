"""The verbs of packed files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option

from lilliput import console, units
from lilliput.cli_options import LIMITS, OUTPUT, Json, option


def pack(
    file: Annotated[Path, Argument(help="An ONNX file.")],
    out: Annotated[
        Path | None, Option("--out", "-o", help="FILE.lil unless given.", rich_help_panel=OUTPUT)
    ] = None,
    compare: Annotated[
        bool, Option("--compare", help="Also by gzip, xz and Deep Compression's Huffman code.")
    ] = False,
    json: Json = False,
) -> None:
    """Pack an ONNX file into the fewest bytes, and say where they went.

    Example: lilliput pack best.onnx
    """
    from lilliput.verbs.pack import pack as verb

    console.show(verb(file, out=out, compare=compare), as_json=json)


def unpack(
    file: Annotated[Path, Argument(help="A .lil file.")],
    out: Annotated[
        Path | None, Option("--out", "-o", help="FILE.onnx unless given.", rich_help_panel=OUTPUT)
    ] = None,
    max_size: Annotated[
        Any, option(units.parse_bytes, "SIZE", "Of the ONNX file, as 2GB.", panel=LIMITS)
    ] = None,
    json: Json = False,
) -> None:
    """Give back the ONNX file inside a .lil file, bit for bit.

    Example: lilliput unpack best.lil
    """
    from lilliput.verbs.unpack import unpack as verb

    limit = {} if max_size is None else {"max_bytes": max_size}
    console.show(verb(file, out=out, **limit), as_json=json)

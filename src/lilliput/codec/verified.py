"""Packing that trusts itself only after unpacking."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lilliput.codec.bill import Bill
from lilliput.codec.container import decode, encode
from lilliput.errors import VerificationFailed


@dataclass(frozen=True)
class Verified:
    """A `.lil` file's bytes, from which the ONNX file came back bit for bit."""

    packed: bytes
    bill: Bill
    pack_seconds: float
    unpack_seconds: float


def encode_verified(content: bytes, name: str) -> Verified:
    """Pack the bytes of an ONNX file, unpack them, compare.

    Args:
        content: The ONNX file.
        name: What it is called in an error.

    Raises:
        Refused: A tensor lies in another file.
        VerificationFailed: It does not come back.
    """
    began = time.perf_counter()
    packed, bill = encode(content)
    between = time.perf_counter()
    if decode(packed, max_bytes=len(content)) != content:
        raise VerificationFailed(f"{name!r} does not come back as it was; nothing is written")
    return Verified(packed, bill, between - began, time.perf_counter() - between)

"""Coders on the same weights: pruned and clustered LeNets, a sparse ResNet-20 of few bits.

The LeNets are the files that `lenet5-bytes` and `lenet300-bytes` committed, unpacked. ResNet-20 is
pruned by magnitude and rounded to grids here, untrained: only its coding is compared.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.harness import Claim, Options, Peer, Row
from benchmarks.lil import Case, changed, float_file, nncodec_bytes, nncodec_python
from lilliput.codec.container import decode, encode
from lilliput.codec.rivals import HUFFMAN, XZ, huffman_bytes, without_graph, xz_bytes
from lilliput.errors import Missing
from lilliput.onnx_io import read_bytes

LENETS = ("lenet5*", "lenet300*")
RESNET = "ResNet-20"
BITS = (2, 3, 4)
KEPT = 0.2
NNCODEC, ZSTD = "NNCodec 2.1.3, exact", "zstd -19"
UNKNOWN = "what the peer's contexts see here and ours do not is still to be found"

Floats = NDArray[np.float32]


def run(options: Options) -> Claim:
    python = nncodec_python(create=not options.smoke)
    rows: list[Row] = []
    peers: dict[str, list[Row]] = {name: [] for name in (XZ, ZSTD, HUFFMAN, NNCODEC)}
    for case in cases(options):
        options.log(case.name)
        content = bytes(read_bytes(case.path))
        packed, bill = encode(content)
        if decode(packed) != content:
            raise AssertionError(f"{case.name} does not come back")
        theirs = {
            XZ: xz_bytes(content),
            ZSTD: zstd(content),
            HUFFMAN: huffman_bytes(tensors_of(content)),
        }
        without = without_graph(bill)
        ours = {XZ: len(packed), ZSTD: len(packed), HUFFMAN: without}
        notes = {HUFFMAN: "all tensors, without the graph, which it does not store"}
        rows.append(
            Row(
                name=f"{case.name}: packed",
                figure=len(packed),
                unit="B",
                note=f"of {len(content)} B; {without} B without the graph",
            )
        )
        if python is not None:
            weights, codebooks = indices(content)
            coded = nncodec_bytes(python, weights, options.work)
            theirs[NNCODEC] = coded + codebooks
            sizes = {e.name: e.bytes for e in bill.entries}
            ours[NNCODEC] = sum(sizes[name] for name in weights)
            notes[NNCODEC] = f"weights alone; its {coded} B of indices and {codebooks} B of values"
        for name, size in theirs.items():
            peers[name].append(Row(name=case.name, figure=size, unit="B", note=notes.get(name)))
            rows.append(
                Row(
                    name=f"{case.name}: smaller than {name}",
                    figure=round(100 * (1 - ours[name] / size), 2),
                    unit="%",
                    goal="> 0",
                    note=notes.get(name),
                    limits=None if ours[name] < size else UNKNOWN,
                )
            )
    return Claim(
        says="On the same pruned, shared and low-bit weights a .lil file is smaller than what "
        "NNCodec, xz, zstd and Deep Compression's Huffman codes make of them, bit for bit",
        rows=tuple(rows),
        peers=tuple(Peer(name=name, rows=tuple(held)) for name, held in peers.items() if held),
    )


def cases(options: Options) -> Iterator[Case]:
    """The committed LeNets, and ResNet-20 on grids of few bits.

    Raises:
        Missing: The claims that make the LeNets were not run.
    """
    for pattern in LENETS:
        found = sorted((options.home / "artifacts").glob(f"{pattern}bytes*.lil"))
        if not found and not options.smoke:
            raise Missing(
                f"no benchmarks/artifacts/{pattern}bytes*.lil",
                hint="python -m benchmarks lenet5-bytes lenet300-bytes makes them",
            )
        for path in found:
            yield Case(path.stem, "as committed", path)
    plain = float_file(options, RESNET)
    for bits in BITS[:1] if options.smoke else BITS:
        kind = f"{100 * KEPT:.0f} % of weights, {bits}-bit"
        yield changed(options, RESNET, kind, plain, partial(sparse_grid, bits=bits))


def sparse_grid(weights: Floats, bits: int) -> Floats:
    """The largest fifth, on the grid of 2**bits - 1 values that is nearest to them in the mean."""
    flat = weights.astype(np.float64)
    magnitude = np.abs(flat)
    live = magnitude > np.quantile(magnitude, 1 - KEPT)
    most = 2 ** (bits - 1) - 1

    def rounded(step: float) -> NDArray[np.float64]:
        # A weight that was kept is not rounded to zero.
        steps = np.clip(np.rint(magnitude / step), 1, most)
        return np.where(live, np.sign(flat) * steps, 0)

    steps = magnitude.max() / most * np.linspace(0.2, 1.0, 33)
    step = min(steps, key=lambda s: float(((rounded(s) * s - flat)[live] ** 2).sum()))
    return (rounded(step).astype(np.float32) * np.float32(step)).astype(np.float32)


def zstd(content: bytes) -> int:
    """Raises `Missing` where it is not installed."""
    if not shutil.which("zstd"):
        raise Missing("zstd is not installed", hint="apt install zstd")
    command = ["zstd", "-19", "-c", "-q"]
    return len(subprocess.run(command, input=content, capture_output=True, check=True).stdout)


def tensors_of(content: bytes) -> dict[str, Floats]:
    """All float tensors of an ONNX file."""
    stored = onnx.load_from_string(content).graph.initializer
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in stored}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def indices(content: bytes) -> tuple[dict[str, NDArray[np.generic]], int]:
    """The tensors of two and more dimensions as indices, and the bytes of their codebooks.

    Indices are in the order of the values, 0 for zero itself. A codebook is in half precision where
    its values are.
    """
    found: dict[str, NDArray[np.generic]] = {}
    spent = 0
    for name, tensor in tensors_of(content).items():
        if tensor.ndim < 2:
            continue
        book, index = np.unique(tensor, return_inverse=True)
        below = int(np.searchsorted(book, 0))
        found[name] = (index.reshape(tensor.shape) - below).astype(np.int32)
        narrow = np.array_equal(book.astype(np.float16).astype(np.float32), book)
        spent += int(np.count_nonzero(book)) * (2 if narrow else 4)
    return found, spent

"""What `lil-size` and `lil-speed` pack: published networks as float and int8 files, and the same
weights pruned, clustered and of fewer bits; and the tools that they are compared with.
"""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.harness import Options
from benchmarks.int8 import CASES, prepared, quantized
from benchmarks.peers.environment import interpreter, output_of
from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError, Missing
from lilliput.export.onnx_file import export_network
from lilliput.models.source import load_network

CLASSIFIER = TensorSpec(name="input", shape=(None, 3, 32, 32))
PICTURE = TensorSpec(name="input", shape=(None, 3, None, None), sample=(1, 3, 48, 48))

FLOATS = {
    "ResNet-20": ("resnet_cifar.py:resnet20", "cifar10_resnet20/model", CLASSIFIER),
    "ResNet-56": ("resnet_cifar.py:resnet56", "cifar10_resnet56/model", CLASSIFIER),
    "CARN-M": ("carn_m.py:x2", "sr_carn_m/carn_m_fp16", PICTURE),
    "style network": ("style_net.py:build", "style_fast_neural/wave_fp16", PICTURE),
}
INT8 = ("ResNet-8", "ResNet-20", "ResNet-56", "Separable ResNet")
RATE = 4.0
"""Bits a weight, of files whose weights are chosen for their coded size."""
ORDINARY, RATED = "int8", "rate-aware int8"
FEW = ("pruned", "clustered", "4-bit", "sparse int8")
COMPRESSORS = ("xz -9e", "zstd -22 --ultra", "brotli -q 11")
SMALLEST = 100
"""Elements of a tensor that is worth pruning, clustering or rounding."""

Weights = NDArray[np.generic]


@dataclass(frozen=True)
class Case:
    """A file to pack."""

    network: str
    kind: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.network}, {self.kind}"


def cases(options: Options) -> Iterator[Case]:
    """The files, made once and kept in the claim's folder."""
    names = ["ResNet-20"] if options.smoke else [*FLOATS, *(n for n in INT8 if n not in FLOATS)]
    for network in names:
        if network in FLOATS:
            plain = float_file(options, network)
            yield Case(network, "fp32", plain)
            if network.startswith("ResNet"):
                yield changed(options, network, "pruned", plain, pruned)
                yield changed(options, network, "clustered", plain, clustered)
        if network in INT8:
            context = prepared(next(case for case in CASES if case.name == network), options)
            plain = quantized(context, None)
            yield Case(network, ORDINARY, plain)
            if network in ("ResNet-20", "ResNet-56"):
                yield Case(network, RATED, quantized(context, RATE))
                yield changed(options, network, "4-bit", plain, four_bits)
                yield changed(options, network, "sparse int8", plain, pruned)


def float_file(options: Options, network: str) -> Path:
    """The published network as it is, exported once."""
    factory, weights, spec = FLOATS[network]
    path = options.work / f"{network}.onnx"
    if not path.is_file():
        loaded = load_network(
            f"{options.home}/networks/{factory}",
            weights=options.data / f"models/{weights}.safetensors",
            inputs=(spec,),
        )
        export_network(loaded, path)
    return path


def changed(
    options: Options, network: str, kind: str, source: Path, change: Callable[[Weights], Weights]
) -> Case:
    """A file whose tensors of two and more dimensions were changed."""
    model = onnx.load(str(source))
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim > 1 and weights.size >= SMALLEST:
            tensor.raw_data = change(weights).astype(weights.dtype).tobytes()
    path = options.work / f"{network}, {kind}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Case(network, kind, path)


def pruned(weights: Weights) -> Weights:
    """Without the four fifths of least magnitude."""
    magnitude = np.abs(weights.astype(np.float32))
    return np.where(magnitude > np.quantile(magnitude, 0.8), weights, 0)


def four_bits(weights: Weights) -> Weights:
    """Of 8 bits the upper 4, rounded."""
    return np.clip(np.rint(weights / 16), -8, 7)


def clustered(weights: Weights, count: int = 32) -> Weights:
    """Each the nearest of 32 values, by Lloyd's algorithm from even steps."""
    flat = np.sort(weights.ravel().astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(flat)])
    centres = np.linspace(flat[0], flat[-1], count)
    for _ in range(30):
        cuts = np.searchsorted(flat, (centres[1:] + centres[:-1]) / 2)
        ends = np.concatenate([[0], cuts, [flat.size]])
        sizes = np.diff(ends)
        means = np.diff(sums[ends]) / np.maximum(sizes, 1)
        centres = np.sort(np.where(sizes > 0, means, centres))
    single = centres.astype(np.float32)
    return single[np.searchsorted((single[1:] + single[:-1]) / 2, weights)]


def general_compressors(*, needed: Sequence[str]) -> dict[str, Callable[[bytes], int]]:
    """{name: bytes that it makes of a file}; those that are installed here.

    Raises:
        Missing: One of the needed ones is not.
    """
    extreme = 9 | lzma.PRESET_EXTREME
    found: dict[str, Callable[[bytes], int]] = {
        "xz -9e": lambda content: len(lzma.compress(content, preset=extreme))
    }
    if shutil.which("zstd"):
        command = ["zstd", "-22", "--ultra", "-c", "-q"]
        found["zstd -22 --ultra"] = lambda content: len(
            subprocess.run(command, input=content, capture_output=True, check=True).stdout
        )
    with suppress(ImportError):
        import brotli

        found["brotli -q 11"] = lambda content: len(brotli.compress(content, quality=11, lgwin=24))
    for name in set(needed) - set(found):
        raise Missing(
            f"{name} is not installed",
            hint="apt install zstd; pip install -r benchmarks/peers/requirements-lil.txt",
        )
    return found


def integer_weights(path: Path) -> dict[str, Weights]:
    """The tensors of an int8 file that are more than vectors."""
    tensors = onnx.load(str(path)).graph.initializer
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    return {k: v for k, v in found.items() if v.dtype == np.int8 and v.ndim > 1}


def nncodec_bytes(python: Path, tensors: dict[str, Weights], folder: Path) -> int:
    """The length of NNCodec's bitstream of these tensors, which come back as they were."""
    source = folder / "tensors.npz"
    np.savez(source, **tensors)
    told = json.loads(output_of(python, "nncodec_exact.py", source, peer="NNCodec"))
    if not told["equal"]:
        raise LilliputError("NNCodec did not give the integers back", at=str(source))
    return int(told["bytes"])


def nncodec_python(*, create: bool) -> Path | None:
    """NNCodec's own Python; installed without torchvision, which clashes with torch."""
    return interpreter("nncodec", create=create, alone=["nncodec==2.1.3"])

"""The networks of the claims come in as a user would bring them, and leave as small clean files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from lilliput.artifact import TensorSpec
from lilliput.export.onnx_file import export_network
from lilliput.models.source import load_network

NETWORKS = Path(__file__).parents[2] / "benchmarks" / "networks"


@pytest.mark.data
@pytest.mark.parametrize(
    ("code", "weights", "shape", "operators"),
    [
        (
            "resnet_cifar.py:resnet20",
            "cifar10_resnet20",
            (3, 32, 32),
            {"Conv": 21, "Relu": 19, "Add": 9, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
        (
            "mlperf_tiny.py:resnet8",
            "mlperf_tiny_resnet8",
            (3, 32, 32),
            {"Conv": 9, "Relu": 7, "Add": 3, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
        ),
        (
            "carn_m.py:x2",
            "sr_carn_m",
            (3, 24, 16),
            {"Conv": 44, "Relu": 40, "Add": 9, "Concat": 12, "DepthToSpace": 1},
        ),
    ],
)
def test_they_leave_clean(
    code: str,
    weights: str,
    shape: tuple[int, ...],
    operators: dict[str, int],
    shared_data: Path,
    tmp_path: Path,
) -> None:
    """users-ask 21: no float copies, no clutter; what is left is the network."""
    (file,) = (shared_data / "models" / weights).glob("*.safetensors")
    inputs = (TensorSpec(name="", shape=(None, *shape), sample=(1, *shape)),)
    network = load_network(f"{NETWORKS / code}", weights=file, inputs=inputs)
    artifact = export_network(network, tmp_path / "net.onnx")
    model = onnx.load(artifact.path)
    kinds = [node.op_type for node in model.graph.node]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == operators
    stored = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert artifact.bytes < 4 * stored * 1.03 + 12_000

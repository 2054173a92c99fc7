"""ONNX Runtime's own static quantization, as its documentation uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lilliput.runtimes.quiet import quiet_telemetry

DEFAULTS: dict[str, Any] = {}
"""Signed activations and weights, one scale a tensor, min-max."""


def u8s8_per_channel(*, reduce_range: bool) -> dict[str, Any]:
    """Unsigned activations, a scale a channel; 7-bit weights where they are asked for."""
    quiet_telemetry()
    from onnxruntime.quantization import QuantType

    return {
        "per_channel": True,
        "reduce_range": reduce_range,
        "activation_type": QuantType.QUInt8,
        "weight_type": QuantType.QInt8,
    }


def quantize_static(
    source: Path, batches: list[np.ndarray], target: Path, settings: dict[str, Any]
) -> None:
    """Pre-process and quantize `source` to QDQ form in `target`."""
    quiet_telemetry()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter([{name: batch} for batch in batches])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(target),
        Reader(_input_name(source)),
        quant_format=quantization.QuantFormat.QDQ,
        **settings,
    )
    prepared.unlink()


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(path).graph.input[0].name)

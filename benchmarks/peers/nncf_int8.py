"""NNCF's post-training quantization with its defaults; runs in a virtual environment of its own.

    .venv-nncf/bin/python nncf_int8.py FLOAT.onnx CALIBRATION.npz OUT.onnx

The calibration file holds one array per batch (or picture), named 0, 1, 2, ...
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(source: str, calibration: str, target: str) -> None:
    # It keeps an analytics id in the home folder unless its telemetry cannot be imported.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import nncf
    import numpy as np
    import onnx

    held = np.load(calibration)
    batches = [held[str(n)] for n in range(len(held.files))]
    model = onnx.load(source)
    name = model.graph.input[0].name
    data = nncf.Dataset(batches, lambda batch: {name: batch})
    made = nncf.quantize(model, data, subset_size=len(batches))
    Path(target).write_bytes(made.SerializeToString())


if __name__ == "__main__":
    main(*sys.argv[1:])

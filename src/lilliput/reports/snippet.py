"""The code that loads a file and feeds it as it was measured, ready to be copied."""

from __future__ import annotations

from pathlib import Path

from lilliput.artifact import Artifact
from lilliput.meter.bfloat16 import as_meant
from lilliput.preprocessing import Preprocessing
from lilliput.target import Target


def loading_line(path: Path, target: Target) -> str:
    """The one line that opens the file in its runtime; a packed one is unpacked in memory.

    OpenVINO is told the precision: left to itself, it runs float files in bfloat16 on some CPUs.
    """
    runtime = target.runtime
    model = repr(str(path))
    if path.suffix == ".lil":
        model = f"bytes(lilliput.onnx_io.unpacked({model}))"
        if runtime == "openvino":
            model = f"openvino.Core().read_model({model})"
    if runtime == "openvino":
        how = {"INFERENCE_PRECISION_HINT": target.precision}
        return f"network = openvino.Core().compile_model({model}, 'CPU', {how!r})"
    return f"session = onnxruntime.InferenceSession({model})"


def loading_code(path: Path, artifact: Artifact, target: Target | None = None) -> str:
    """A whole program: open the file, turn pictures into its input, run it.

    Args:
        path: Where the file is.
        artifact: Its description: preprocessing and inputs are read from it.
        target: Where it was measured; OpenVINO's calls for that one, ONNX Runtime's for others.
    """
    where = as_meant(artifact.metadata, target or Target())
    name = "openvino" if where.runtime == "openvino" else "onnxruntime"
    inputs = artifact.metadata.inputs
    entry = inputs[0].name if inputs else "input"
    run = {
        "onnxruntime": f"outputs = session.run(None, {{{entry!r}: x}})",
        "openvino": f"outputs = network({{{entry!r}: x}})",
    }
    lines = [
        "import numpy as np",
        f"import {name}",
        *(["import lilliput.onnx_io"] if path.suffix == ".lil" else []),
        "",
        loading_line(path, where),
        *_input_lines(artifact),
        run[name],
    ]
    return "\n".join(lines)


def _input_lines(artifact: Artifact) -> list[str]:
    preprocessing, inputs = artifact.metadata.preprocessing, artifact.metadata.inputs
    shape = inputs[0].concrete(1) if inputs else (1,)
    if preprocessing is None or len(shape) != 4:
        dtype = inputs[0].dtype if inputs else "float32"
        return [f"x = np.zeros({shape}, np.{dtype})  # your input"]
    height, width = preprocessing.size or shape[2:]
    pictures = (1, height, width, preprocessing.channels)
    return [
        f"pictures = np.zeros({pictures}, np.uint8)  # yours: (N, height, width, channels), 0..255",
        f"x = {_formula(preprocessing)}",
        "x = np.ascontiguousarray(x.transpose(0, 3, 1, 2), np.float32)",
    ]


def _formula(preprocessing: Preprocessing) -> str:
    text = "pictures"
    if preprocessing.scale != 1.0:
        whole = 1.0 / preprocessing.scale
        exact = abs(whole - round(whole)) < 1e-9
        text += f" / {round(whole)}" if exact else f" * {preprocessing.scale!r}"
    if any(preprocessing.mean):
        text = f"({text} - np.array({list(preprocessing.mean)}))"
    if any(value != 1.0 for value in preprocessing.std):
        text = f"({text}) / np.array({list(preprocessing.std)})"
    return text

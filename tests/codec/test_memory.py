"""What unpacking takes, by the operating system's own account."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from lilliput.codec.container import encode

MEASURE = """
import re, sys
from pathlib import Path
from lilliput.codec.container import decode
# Of this process only: what getrusage tells begins with the peak of the one that started it.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
with Path(sys.argv[1]).open("rb") as packed:
    content = decode(packed)
print(peak() - before, len(content))
print(*[name for name in ("torch", "onnx", "onnxruntime") if name in sys.modules])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_unpacking_peaks_at_twice_the_model(model_of, tmp_path, kind):
    rng = np.random.default_rng(0)
    shape = (1024, 1024) if kind == "float32" else (512, 512, 4, 4)
    tensors = {f"w{n}": (9 * rng.standard_normal(shape)).astype(kind) for n in range(15)}
    content = model_of(tensors)
    path = tmp_path / "large.lil"
    path.write_bytes(encode(content)[0])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    figures, modules = done.stdout.splitlines()
    peak, length = map(int, figures.split())
    assert length == len(content)
    assert length < peak <= 2 * length
    assert modules == ""

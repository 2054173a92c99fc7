"""NNCodec's own lossy coding of float tensors; runs in a virtual environment of its own.

    .venv-nncodec/bin/python nncodec_lossy.py TENSORS.npz DECODED.npz QP

Its dependent (trellis-coded) quantization at the quantization parameter QP, everything else at
its defaults. Prints JSON: the bytes of its bitstream.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

from nncodec_exact import stub


def main(source: str, decoded: str, qp: str) -> None:
    stub("torchvision", "torchvision.models", "torchvision.transforms", "torchvision.datasets")
    import numpy as np

    # It prints as it goes, and its output is for people.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        from nncodec import nnc

        held = np.load(source)
        stream = nnc.compress(
            {name: held[name].copy() for name in held.files},
            bitstream_path=str(Path(folder, "tensors.nnc")),
            qp=int(qp),
            use_dq=True,
            return_bitstream=True,
        )
        np.savez(decoded, **nnc.decompress(stream))
    print(json.dumps({"bytes": len(stream)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""NNCodec's coding of integer tensors, bit for bit; runs in a virtual environment of its own.

    .venv-nncodec/bin/python nncodec_exact.py TENSORS.npz

Prints JSON: the bytes of its bitstream, seconds, and whether every tensor came back as it was.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import types
from contextlib import redirect_stdout
from pathlib import Path
from typing import ClassVar


class _Stub(types.ModuleType):
    """Stands in for torchvision, which only NNCodec's demonstrations use."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        if name[0].isupper():
            return type(name, (), {"__init__": lambda *_, **__: None})
        module = sys.modules[f"{self.__name__}.{name}"] = _Stub(f"{self.__name__}.{name}")
        return module

    def __call__(self, *_: object, **__: object) -> _Stub:
        return self


def stub(*names: str) -> None:
    for name in names:
        sys.modules[name] = _Stub(name)


def main(source: str) -> None:
    stub("torchvision", "torchvision.models", "torchvision.transforms", "torchvision.datasets")
    import numpy as np

    # It prints as it goes, and its output is for people.
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        from nncodec import nnc

        held = np.load(source)
        tensors = {name: held[name].astype(np.int32) for name in held.files}
        began = time.perf_counter()
        stream = nnc.compress(
            {name: tensor.copy() for name, tensor in tensors.items()},
            bitstream_path=str(Path(folder, "tensors.nnc")),
            qp=-38,
            use_dq=False,
            return_bitstream=True,
        )
        between = time.perf_counter()
        back = nnc.decompress(stream)
        ended = time.perf_counter()
    equal = all(np.array_equal(back[name], tensor) for name, tensor in tensors.items())
    print(
        json.dumps(
            {
                "bytes": len(stream),
                "encode_seconds": between - began,
                "decode_seconds": ended - between,
                "equal": equal,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

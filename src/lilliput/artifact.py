"""A file that a runtime opens, with what is needed to feed it and to trust it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from pydantic import Field

from lilliput.errors import LilliputError
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing

METADATA_KEY = "lilliput"


class TensorSpec(Noun):
    """An input or output of a file or network. Shapes exclude nothing: batch first; None = free.

    `sample` is the shape that latency is measured at (batch included) where `shape` is free.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    sample: tuple[int, ...] | None = None

    @property
    def batch(self) -> int | None:
        """The only batch size that it takes; None where it is free."""
        return self.shape[0] if self.shape else None

    def concrete(self, batch: int = 1) -> tuple[int, ...]:
        """The shape to run at: `sample` with the batch replaced, free dimensions read from it."""
        sample = self.sample or tuple(1 if size is None else size for size in self.shape)
        return (batch if self.batch is None else self.batch, *sample[1:])


class ArtifactMetadata(Noun):
    """What travels inside the file: how to feed it, where it comes from, what it was tuned for.

    `seed` divided the examples it was made from, where their source has no splits of its own.
    """

    task: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    inputs: tuple[TensorSpec, ...] = ()
    recipe: list[dict[str, Any]] = Field(default_factory=list)
    isa: tuple[str, ...] = ()
    parent: str | None = None
    precision: str = "fp32"
    seed: int = Field(0, exclude_if=lambda seed: seed == 0)
    version: str = ""


class Artifact(Noun):
    """A file on disk. `bytes` and `sha256` are of that file, taken when the object was made.

    `facts` is what its maker found out (exporter, opset, deviation from torch, coverage); it is
    kept beside the file, never inside, so that equal networks give equal bytes.
    """

    path: Path
    format: str
    bytes: int
    sha256: str
    metadata: ArtifactMetadata = Field(default_factory=ArtifactMetadata)
    facts: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def of(cls, path: Path | str, *, metadata: ArtifactMetadata | None = None) -> Artifact:
        """Describe the file at `path`; its metadata is read from the file unless it is given."""
        path = Path(path)
        if not path.is_file():
            raise LilliputError(f"no file at {str(path)!r}", hint="check the path")
        content = path.read_bytes()
        form = path.suffix.lstrip(".").lower()
        if metadata is None:
            metadata = read_metadata(path)
        return cls(
            path=path,
            format=form,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            metadata=metadata,
        )


def read_metadata(path: Path) -> ArtifactMetadata:
    """The lilliput metadata inside an ONNX file, plain or packed; empty if made elsewhere."""
    if path.suffix not in (".onnx", ".lil"):
        return ArtifactMetadata()
    from lilliput.onnx_io import get_metadata, read_model

    return get_metadata(read_model(path))

"""What models lose that are no files yet."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Split
from lilliput.meter.candidates import Yardstick
from lilliput.onnx_io import write_model

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Trials:
    """Scores models in the target's runtime, each as a file in `folder` that the next replaces.

    `reference` is the file that they are held against, on the examples of `split`.
    """

    reference: Artifact
    split: Split
    context: Context
    folder: Path

    @cached_property
    def _yardstick(self) -> Yardstick:
        return Yardstick.of(self.reference, self.split, self.context)

    def drop(self, model: onnx.ModelProto) -> float:
        """What the model loses of the metric against the reference, in its unit."""
        path = write_model(model, self.folder / "trial.onnx")
        trial = Candidate("trial", artifact=Artifact.of(path, metadata=self.reference.metadata))
        return self._yardstick.judge(trial, self.context).value("drop")

"""TensorBoard: event files in the run's folder, the run's own and one log for each candidate."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from lilliput.track.base import TRACKERS, Setting

FOLDER = "tensorboard"

TEXTS = {".md": "{}", ".yaml": "```yaml\n{}\n```"}
"""Documents that are shown, as Markdown; the others lie in the run's folder anyway."""


@TRACKERS.register("tensorboard")
class TensorBoard:
    """See `lilliput.track.base.Tracker`. `tensorboard --logdir runs` shows all runs.

    tensorboardX writes the files, which needs neither torch nor TensorBoard itself.
    """

    package: ClassVar[str] = "tensorboardX"
    extra: ClassVar[str] = "tensorboard"

    def __init__(
        self,
        run: Path,
        settings: Mapping[str, Setting],  # noqa: ARG002  # the recipe itself is shown
        stored: Mapping[str, str],
    ) -> None:
        self._folder = run / FOLDER
        there = bool(stored) and self._folder.is_dir()
        self.stored = dict(stored) if there else {"begun": datetime.now(UTC).isoformat()}
        self._writer = self._open(self._folder)

    def curve(self, name: str, value: float, step: int, when: datetime) -> None:
        self._writer.add_scalar(name, value, step, walltime=when.timestamp())
        self._writer.flush()

    def candidate(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        when: datetime,
    ) -> None:
        from tensorboardX.summary import hparams

        with self._open(self._folder / name) as writer:
            # The session alone: which figures the table compares, TensorBoard finds out itself.
            _, session, _ = hparams(dict(settings), {})
            writer.file_writer.add_summary(session)
            for key, value in figures.items():
                if math.isfinite(value):
                    writer.add_scalar(key, value, 0, walltime=when.timestamp())

    def remark(self, name: str, text: str) -> None:
        self._writer.add_text(name, text)

    def document(self, path: Path) -> None:
        if form := TEXTS.get(path.suffix):
            self._writer.add_text(path.stem, form.format(path.read_text(encoding="utf-8")))

    def end(self, *, finished: bool) -> None:  # noqa: ARG002  # event files have no end
        self._writer.close()

    def _open(self, folder: Path) -> Any:
        from tensorboardX import SummaryWriter

        # The name has the second in it alone, and a file of the same name would be replaced.
        return SummaryWriter(str(folder), filename_suffix=f".{time.time_ns()}")

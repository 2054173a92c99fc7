"""Why is a file not faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lilliput.errors import LilliputError
from lilliput.meter import explain as engine
from lilliput.meter.widths import WidthProfile, width_profile
from lilliput.target import Target

if TYPE_CHECKING:
    from lilliput.meter.explanation import Explanation


def explain(file: Path | str, *, target: str | Target = "onnxruntime") -> Explanation:
    """Where a file's time goes on a target, what runs in int8, and what would help.

    Args:
        file: An ONNX file.
        target: A runtime's name, or a whole Target.

    Raises:
        Refused: The runtime does not report times per operator.
        LilliputError: The file cannot be opened.
    """
    where = Target.parse(target) if isinstance(target, str) else target
    return engine.explain(file, where, widths=_grid(where))


def _grid(target: Target) -> WidthProfile | None:
    """The target's measured widths; None for a runtime whose widths cannot be measured."""
    try:
        return width_profile(target)
    except LilliputError:
        return None

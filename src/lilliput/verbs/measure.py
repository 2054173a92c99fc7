"""Time files side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lilliput.artifact import ArtifactMetadata, read_metadata
from lilliput.columns import aligned
from lilliput.context import Progress
from lilliput.errors import LilliputError
from lilliput.meter.bfloat16 import as_meant
from lilliput.meter.host import clips_here, fingerprint, timed_elsewhere
from lilliput.meter.readings import Timing
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.target import Target
from lilliput.units import format_bytes, format_ms


@dataclass(frozen=True)
class Measured:
    """Latency of files that were timed in turn, and how each compares with the first.

    `warnings` are of files that were made for another class of CPU.
    """

    timings: Mapping[str, Timing]
    sizes: Mapping[str, int]
    target: Target
    machine: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def __getitem__(self, file: Path | str) -> Timing:
        return self.timings[str(file)]

    def __str__(self) -> str:
        head = ["file", "median", "95 % interval", "p90", "speed", "", "size", "load"]
        lines = [head, *(self._cells(name, timing) for name, timing in self.timings.items())]
        doubts = [
            f"{name}: unstable: {reason}"
            for name, timing in self.timings.items()
            for reason in timing.conditions.get("unstable_because", ())
        ]
        where = f"{self.target.label} on {self.machine.get('cpu')} ({self.machine.get('isa')})"
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([*aligned(lines), *doubts, *warnings, where])

    def _cells(self, name: str, timing: Timing) -> list[str]:
        low, high = timing.interval_ms
        slow, fast = timing.ratio_interval
        compared = len(self.timings) > 1
        speed = f"{1 / timing.ratio:.2f}× [{1 / fast:.2f}, {1 / slow:.2f}]" if compared else ""
        is_first = name == next(iter(self.timings))
        verdict = "" if not compared else "the first" if is_first else timing.verdict
        return [
            name,
            format_ms(timing.median_ms),
            f"[{format_ms(low).removesuffix(' ms')}, {format_ms(high).removesuffix(' ms')}]",
            format_ms(timing.p90_ms),
            speed,
            verdict,
            format_bytes(self.sizes[name]),
            format_ms(timing.conditions["load_ms"]) if "load_ms" in timing.conditions else "",
        ]

    def as_json(self) -> dict[str, Any]:
        """Every figure as plain values."""
        files = {
            name: {**timing.model_dump(mode="json"), "bytes": self.sizes[name]}
            for name, timing in self.timings.items()
        }
        return {
            "target": self.target.model_dump(mode="json"),
            "machine": dict(self.machine),
            "reference": next(iter(files)),
            "files": files,
            "warnings": list(self.warnings),
        }


def measure(
    files: Path | str | Sequence[Path | str],
    *,
    target: str | Target = "onnxruntime",
    batch: int = 1,
    max_seconds: float = 20.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Measured:
    """Time files side by side on a target; ratios refer to the first one.

    Args:
        files: One file or several; what they are called here is what they are called in the result.
        target: A runtime's name ("openvino:bf16" with a precision), or a whole Target.
        batch: Batch size, where a file leaves it free.
        max_seconds: Time for all of them; it ends sooner when the intervals are narrow.
        seed: Of the order of turns.
        progress: Watches.

    Raises:
        LilliputError: No files, one twice, or one that the runtime cannot open.
    """
    paths = [files] if isinstance(files, (str, Path)) else [*files]
    named = {str(path): Path(path) for path in paths}
    if not named:
        raise LilliputError("no file to measure", hint="lilliput measure original.onnx small.onnx")
    if len(named) < len(paths):
        raise LilliputError("a file was named twice; the noise floor is found by itself")
    where = Target.parse(target) if isinstance(target, str) else target
    said = {name: _said(path) for name, path in named.items()}
    timings = compare_files(
        {name: (path, as_meant(said[name], where)) for name, path in named.items()},
        next(iter(named)),
        Pace(max_seconds=max_seconds),
        batch=batch,
        seed=seed,
        progress=progress,
    )
    sizes = {name: path.stat().st_size for name, path in named.items()}
    warnings = tuple(
        f"{name}: {why}"
        for name, metadata in said.items()
        if (why := clips_here(metadata) or timed_elsewhere(metadata)) is not None
    )
    return Measured(timings, sizes, where, fingerprint(), warnings)


def _said(path: Path) -> ArtifactMetadata:
    """What a file says of itself; nothing where only its runtime can read it."""
    with suppress(LilliputError):
        return read_metadata(path)
    return ArtifactMetadata()

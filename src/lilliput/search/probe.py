"""What architectures cost on the target, measured before anything is trained.

The latency of a network does not depend on the values of its weights, so an untrained cut network
tells the time of the trained one. Each is written as a float file and as an int8 file with coarse
ranges; both are timed in one session with the original's float file, and the faster one counts,
since that is what would be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lilliput.context import Context
from lilliput.encode.coarse import coarse_int8
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.meter.loads import loaded_once
from lilliput.meter.stopwatch import Pace, collect
from lilliput.network import Network
from lilliput.noun import Noun
from lilliput.target import Target

REFERENCE = "original/float"
ROUNDS = 15
BURST = 6
"""Enough for a few percent, which is all that a screening needs: finalists are timed properly."""


class Probe(Noun):
    """One architecture's price: medians in milliseconds, lengths of files in bytes.

    `ratio` is the faster file's time relative to the original's float file in the same session:
    compare architectures by it, since milliseconds of different sessions do not compare.
    """

    float_ms: float
    float_bytes: int
    int8_ms: float | None = None
    int8_bytes: int | None = None
    ratio: float

    @property
    def best_ms(self) -> float:
        return min(self.float_ms, self.int8_ms or self.float_ms)

    @property
    def least_bytes(self) -> int:
        return min(self.float_bytes, self.int8_bytes or self.float_bytes)


def probe(networks: Mapping[str, Network], original: Network, context: Context) -> dict[str, Probe]:
    """Measure untrained architectures side by side on the target: {key: Probe}."""
    with TemporaryDirectory(prefix="lilliput-probe-") as folder:
        files: dict[str, Path] = {}
        for number, (key, network) in enumerate(
            context.progress.track(
                [("original", original), *networks.items()],
                label="exporting architectures",
                total=len(networks) + 1,
            )
        ):
            base = Path(folder) / f"{number}"
            files[f"{key}/float"] = export_network(network, base.with_suffix(".onnx")).path
            try:
                files[f"{key}/int8"] = coarse_int8(
                    files[f"{key}/float"], base.with_suffix(".int8.onnx")
                )
            except LilliputError as error:
                context.journal.note("no int8 probe", architecture=key, error=str(error))
        medians = _median_ms(files, context)
        return {key: _of(key, files, medians) for key in networks}


def least_ms(file: Path, target: Target) -> float:
    """The fastest of a few runs on the target of a float file, or of its int8 form, in a second.

    Raises:
        LilliputError: The target's runtime is not here, or does not take the file.
    """
    with TemporaryDirectory(prefix="lilliput-probe-") as folder:
        files = {"float": file}
        with suppress(LilliputError):
            files["int8"] = coarse_int8(file, Path(folder) / "int8.onnx")
        with loaded_once(files, target) as sessions:
            readings = collect(sessions, "float", Pace(min_rounds=ROUNDS, max_seconds=1.0))
    return min(float(runs.min()) for runs in readings.runs.values()) / 1e6


def _median_ms(files: Mapping[str, Path], context: Context) -> dict[str, float]:
    """Median milliseconds of every file, from interleaved bursts."""
    with loaded_once(files, context.target) as sessions:
        readings = collect(
            sessions,
            REFERENCE,
            Pace(min_rounds=ROUNDS, max_seconds=0.0, burst=BURST),
            seed=context.derived_seed("probe") % 2**32,
            progress=context.progress,
        )
    return {name: float(np.median(runs)) / 1e6 for name, runs in readings.runs.items()}


def _of(key: str, files: Mapping[str, Path], medians: Mapping[str, float]) -> Probe:
    ours = {kind: f"{key}/{kind}" for kind in ("float", "int8") if f"{key}/{kind}" in files}
    sizes = {kind: files[name].stat().st_size for kind, name in ours.items()}
    return Probe(
        float_ms=medians[ours["float"]],
        float_bytes=sizes["float"],
        int8_ms=medians[ours["int8"]] if "int8" in ours else None,
        int8_bytes=sizes.get("int8"),
        ratio=min(medians[name] for name in ours.values()) / medians[REFERENCE],
    )

"""What architectures cost on the target, measured before anything is trained.

The latency of a network does not depend on the values of its weights, so an untrained cut network
tells the time of the trained one. Each is written as a float file and as an int8 file with coarse
ranges; both are timed in one session with the original's float file, and the faster one counts,
since that is what would be delivered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from lilliput.context import Context
from lilliput.encode.coarse import coarse_int8
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.meter.stopwatch import compare_files
from lilliput.network import Network
from lilliput.noun import Noun

SECONDS_A_NETWORK = 1.5


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


def probe(
    networks: Mapping[str, Network], original: Network, context: Context
) -> dict[str, Probe]:
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
                    files[f"{key}/float"], base.with_suffix(".int8.onnx"), context.target
                )
            except LilliputError as error:
                context.journal.note("no int8 probe", architecture=key, error=str(error))
        timings = compare_files(
            {name: (path, context.target) for name, path in files.items()},
            "original/float",
            max_seconds=max(5.0, SECONDS_A_NETWORK * len(files)),
            min_rounds=20,
            seed=context.derived_seed("probe") % 2**32,
            progress=context.progress,
        )
        return {key: _of(key, files, timings) for key in networks}


def _of(key: str, files: Mapping[str, Path], timings: Mapping[str, object]) -> Probe:
    ours = {kind: f"{key}/{kind}" for kind in ("float", "int8") if f"{key}/{kind}" in files}
    ms = {kind: timings[name].median_ms for kind, name in ours.items()}  # type: ignore[attr-defined]
    ratios = [timings[name].ratio for name in ours.values()]  # type: ignore[attr-defined]
    return Probe(
        float_ms=ms["float"],
        float_bytes=files[ours["float"]].stat().st_size,
        int8_ms=ms.get("int8"),
        int8_bytes=files[ours["int8"]].stat().st_size if "int8" in ours else None,
        ratio=min(ratios),
    )

"""Peak memory of running a file, taken in a fresh process that does nothing else."""

from __future__ import annotations

from pathlib import Path

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.hosted import Host, Hosted
from lilliput.runtimes.opening import check_can_open, random_feeds
from lilliput.target import Target

_MODULES = {"onnxruntime": "lilliput.runtimes.ort", "null": "lilliput.runtimes.null"}


def peak_rss_mb(path: Path | str, target: Target, *, batch: int = 1) -> Measurement:
    """Most resident memory (MB, 10^6 bytes) that a process reaches by loading and running a file.

    `conditions["added_mb"]` is how much of it came on top of the bare interpreter: the runtime's
    library, the file, its buffers.
    """
    path = Path(path)
    runtime = RUNTIMES[target.runtime]
    check_can_open(runtime, path, target)
    if isinstance(runtime, Hosted):
        host = runtime.start(target.threads)
    elif target.runtime in _MODULES:
        host = Host(target.runtime, _MODULES[target.runtime])
    else:
        raise LilliputError(f"memory cannot be measured in the runtime {target.runtime!r}")
    try:
        before = _peak(host, path)
        message = {"session": 1, "path": str(path.resolve())}
        facts, _ = host.ask(
            {"do": "load", "target": target.model_dump(mode="json"), **message}, file=path.name
        )
        specs = [TensorSpec.model_validate(spec) for spec in facts["inputs"]]
        host.ask({"do": "run", "session": 1}, random_feeds(specs, batch=batch), file=path.name)
        peak = _peak(host, path)
    finally:
        host.close()
    return Measurement(
        quantity="peak_memory",
        value=peak * 1e-6,
        unit="MB",
        conditions={**facts["conditions"], "batch": batch, "added_mb": (peak - before) * 1e-6},
    )


def _peak(host: Host, path: Path) -> int:
    facts, _ = host.ask({"do": "peak"}, file=path.name)
    return int(facts["peak_bytes"])

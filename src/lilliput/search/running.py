"""Which layers are faster in another form, by the stopwatch: each is timed within its network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from lilliput.context import Context
from lilliput.export.onnx_file import export_network
from lilliput.meter.stopwatch import Pace, Timing, compare_files
from lilliput.network import Network

SECONDS_EACH = 6.0
SPATIAL = "as it is"


def timed_within(
    changed: Mapping[str, Network], network: Network, context: Context
) -> dict[str, Timing]:
    """Time networks that differ from `network` in one place each, all in one session on the target.

    A layer by itself would be timed with conversions of its input and output that it does not have
    in its network. No network needs to be trained: time does not depend on weights.
    """
    with TemporaryDirectory(prefix="lilliput-running-") as folder:
        files = {
            name: (export_network(each, Path(folder) / f"{number}.onnx").path, context.target)
            for number, (name, each) in enumerate(
                context.progress.track(
                    [(SPATIAL, network), *changed.items()],
                    label="exporting forms of layers",
                    total=len(changed) + 1,
                )
            )
        }
        return compare_files(
            files,
            SPATIAL,
            Pace(max_seconds=SECONDS_EACH * len(files)),
            seed=context.derived_seed("running forms") % 2**32,
            progress=context.progress,
        )

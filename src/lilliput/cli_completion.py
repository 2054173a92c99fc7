"""What the Tab key offers: names that are known here, looked up only when it is pressed.

Where nothing is offered the shell completes file names, as for every file and recipe.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def targets(incomplete: str) -> list[str]:
    """Runtimes."""
    from lilliput.runtimes.base import RUNTIMES

    return _beginning(incomplete, RUNTIMES)


def data_sets(incomplete: str) -> list[str]:
    """Named sets; what is typed on beyond them is a path."""
    from lilliput.data.sources.named import NAMED

    return _beginning(incomplete, NAMED)


def tasks(incomplete: str) -> list[str]:
    """Tasks."""
    from lilliput.tasks.base import TASKS

    return _beginning(incomplete, TASKS)


def trackers(incomplete: str) -> list[str]:
    """Where a run can be shown."""
    from lilliput.track import TRACKERS

    return _beginning(incomplete, TRACKERS)


def splits(incomplete: str) -> list[str]:
    """What a file can be scored on."""
    return _beginning(incomplete, ("test", "validation", "train", "calibration"))


def runs(incomplete: str) -> list[str]:
    """Runs in the folder that was typed; before one was, those in ./runs and here.

    Names that a shell would have to quote are not offered: shells evaluate what they are given.
    """
    from lilliput.runs.folder import RUNS, is_run

    typed, slash, _ = incomplete.rpartition("/")
    found: list[str] = []
    for place in [f"{typed}/"] if slash else [f"{RUNS}/", ""]:
        # No such folder, or none that may be read: nothing to offer.
        with suppress(OSError):
            found += [f"{place}{p.name}" for p in Path(place or ".").iterdir() if is_run(p)]
    return _beginning(incomplete, (name for name in found if shlex.quote(name) == name))


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))

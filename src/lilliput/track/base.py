"""What every place that shows a run must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Protocol

from lilliput.errors import Missing
from lilliput.registry import Registry
from lilliput.runtimes.opening import installed_version

Setting = str | float | bool


class Tracker(Protocol):
    """One run, as it is shown elsewhere.

    `package` is the distribution of the client, `extra` our extra that installs it. Importing the
    class costs nothing; the client is imported when a run is begun.

    What was told just before a kill may be told again after `resume`; it must then show once, or
    twice the same.

    Args:
        run: The run's folder.
        settings: The recipe, flat: {"budget.max_drop": 1.0}.
        stored: What `stored` held when this run was last tracked; {} at first. If the place has
            nothing of that any more, a new one is begun and `stored` differs.

    Raises:
        LilliputError: The place cannot be reached.
    """

    package: ClassVar[str]
    extra: ClassVar[str]

    stored: dict[str, str]

    def __init__(
        self, run: Path, settings: Mapping[str, Setting], stored: Mapping[str, str]
    ) -> None: ...

    def curve(self, name: str, value: float, step: int, when: datetime) -> None:
        """One more point of a curve."""

    def candidate(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        when: datetime,
    ) -> None:
        """A network or file, how it came to be, and the figures that are new or have changed."""

    def remark(self, name: str, text: str) -> None:
        """A fact about the run as a whole."""

    def document(self, path: Path) -> None:
        """A file of the run that people read."""

    def end(self, *, finished: bool) -> None:
        """The session is over; unless `finished`, another may follow."""


TRACKERS: Registry[type[Tracker]] = Registry("tracker", "lilliput.track")


def chosen(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """The trackers of these names, known to be installed.

    Raises:
        LilliputError: There is no such tracker.
        Missing: Its client is not installed.
    """
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names or ()))
    for name in wanted:
        tracker = TRACKERS[name]
        if installed_version(tracker.package) is None:
            raise Missing(
                f"tracking with {name} needs {tracker.package}, which is not installed",
                hint=f'pip install "lilliput[{tracker.extra}]"',
            )
    return wanted

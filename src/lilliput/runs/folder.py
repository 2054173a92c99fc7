"""The folder that a run leaves: what was asked, where it ran, what happened, what came of it.

recipe.yaml        the run as a recipe; written last of all when a run begins, so that a
                   folder with a recipe is a run
environment.json   machine, versions, command
journal.jsonl      what happened, line by line: the truth
networks/ files/   weights of networks on their way; deployable files
checkpoints/       trainings that are under way, and what their teacher answered
samples/           a few examples, and what the original and the recommended file made of them
report.md report.html report.json front.csv best.<ext>   made from the journal, any time again
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import yaml
from pydantic import ValidationError

from lilliput.artifact import Artifact
from lilliput.atomic import is_unfinished, sweep, write_atomically, writing
from lilliput.budget import Budget
from lilliput.errors import LilliputError
from lilliput.runs import lock
from lilliput.runs.cache import digest_of
from lilliput.runs.history import History
from lilliput.runs.journal import JournalFile, read_entries

RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
JOURNAL = "journal.jsonl"
RUNS = Path("runs")
SESSION = "session"

CHOICES = ("deliver",)
"""Settings of stages that only choose among what was found: they may change as a run goes on."""


class Dumpable(Protocol):
    """Whatever a run can be made from again: its text goes into `recipe.yaml`."""

    def placed(self, home: Path) -> Dumpable:
        """The same with relative paths, which begin at `home`, made absolute."""

    def dump(self) -> str: ...


@dataclass(frozen=True)
class RunFolder:
    """A run on disk. `create` and `open` lock it; `look` reads it, whoever works in it."""

    path: Path
    _release: tuple[Callable[[], None], ...] = field(default=(), repr=False)

    @classmethod
    def create(
        cls, path: Path | str | None, recipe: Dumpable, *, model_name: str = "network"
    ) -> RunFolder:
        """Begin a run in a new folder, by default `runs/<model_name>-<date>-<time>`.

        Raises:
            LilliputError: The folder holds a run or anything else, or another process has it.
            CannotWrite: The disk is full or read-only.
        """
        folder = default_path(model_name) if path is None else Path(path)
        _check_free(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        locked = lock.acquire(folder)
        run = cls(folder, (locked.release,))
        try:
            _check_free(folder)
            run._prepare()
            found = json.dumps(environment(), indent=2)
            write_atomically(folder / ENVIRONMENT, found.encode())
            # The recipe works from where it lies, whatever folder the next command is given in.
            write_atomically(folder / RECIPE, recipe.placed(Path.cwd()).dump().encode())
            run._begin_session()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Go on with a run that was begun.

        Raises:
            LilliputError: There is no run, its journal was changed, or another process has it.
            CannotWrite: The disk is full or read-only.
        """
        folder = _the_run(Path(path))
        locked = lock.acquire(folder)
        run = cls(folder, (locked.release,))
        try:
            run._prepare()
            run._begin_session()
        except BaseException:
            run.close()
            raise
        return run

    @classmethod
    def look(cls, path: Path | str) -> RunFolder:
        """The run at `path`, to be read only: its `journal` is not to be used.

        Raises:
            LilliputError: There is no run.
        """
        return cls(_the_run(Path(path)))

    @property
    def recipe(self) -> Path:
        return self.path / RECIPE

    @property
    def networks(self) -> Path:
        return self.path / "networks"

    @property
    def files(self) -> Path:
        return self.path / "files"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def answers(self) -> Path:
        return self.checkpoints / "answers"

    @property
    def report(self) -> Path:
        return self.path / "report.md"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @cached_property
    def journal(self) -> JournalFile:
        """The journal, for writing.

        Raises:
            LilliputError: The folder was opened with `look`.
        """
        if not self._release:
            raise LilliputError(f"the run {self.name!r} is open for reading only")
        return JournalFile(self.path / JOURNAL)

    def history(self) -> History:
        """What the journal says, as far as it is on disk now.

        Raises:
            LilliputError: A line of the journal was changed.
        """
        return History.of(read_entries(self.path / JOURNAL))

    def environment(self) -> dict[str, Any]:
        """Machine, versions and command of the session that began the run; {} if unreadable."""
        try:
            found = json.loads((self.path / ENVIRONMENT).read_bytes())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def write(self, name: str, content: str) -> Path:
        """Put a text file into the folder, whole or not at all; returns its path."""
        # Names of files need not be text.
        write_atomically(self.path / name, content.encode(errors="backslashreplace"))
        return self.path / name

    def deliver(self, best: Artifact) -> Path:
        """Copy the recommended file to `best.<ext>`, in place of an older one; returns its path.

        What somebody else has put there under such a name stays.

        Raises:
            LilliputError: The file was changed since it was made.
        """
        content = best.path.read_bytes()
        if Artifact.of(best.path, metadata=best.metadata).sha256 != best.sha256:
            raise LilliputError(
                "this file is not the one that was measured", at=str(best.path), hint=REDO
            )
        target = self.path / f"best{best.path.suffix}"
        write_atomically(target, content)
        for other in self.path.glob("best.*"):
            if other != target and other.is_file() and self._delivered(other):
                other.unlink()
        return target

    def _delivered(self, file: Path) -> bool:
        """Whether the file is a copy of one of the run's."""
        content = file.read_bytes()
        own = (f for f in self.files.glob(f"*{file.suffix}") if f.stat().st_size == len(content))
        return any(f.read_bytes() == content for f in own)

    def settings(self) -> dict[str, Any]:
        """The recipe as plain values: what a report shows of it without knowing any stage."""
        try:
            found = yaml.safe_load(self.recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            return {}
        return found if isinstance(found, dict) else {}

    def budget(self) -> Budget:
        """The recipe's limits; none where it has none that can be read."""
        try:
            return Budget.model_validate(self.settings().get("budget") or {})
        except ValidationError:
            return Budget()

    def _prepare(self) -> None:
        """Make the folders, and clear away what a killed process had half written."""
        parts = (self.networks, self.files, self.checkpoints)
        for part in parts:
            with writing(part):
                part.mkdir(exist_ok=True)
        for folder in (self.path, *parts, self.path / "samples", self.answers):
            sweep(folder)

    def _begin_session(self) -> None:
        recipe = hashlib.sha256(self.recipe.read_bytes()).hexdigest()
        asked = digest_of({"asked": _without_choices(self.settings())})
        begun = [e.facts for e in self.journal.entries if e.event == SESSION]
        if begun and begun[0].get("recipe") != recipe and begun[0].get("asked") != asked:
            again = f"lilliput run {shlex.quote(str(self.recipe))}"
            raise LilliputError(
                "the recipe was edited since this run began; what is done would not fit it",
                at=str(self.recipe),
                hint=f"run the edited one as a new run: {again}; "
                f"what may change in a run is `{CHOICES[0]}`",
            )
        self.journal.note(SESSION, recipe=recipe, asked=asked, **environment())

    def close(self) -> None:
        """Close the journal and let other processes in."""
        if "journal" in self.__dict__:
            self.journal.close()
        for release in self._release:
            release()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


REDO = "delete the line of the journal that made it and all after it, then `lilliput resume`"


def environment() -> dict[str, Any]:
    """Machine, versions, command and folder of this process."""
    from lilliput.meter.host import fingerprint

    return {**fingerprint(), "command": command(), "folder": str(Path.cwd())}


def command() -> str:
    """The command line of this process, fit to be pasted into a shell."""
    program, *rest = sys.argv or ["python"]
    return shlex.join([Path(program).name or "python", *rest])


def default_path(model_name: str, *, root: Path = RUNS, now: datetime | None = None) -> Path:
    """`runs/<model>-<yyyymmdd-hhmmss>`, with a number behind it if that is taken."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name).strip("-.") or "network"
    stem = f"{safe}-{now or datetime.now():%Y%m%d-%H%M%S}"
    path = root / stem
    number = 2
    while path.exists():
        path = root / f"{stem}-{number}"
        number += 1
    return path


def is_run(path: Path) -> bool:
    """Whether this folder holds a run."""
    return (path / RECIPE).is_file() and (path / ENVIRONMENT).is_file()


def _without_choices(plain: Any) -> Any:
    """Values of a recipe without the settings that may change."""
    if isinstance(plain, dict):
        return {str(k): _without_choices(v) for k, v in plain.items() if k not in CHOICES}
    return [_without_choices(each) for each in plain] if isinstance(plain, list) else str(plain)


def _the_run(path: Path) -> Path:
    if not is_run(path):
        hint = "`lilliput list` shows the runs of this folder"
        raise LilliputError(f"no run at {str(path)!r}", hint=hint)
    return path


def _check_free(folder: Path) -> None:
    """Refuse a folder that holds anything but the traces of a run that never began."""
    if is_run(folder):
        raise LilliputError(
            "this folder already holds a run",
            at=str(folder),
            hint=f"go on with it: lilliput resume {shlex.quote(str(folder))}; "
            "or give another folder: --out NEW",
        )
    if folder.exists() and not folder.is_dir():
        raise LilliputError("this is a file, not a folder", at=str(folder), hint="give --out NEW")
    ours = {ENVIRONMENT, lock.LOCK, lock.HOLDER, "networks", "files", "checkpoints"}
    found = folder.iterdir() if folder.exists() else ()
    others = [p.name for p in found if p.name not in ours and not is_unfinished(p)]
    if others:
        raise LilliputError(
            f"this folder is not empty ({', '.join(sorted(others)[:3])}) and holds no run",
            at=str(folder),
            hint="give a new folder: --out NEW",
        )

"""What every claim shares: its shape, whether its goals hold, its conditions, its file, its table.

A claim is a module `benchmarks/claims/<name with underscores>.py` with

    def run(options: Options) -> Claim          # does the work; `options.smoke` in about a minute
    def verify(options: Options) -> Claim       # optional: measures the committed files again

The module fills in `says`, `rows`, `peers` and `files`; machine, versions, command, date and
seconds are added here. Whether a goal holds is computed from the figure, never typed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import operator
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, computed_field, model_validator

from lilliput.errors import LilliputError, nearest
from lilliput.measurement import Measurement
from lilliput.meter import host

HOME = Path(__file__).parent
ROOT = HOME.parent
ARTIFACT_LIMIT = 1_000_000
_GOAL = re.compile(r"\s*(<=|>=|<|>|==)\s*([-+0-9.eE]+)\s*")
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


def say(line: str) -> None:
    """Print at once: claims run with their output in a file."""
    print(line, flush=True)


class Row(BaseModel):
    """One figure of a claim.

    `goal` is a comparison with a number ("<= 0.7"); None for a figure that is only stated.
    `isa` names the instruction-set class that the goal is for ("avx2", "vnni", ...); such a row
    is judged on a machine of that class only. `figure` is None while a row is open: no machine of
    its class has run it. `limits` says what stands in the way of a goal that was missed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    figure: float | None
    unit: str = ""
    interval: tuple[float, float] | None = None
    goal: str | None = None
    seeds: int | None = None
    isa: str | None = None
    limits: str | None = None
    note: str | None = None
    machine: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _never_typed(cls, value: Any) -> Any:
        """Drop a stored `holds`: it is computed again."""
        if isinstance(value, Mapping):
            return {key: entry for key, entry in value.items() if key != "holds"}
        return value

    @model_validator(mode="after")
    def _goal_is_readable(self) -> Row:
        if self.goal is not None and not _GOAL.fullmatch(self.goal):
            raise ValueError(f"row {self.name!r}: goal {self.goal!r} is not like '<= 0.7'")
        return self

    @computed_field  # type: ignore[prop-decorator]
    @property
    def holds(self) -> bool | None:
        """Whether the figure meets the goal; None where there is no goal or no figure yet."""
        if self.goal is None or self.figure is None:
            return None
        match = _GOAL.fullmatch(self.goal)
        assert match is not None
        return _COMPARE[match[1]](self.figure, float(match[2]))

    @classmethod
    def of(cls, name: str, measurement: Measurement, **more: Any) -> Row:
        """A row from a measurement: its value, unit and interval."""
        return cls(
            name=name,
            figure=measurement.value,
            unit=measurement.unit,
            interval=measurement.interval,
            **more,
        )


class Peer(BaseModel):
    """Another tool's figures for the same thing, taken in the same claim."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rows: tuple[Row, ...]


class CommittedFile(BaseModel):
    """A file that anyone can measure again; `path` is relative to the repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    sha256: str
    bytes: int


class Claim(BaseModel):
    """A claim with its figures; see `docs` of this module for who fills in what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    claim: str = ""
    says: str
    rows: tuple[Row, ...]
    peers: tuple[Peer, ...] = ()
    files: dict[str, CommittedFile] = {}
    conditions: dict[str, Any] = {}

    @property
    def missed(self) -> tuple[Row, ...]:
        """The rows whose goal is not met."""
        return tuple(row for row in self.rows if row.holds is False)


@dataclass(frozen=True)
class Options:
    """What a claim is asked to do and where it may work.

    `work` is a folder of the claim's own that survives between runs: checkpoints of long loops go
    there. `seeds` are the seeds to repeat with.
    """

    name: str
    smoke: bool = False
    seeds: tuple[int, ...] = (0, 1, 2)
    home: Path = HOME
    log: Callable[[str], None] = say

    @property
    def work(self) -> Path:
        folder = self.home / "work" / (self.name + ("-smoke" if self.smoke else ""))
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def parts(self) -> Path:
        """Where finished parts of a claim that takes many hours are kept until it has a result.

        They may be committed: then another machine goes on where this one had to stop.
        """
        if self.smoke:
            return self.work
        folder = self.home / "parts" / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def data(self) -> Path:
        """The folder of data sets and pretrained networks; raises `LilliputError` without one."""
        named = os.environ.get("LILLIPUT_DATA")
        folder = Path(named) if named else self.home.parent.parent / "shared" / "data"
        if not folder.is_dir():
            raise LilliputError(
                f"no data at {str(folder)!r}", hint="set LILLIPUT_DATA to the folder of data"
            )
        return folder

    def commit(self, path: Path, name: str) -> CommittedFile:
        """Copy a deliverable to `artifacts/` under `name`; a smoke run's stays where it is."""
        if not self.smoke:
            kept = self.home / "artifacts" / name
            if path.stat().st_size > ARTIFACT_LIMIT:
                raise LilliputError(
                    f"{name!r} has {path.stat().st_size} bytes; committed files have at most "
                    f"{ARTIFACT_LIMIT}"
                )
            kept.parent.mkdir(parents=True, exist_ok=True)
            if kept.resolve() != path.resolve():
                shutil.copyfile(path, kept)
            path = kept
        content = path.read_bytes()
        shown = path.resolve()
        base = self.home.parent.resolve()
        return CommittedFile(
            path=str(shown.relative_to(base) if shown.is_relative_to(base) else shown),
            sha256=hashlib.sha256(content).hexdigest(),
            bytes=len(content),
        )

    def committed(self, name: str) -> Path:
        """The file that the claim's result names `name`, if it is still what was measured."""
        claim = read(self.name, home=self.home)
        if name not in claim.files:
            raise LilliputError(f"claim {self.name!r} has no file {name!r}")
        entry = claim.files[name]
        path = self.home.parent / entry.path
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != entry.sha256:
            raise LilliputError(
                f"{entry.path} is not the file that claim {self.name!r} was measured on",
                hint="check it out again, or run the claim anew",
            )
        return path


def names(home: Path = HOME) -> list[str]:
    """The claims there are, in the spelling of the command line."""
    found = (home / "claims").glob("[a-z]*.py")
    return sorted(path.stem.replace("_", "-") for path in found)


def run(options: Options, *, command: Sequence[str], verify: bool = False) -> Claim:
    """Run (or verify) one claim, write its file and return it.

    A full run replaces `results/NAME.json`; smoke and verification leave theirs in the work
    folder, since their figures are not the ones we tell users.
    """
    module = _module(options)
    work = getattr(module, "verify", None) if verify else module.run
    if work is None:
        raise LilliputError(f"claim {options.name!r} keeps no file that could be measured again")
    before = 0.0 if verify else seconds_of_parts(options)
    start = time.perf_counter()
    claim: Claim = work(options)
    claim = claim.model_copy(
        update={
            "claim": options.name,
            "conditions": {
                **claim.conditions,
                **conditions(command, seconds=time.perf_counter() - start, options=options),
                "seconds_of_parts": round(before, 1),
            },
        }
    )
    if options.smoke or verify:
        path = options.work / ("verify.json" if verify else "smoke.json")
    else:
        path = result_path(options.name, options.home)
        if path.is_file():
            claim = fill_open_rows(claim, read(options.name, home=options.home))
    write(claim, path)
    if path == result_path(options.name, options.home):
        shutil.rmtree(options.home / "parts" / options.name, ignore_errors=True)
    return claim


def settle(verified: Claim, *, home: Path = HOME) -> tuple[Row, ...]:
    """The committed result's open rows that a verification has figures for, now filled in.

    They are the committed files' own figures, taken on a machine of a class that had none yet;
    rows that were judged before stay as they are.
    """
    claim = read(verified.claim, home=home)
    filled = fill_open_rows(claim, verified)
    write(filled, result_path(claim.claim, home))
    return tuple(new for new, old in zip(filled.rows, claim.rows, strict=True) if new is not old)


def conditions(command: Sequence[str], *, seconds: float, options: Options) -> dict[str, Any]:
    """Machine, versions, command, seeds, date and duration."""
    machine = host.fingerprint()
    return {
        "machine": {key: value for key, value in machine.items() if key != "versions"},
        "versions": machine["versions"],
        "load_average": host.load_average(),
        "command": " ".join(command),
        "seeds": list(options.seeds),
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def seconds_of_parts(options: Options) -> float:
    """What the parts that were made beforehand took: each may have a file `<part>.seconds`."""
    return sum(float(path.read_text()) for path in options.parts.glob("*.seconds"))


def fill_open_rows(claim: Claim, other: Claim) -> Claim:
    """The claim, with its open rows as the other's machine filled them.

    A row whose `isa` is not that of the machine that ran the claim is open in it; if `other` has a
    figure for it, that figure is taken, with the machine it came from.
    """
    there = {(row.name, row.isa): row for row in other.rows if row.isa and row.figure is not None}
    machine = other.conditions.get("machine")

    def settled(row: Row) -> Row:
        before = there.get((row.name, row.isa or ""))
        if row.figure is not None or before is None:
            return row
        return before.model_copy(update={"machine": before.machine or machine, "goal": row.goal})

    return claim.model_copy(update={"rows": tuple(map(settled, claim.rows))})


def per_isa(name: str, figure: float, goals: Mapping[str, str], **more: Any) -> tuple[Row, ...]:
    """One row a class of `goals` ({"avx2": ">= 2.2", ...}): this machine's judged, others open.

    A machine of none of these classes gets a row without a goal; one with AMX has the 8-bit dot
    products that "vnni" stands for, and is judged by that where no goal names its own class.
    """
    here = host.isa_class(host.cpu_flags())
    if here == "amx" and here not in goals and "vnni" in goals:
        here = "vnni"
    rows = [
        Row(name=name, figure=figure, goal=goal, isa=isa, **more)
        if isa == here
        else Row(name=name, figure=None, goal=goal, isa=isa, unit=more.get("unit", ""))
        for isa, goal in goals.items()
    ]
    if here not in goals:
        rows.append(Row(name=name, figure=figure, isa=here, **more))
    return tuple(rows)


def result_path(name: str, home: Path = HOME) -> Path:
    return home / "results" / f"{name}.json"


def read(name: str, *, home: Path = HOME) -> Claim:
    """The committed result of a claim."""
    path = result_path(name, home)
    if not path.is_file():
        raise LilliputError(
            f"claim {name!r} has no result yet", hint=f"run `python -m benchmarks {name}`"
        )
    return Claim.model_validate_json(path.read_text())


def write(claim: Claim, path: Path) -> None:
    """Write the claim as JSON, whole or not at all; what is empty is left out."""
    content = _without_empty(claim.model_dump(mode="json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: _without_empty(entry) for key, entry in value.items()}
        return {
            key: entry
            for key, entry in kept.items()
            if key in ("figure", "rows") or entry not in (None, {}, [])
        }
    if isinstance(value, list):
        return [_without_empty(entry) for entry in value]
    return value


def _module(options: Options) -> Any:
    known = names(options.home)
    if options.name not in known:
        raise LilliputError(f"no claim {options.name!r}", hint=nearest(options.name, known))
    return importlib.import_module(f"benchmarks.claims.{options.name.replace('-', '_')}")

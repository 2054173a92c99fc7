"""Candidates as JSON: what the journal holds of them. Paths are relative to the run's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import Field, ValidationError

from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.errors import LilliputError
from lilliput.measurement import Measurement
from lilliput.noun import Noun

if TYPE_CHECKING:
    from lilliput.network import Network


class StoredFile(Noun):
    """A file or folder of a run and the hash of what is in it."""

    path: Path
    sha256: str


class Record(Noun):
    """A candidate as the journal holds it. `artifact.path` is relative to the run's folder."""

    id: str
    stage: str
    parent: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    history: tuple[dict[str, Any], ...] = ()
    measurements: dict[str, Measurement] = Field(default_factory=dict)
    labels: tuple[str, ...] = ()
    artifact: Artifact | None = None
    network: StoredFile | None = None

    @property
    def kind(self) -> str:
        return "network" if self.artifact is None else "artifact"

    def value(self, quantity: str) -> float:
        """The figure's value, or NaN when it was not measured."""
        figure = self.measurements.get(quantity)
        return float("nan") if figure is None else figure.value


def candidate_to_json(candidate: Candidate, path: Path, root: Path) -> dict[str, Any]:
    """The candidate as the journal takes it.

    Args:
        candidate: A file, or a network whose weights were saved.
        path: That file, or what the weights were saved to (a file or a folder).
        root: The run's folder; a path under it is kept relative, so that the run can be moved.
    """
    artifact = candidate.artifact
    if artifact is not None:
        artifact = artifact.model_copy(update={"path": _within(path, root)})
    stored = None
    if candidate.network is not None:
        stored = StoredFile(path=_within(path, root), sha256=sha256_of(path))
    record = Record(
        id=candidate.id,
        stage=candidate.stage,
        parent=candidate.parent,
        settings=dict(candidate.settings),
        history=tuple(dict(entry) for entry in candidate.history),
        measurements=dict(candidate.measurements),
        labels=candidate.labels,
        artifact=artifact,
        network=stored,
    )
    return record.model_dump(mode="json")


def candidate_from_json(
    stored: Mapping[str, Any], root: Path, load: Callable[[Path], Network | Artifact]
) -> Candidate:
    """The candidate that `candidate_to_json` wrote.

    Args:
        stored: What the journal holds.
        root: The run's folder.
        load: Makes a network of what was saved at a path. Files are described by the record.

    Raises:
        LilliputError: Its file is gone or was changed since, or the record is not one.
    """
    record = record_from_json(stored)
    artifact = record.artifact
    network: Network | Artifact | None = None
    if artifact is not None:
        path = root / artifact.path
        _check_unchanged(path, artifact.sha256)
        artifact = artifact.model_copy(update={"path": path})
    elif record.network is not None:
        path = root / record.network.path
        _check_unchanged(path, record.network.sha256)
        network = load(path)
    return Candidate(
        id=record.id,
        network=cast("Network | None", network),
        artifact=artifact,
        parent=record.parent,
        stage=record.stage,
        settings=record.settings,
        history=record.history,
        measurements=record.measurements,
        labels=record.labels,
    )


def record_from_json(stored: Mapping[str, Any]) -> Record:
    """The record itself, whose files are not looked at.

    Raises:
        LilliputError: This is no record of a candidate.
    """
    try:
        return Record.model_validate(stored)
    except ValidationError as error:
        raise LilliputError(
            f"the journal's record of candidate {stored.get('id')!r} cannot be read: "
            f"{error.error_count()} of its fields are wrong",
            hint="it was written by another version of lilliput; start a new run",
        ) from error


def sha256_of(path: Path) -> str:
    """Hash of a file, or of a folder's file names and contents in their order."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            name = file.relative_to(path).as_posix() if path.is_dir() else ""
            digest.update(name.encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _check_unchanged(path: Path, sha256: str) -> None:
    way_out = "put it back, or start a new run"
    if not path.exists():
        raise LilliputError("a file of this run is gone", at=str(path), hint=way_out)
    if sha256_of(path) != sha256:
        raise LilliputError("this file was changed since it was made", at=str(path), hint=way_out)


def _within(path: Path, root: Path) -> Path:
    """The path relative to the run's folder, so that the folder can be moved."""
    absolute, base = path.resolve(), root.resolve()
    return absolute.relative_to(base) if absolute.is_relative_to(base) else absolute

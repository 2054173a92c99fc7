"""A small shelf of stages and tasks of our own, so that these tests are about recipes alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest
from pydantic import Field

from lilliput.steps.base import STAGES, Kind, Stage, Step
from lilliput.tasks.base import TASKS


class Train(Step):
    name: ClassVar[str] = "train"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"

    epochs: int = Field(10, ge=0, description="passes over the training split")
    learning_rate: float = Field(0.02, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    hints: tuple[str, ...] = Field((), description="layers")
    note: str | None = None


class Write(Step):
    name: ClassVar[str] = "export"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "artifact"


class Round(Step):
    name: ClassVar[str] = "quantize"
    takes: ClassVar[Kind] = "artifact"
    gives: ClassVar[Kind] = "artifact"

    bits: int = Field(8, ge=2, le=8)


class Sorting:
    """A task whose constructor has one setting."""

    name = "classification"

    def __init__(self, top: int = 1) -> None:
        if top < 1:
            raise ValueError(f"top = {top} must be at least 1")


@pytest.fixture(autouse=True)
def _shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    stages: dict[str, type[Stage]] = {s.name: s for s in (Train, Write, Round)}
    for registry, things in ((STAGES, stages), (TASKS, {"classification": Sorting})):
        monkeypatch.setattr(registry, "_loaded", True)
        monkeypatch.setattr(registry, "_things", things)
    return

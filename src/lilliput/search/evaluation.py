"""Genomes to outcomes: each evaluated once a run, by whoever is asked, failures kept as such."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import Any, TypeVar

import numpy as np

from lilliput.attempts import FAILED, failure
from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.search.genomes import Genome, key_of
from lilliput.search.members import Goals, Outcome
from lilliput.search.workers import mapped

Figures = dict[str, float]
Score = Callable[[Genome], Figures]
T = TypeVar("T")


@dataclass(frozen=True)
class Scales:
    """How figures become the values of goals, which are shares.

    Attributes:
        goals: Names and reference.
        whole: {name: what counts as 1}: the original's metric, the original's costs.
        most_loss: The loss, in the metric's unit, beyond which a candidate is infeasible.
        limits: {cost: the same}.
    """

    goals: Goals
    whole: Mapping[str, float]
    most_loss: float
    limits: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        whole: Mapping[str, float],
        most_loss: float,
        limits: Mapping[str, float],
    ) -> Scales:
        """The box of the front: up to the most loss, and up to the costs of the original."""
        scale = {name: max(abs(value), 1e-12) for name, value in whole.items()}
        reference = (most_loss / scale["loss"], *(1.0 for _ in names[1:]))
        return cls(Goals(tuple(names), reference), scale, most_loss, limits)

    def outcome(self, told: Mapping[str, Any]) -> Outcome:
        """From figures, or from the facts of a failure."""
        if FAILED in told:
            return Outcome.failure(str(told[FAILED].get("error", "")))
        values = tuple(float(told[name]) / self.whole[name] for name in self.goals.names)
        if not np.isfinite(values).all():
            return Outcome.failure("its figures are not finite")
        beyond = [(told["loss"] - self.most_loss) / self.whole["loss"]]
        beyond += [told[name] / limit - 1 for name, limit in self.limits.items()]
        return Outcome(values, max(beyond))


@dataclass(frozen=True)
class Evaluations:
    """The journal's cache of figures before the workers.

    Attributes:
        key: Names the search in the journal.
        stage: Whose search it is, for failures.
        score: Figures of one genome; goes to workers, so that it must pickle for a cluster.
        context: Journal and progress.
        workers: Who evaluates, as `mapped` takes it.
        measure: More figures of several genomes, taken by this process, one after the other.
    """

    key: str
    stage: str
    score: Score
    context: Context
    workers: str = "1"
    measure: Callable[[Sequence[Genome]], list[Figures]] | None = None

    def __call__(
        self, genomes: Sequence[Genome], *, label: str, over: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """Figures of each genome, or {"failed": facts}, in their order.

        Args:
            genomes: What is evaluated, unless it was before.
            label: Of the progress.
            over: Asked after each evaluation; when it says so, no other begins, and what comes
                back is of the first genomes alone.
        """
        known = [self.context.journal.recall(self._name(genome)) for genome in genomes]
        fresh = [g for g, before in zip(genomes, known, strict=True) if before is None]
        work, lost = partial(_guarded, self.score, self.stage), partial(_lost, self.stage)
        results = _until(over, mapped(work, [g.tolist() for g in fresh], self.workers, lost))
        with closing(results):
            shown = self.context.progress.track(
                zip(fresh, results, strict=False), label=label, total=len(fresh)
            )
            keep = self._kept if self.measure is None else _as_told
            judged = [(genome, keep(genome, told)) for genome, told in shown]
        if self.measure is not None:
            # Nothing is written before it is whole, and nothing else runs while time is taken.
            judged = [(g, self._kept(g, told)) for g, told in self._with_measured(judged)]
        found = {key_of(genome): told for genome, told in judged}
        every = {
            key_of(genome): before
            for genome, before in zip(genomes, known, strict=True)
            if before is not None
        } | found
        return [every[key_of(g)] for g in takewhile(lambda g: key_of(g) in every, genomes)]

    def _with_measured(
        self, judged: Sequence[tuple[Genome, dict[str, Any]]]
    ) -> list[tuple[Genome, dict[str, Any]]]:
        sound = [genome for genome, told in judged if FAILED not in told]
        more = dict(zip(map(key_of, sound), self._measured(sound), strict=True))
        return [(genome, {**told, **more.get(key_of(genome), {})}) for genome, told in judged]

    def _measured(self, genomes: Sequence[Genome]) -> list[dict[str, Any]]:
        """Further figures of each; where they cannot be taken together, of each alone."""
        assert self.measure is not None
        try:
            return [*self.measure(genomes)]
        except Exception as error:  # noqa: BLE001  # whatever a runtime makes of a candidate
            if len(genomes) > 1:
                return [told for genome in genomes for told in self._measured([genome])]
            name = key_of(genomes[0])
            return [{FAILED: failure(error, stage=self.stage, candidate=name)}]

    def _kept(self, genome: Genome, told: dict[str, Any]) -> dict[str, Any]:
        if FAILED in told:
            why = told[FAILED]["error"]
            self.context.progress.say(f"{self.stage}: candidate {key_of(genome)} failed: {why}")
        return self.context.journal.once(self._name(genome), lambda: told)

    def _name(self, genome: Genome) -> str:
        return f"{self.key} genome {key_of(genome)}"


def _as_told(_genome: Genome, told: dict[str, Any]) -> dict[str, Any]:
    return told


def _until(over: Callable[[], bool], results: Iterator[T]) -> Generator[T, None, None]:
    for result in results:
        yield result
        if over():
            return


def _guarded(score: Score, stage: str, genes: list[int]) -> dict[str, Any]:
    """Figures, or the facts of a failure: what a worker gives back."""
    genome = np.array(genes, np.int64)
    try:
        return dict(score(genome))
    except Exception as error:  # noqa: BLE001  # whatever a user's network provokes
        return {FAILED: failure(error, stage=stage, candidate=key_of(genome))}


def _lost(stage: str, genes: list[int]) -> dict[str, Any]:
    """The facts of the failure of one whose process died, and died again."""
    error = LilliputError(
        "its process died twice, perhaps for want of memory",
        hint="`lilliput resume RUN --retry-failed` tries it again",
    )
    return {FAILED: failure(error, stage=stage, candidate=key_of(np.array(genes, np.int64)))}

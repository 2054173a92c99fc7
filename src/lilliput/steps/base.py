"""The one shape of everything that changes a network: candidates in, candidates out.

A stage is a frozen pydantic model whose fields are its settings. The same declaration gives the
recipe's YAML, the command line's help, the JSON schema, the docs page and the error messages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.effort import Effort
from lilliput.errors import Refused
from lilliput.registry import Registry

Kind = Literal["network", "artifact"]


class Stage(BaseModel):
    """Settings of one stage; unknown settings are refused.

    `name` is the recipe's word for it. `takes` and `gives` say whether it works on torch networks
    or on files, so that a recipe's chain is checked before anything runs. `source` is the paper
    and section that it implements, or why there is none. `renames` says that layers come out of it
    that had no such names before, `first` that it works on the original alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]
    takes: ClassVar[Kind]
    gives: ClassVar[Kind]
    source: ClassVar[str] = ""
    renames: ClassVar[bool] = False
    first: ClassVar[bool] = False

    def requires(self, candidate: Candidate, context: Context) -> None:
        """Raise `Refused`, with a way out, if this candidate cannot be handled."""

    def check_kind(self, candidate: Candidate) -> None:
        """Raise `Refused` for a file in place of a network, or a network that cannot change."""
        if candidate.kind != self.takes:
            made = {"network": "a torch network", "artifact": "an exported file"}
            raise Refused(
                f"{self.name} works on {made[self.takes]}, and {candidate.id!r} is "
                f"{made[candidate.kind]}",
                hint="move the stage before `export`"
                if self.takes == "network"
                else "put an `export` stage before it",
            )
        network = candidate.network
        if network is not None and network.fixed and self.gives == "network":
            raise Refused(
                f"{self.name} cannot change {network.name!r}: {network.fixed}",
                hint="give the function that builds the network, and its weights",
            )

    def effort(self, context: Context) -> Effort:  # noqa: ARG002
        """How much work one candidate is: by the settings `epochs`, `batch_size` and `minutes`.

        A stage in which these mean something else, or which does other work, says so itself.
        """
        epochs = float(getattr(self, "epochs", 0) or 0)
        return Effort(
            epochs=(epochs, epochs),
            batch_size=getattr(self, "batch_size", None) or 128,
            minutes=getattr(self, "minutes", None),
        )

    def described(self) -> dict[str, object]:
        """{name: settings that differ from the defaults}: the recipe's entry for this stage."""
        return {self.name: self.model_dump(mode="json", exclude_defaults=True)}


class Step(Stage):
    """One candidate to one candidate."""

    def has_work(self, candidate: Candidate, context: Context) -> bool:  # noqa: ARG002
        """Whether there is anything to do; where not, the next stage gets the candidate as it is.

        The answer is the same whenever a run that was interrupted asks again.
        """
        return True

    def child_id(self, parent: str) -> str:
        """The name of what this step makes of the candidate `parent`."""
        return f"{parent}-{self.name}"

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        """Do the work on a copy; the pipeline names, measures and stores what comes back."""
        raise NotImplementedError


class Search(Stage):
    """One candidate to many: yields each as soon as it is worth keeping."""

    def explore(self, candidate: Candidate, context: Context) -> Iterator[Candidate]:
        raise NotImplementedError


class Selection(Stage):
    """Many candidates to few."""

    takes: ClassVar[Kind] = "artifact"
    gives: ClassVar[Kind] = "artifact"

    def choose(self, candidates: Sequence[Candidate], context: Context) -> list[Candidate]:
        raise NotImplementedError


STAGES: Registry[type[Stage]] = Registry("stage", "lilliput.steps")

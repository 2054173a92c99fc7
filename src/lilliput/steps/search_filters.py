"""Which channels stay, in all layers jointly: evolution gives a front of narrower networks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.prune.from_context import scorer
from lilliput.prune.groups import analyse
from lilliput.prune.importance import NEEDS_LABELS, Criterion
from lilliput.prune.protect import matching_modules, protected_classes
from lilliput.search.delivering import explored
from lilliput.search.genomes import ENCODINGS, Ground
from lilliput.search.ladder import workshop
from lilliput.search.rungs import judging
from lilliput.search.searching import Quest, refuse_unsearchable
from lilliput.search.settings import EvolutionSettings
from lilliput.steps.base import STAGES, Kind, Search


@STAGES.register("search_filters")
class SearchFilters(EvolutionSettings, Search):
    """Networks of the front between quality and cost, each fine-tuned after the original.

    What is searched are widths (one number a group, its dearest channels stay) or masks (one bit a
    channel, the paper's form). Candidates are cut for real, fitted in closed form and judged on
    validation examples; better ones are trained briefly, the last few in full.
    """

    name: ClassVar[str] = "search_filters"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Wang et al., KDD 2018 (`algorithm: paper`, `encoding: masks`); Deb et al., NSGA-II, 2002"
    )

    encoding: Literal["widths", "masks"] = Field(
        "widths", description="one number a group of channels, or one bit a channel"
    )
    criterion: Criterion = Field("output", description="what makes a channel dear")
    score_images: int = Field(256, ge=1, description="examples for output, taylor and fisher")
    multiple_of: int = Field(1, ge=1, description="grid of the channels of a group, for widths")

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        matching_modules(candidate.the_network(), self.protect)
        refuse_unsearchable(self.name, context, labels=self.criterion in NEEDS_LABELS)

    def explore(self, candidate: Candidate, context: Context) -> Iterator[Candidate]:
        quest = self.quest(candidate, judging(context))
        yield from explored(quest, candidate, suffix="filters")

    def quest(self, candidate: Candidate, context: Context) -> Quest:
        """All that the search of this candidate works with."""
        network = candidate.the_network()
        analysis = analyse(network)
        ground = Ground(
            network,
            analysis,
            scorer(context, self.criterion, self.score_images)(network, analysis),
            protected=protected_classes(network, analysis, self.protect),
            multiple_of=self.multiple_of,
            limits=self.most,
        )
        return Quest(
            f"{self.name} {candidate.id}",
            self.name,
            ENCODINGS[self.encoding](ground),
            workshop(network, analysis, self, context),
            self,
            context,
        )

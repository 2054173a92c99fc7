"""How many bits each layer has: evolution gives a front of networks on grids of few levels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.prune.from_context import scorer
from lilliput.prune.groups import analyse
from lilliput.prune.importance import class_scores
from lilliput.prune.protect import matching_modules, protected_classes
from lilliput.search.delivering import explored
from lilliput.search.genomes import ENCODINGS, Ground
from lilliput.search.ladder import workshop
from lilliput.search.rungs import judging
from lilliput.search.searching import Quest, refuse_unsearchable
from lilliput.search.settings import EvolutionSettings, Objective
from lilliput.steps.base import STAGES, Kind, Search

Bits = Literal[2, 3, 4, 5, 6, 7, 8, 32]


@STAGES.register("search_bits")
class SearchBits(EvolutionSettings, Search):
    """Networks of the front between quality and coded bytes, trained on their grids.

    Weights are float32 numbers on a symmetric grid, a scale for each output channel, and stay
    there: a packed file codes them in a few bits each, while any runtime runs the plain file.
    It is not faster by that. Bits of activations steer the search alone: the delivered file
    computes them in float, unless a `quantize` stage follows, which knows 8.
    """

    name: ClassVar[str] = "search_bits"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "the bit-width search after Wang et al., KDD 2018; DoReFa-Net, arXiv 1606.06160 "
        "(straight-through rounding); Deb et al., NSGA-II, 2002"
    )

    objectives: tuple[Objective, ...] = Field(
        ("loss", "coded_bytes"), min_length=2, description="what is to be small, the loss first"
    )
    bits: tuple[Bits, ...] = Field(
        (2, 3, 4, 6, 8, 32), min_length=1, description="what a layer may have; 32 always may be"
    )
    activations: bool = Field(False, description="search bits of layers' inputs too; see above")
    filters: Literal["none", "widths", "masks"] = Field(
        "none", description="search which channels stay at the same time"
    )

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        matching_modules(candidate.the_network(), self.protect)
        refuse_unsearchable(self.name, context, labels=False)

    def explore(self, candidate: Candidate, context: Context) -> Iterator[Candidate]:
        quest = self.quest(candidate, judging(context))
        yield from explored(quest, candidate, suffix="bits")

    def quest(self, candidate: Candidate, context: Context) -> Quest:
        """All that the search of this candidate works with."""
        network = candidate.the_network()
        analysis = analyse(network)
        if self.filters == "none":
            scores = class_scores(network, analysis, "l1")
        else:
            scores = scorer(context, "output", self.refit_examples)(network, analysis)
        ground = Ground(
            network,
            analysis,
            scores,
            protected=protected_classes(network, analysis, self.protect),
            fixed=matching_modules(network, self.protect),
            bits=self.bits,
            activations=self.activations,
            limits=self.most,
        )
        name = "bits" if self.filters == "none" else f"{self.filters}+bits"
        return Quest(
            f"{self.name} {candidate.id}",
            self.name,
            ENCODINGS[name](ground),
            workshop(network, analysis, self, context),
            self,
            context,
        )

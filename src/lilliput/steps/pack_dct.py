"""Pack kernels as a picture is packed: cosine transform, shrinkage, few integers, retraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.coefficients import Coefficients
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import LossTerm
from lilliput.distill.sources import examples_for
from lilliput.distill.teaching import check_teachable
from lilliput.effort import Effort
from lilliput.errors import Refused
from lilliput.frequency.bases import Kind as Basis
from lilliput.frequency.form import forms
from lilliput.frequency.packing import (
    LARGEST_STEP,
    Kernels,
    Settings,
    attach,
    kernels_of,
    packed_forms,
    refresh,
    shrunk_further,
)
from lilliput.network import Network
from lilliput.prune.edits import pack_edit
from lilliput.prune.from_context import repairer
from lilliput.prune.protect import matching_modules
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.distill import Distill
from lilliput.steps.teaching import BatchSize


@STAGES.register("pack_dct")
class PackDct(Step):
    """Few small integers in the frequency domain, from which the weights follow.

    Each round shrinks further and trains what is left; the last reaches the thresholds. The
    exported file holds the integers and unfolds itself when it is loaded, so it runs as fast as
    the plain one; packed with `lilliput pack` it is small.
    """

    name: ClassVar[str] = "pack_dct"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "Wang et al., CNNpack, NIPS 2016, section 3; TPAMI 41(10), 2019"

    basis: Basis = Field("dct", description="cosines, directions learned per layer, or pixels")
    centres: int = Field(
        0, ge=0, le=256, description="common parts that kernels are the sum of one with; 0: none"
    )
    tables: Literal["shared", "layer"] = Field(
        "shared", description="centres of all convolutions together, or of each layer"
    )
    threshold: float = Field(
        1.0, ge=0, le=10, description="coefficients below so many standard deviations go"
    )
    thresholds: Mapping[str, float] = Field(
        {}, description="other thresholds: glob of layers to standard deviations"
    )
    step: float = Field(
        0.25,
        gt=0,
        le=LARGEST_STEP,
        description="of the quantizer, in standard deviations of the layer",
    )
    shrinkage: Literal["soft", "hard"] = Field(
        "hard", description="soft takes the threshold off what is left too, as the paper does"
    )
    exclude: tuple[str, ...] = Field((), description="globs of layers that stay as they are")
    rounds: int = Field(3, ge=1, le=20, description="of shrinking and training")
    epochs: int = Field(2, ge=0, description="of training in each round; 0: no training")
    learning_rate: float = Field(0.01, gt=0, description="peak in each round")
    batch_size: BatchSize = 128
    imitation: float = Field(0.9, ge=0, le=1, description="share of the loss that is the teacher's")
    temperature: float = Field(4.0, gt=0, description="softens the teacher's class scores")
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")

    def requires(self, candidate: Candidate, context: Context) -> None:
        """Refuses a file, globs that match nothing, and data that cannot be learned from."""
        self.check_kind(candidate)
        network = candidate.the_network()
        if not self._layers(network):
            raise Refused(
                f"pack_dct finds no convolution and no linear layer in {network.name!r}",
                hint="it packs torch's own Conv2d and Linear; leave the stage out",
            )
        self._thresholds(network, ())
        if self.epochs:
            check_teachable(context)
        elif self.bn_images:
            context.data.split("train")

    def effort(self, context: Context) -> Effort:
        epochs = float(self.rounds * self.epochs)
        return super().effort(context)._replace(epochs=(epochs, epochs))

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network().copy()
        layers = self._layers(network)
        thresholds = self._thresholds(network, [layer.path for layer in layers])
        rounds = self.rounds if self.epochs else 1
        network = self._packed(network, layers, thresholds, 1 / rounds, context)
        for number in range(1, rounds + 1):
            network, companion = self._trained(network, thresholds, candidate.id, number, context)
            if number < rounds:
                self._shrink(network, companion, _scaled(thresholds, (number + 1) / rounds))
        if self.bn_images:
            network = repairer(context, self.bn_images)(network)
        _note(network, candidate.id, context)
        return Candidate(id=candidate.id, network=network)

    def _layers(self, network: Network) -> list[Kernels]:
        out = matching_modules(network, self.exclude)
        return [layer for layer in kernels_of(network, self.basis) if layer.path not in out]

    def _thresholds(self, network: Network, paths: list[str] | tuple[()]) -> dict[str, float]:
        found = dict.fromkeys(paths, self.threshold)
        for pattern, threshold in self.thresholds.items():
            matching = matching_modules(network, (pattern,))
            found |= {path: threshold for path in paths if path in matching}
        return found

    def _packed(
        self,
        network: Network,
        layers: list[Kernels],
        thresholds: Mapping[str, float],
        share: float,
        context: Context,
    ) -> Network:
        settings = Settings(self.basis, self.centres, self.tables, self.shrinkage, self.step)
        rng = context.rng("pack_dct", "centres")
        made = packed_forms(layers, settings, thresholds, rng, share=share)
        for path, form in made.items():
            attach(network.module.get_submodule(path), form)
        edits = tuple(pack_edit(path, form) for path, form in made.items())
        held = {f"{path}.weight": "fixed" for path in made}
        return replace(network, edits=(*network.edits, *edits), held={**network.held, **held})

    def _trained(
        self,
        network: Network,
        thresholds: Mapping[str, float],
        name: str,
        number: int,
        context: Context,
    ) -> tuple[Network, Coefficients]:
        companion = Coefficients(tuple(thresholds))
        if not self.epochs:
            return network, companion
        free = {f"{path}.weight" for path in thresholds}
        student = replace(network, held={k: v for k, v in network.held.items() if k not in free})
        source = examples_for(network, context, self.batch_size)
        trained = train(
            student,
            self._terms(student, context, labelled=source.labelled),
            source,
            Schedule(self.epochs, self.learning_rate, weight_decay=0.0),
            context,
            key=f"{name}.pack_dct.{number}",
            teacher=context.teacher,
            companions=[companion],
        )
        return replace(trained, held=network.held), companion

    def _terms(self, network: Network, context: Context, *, labelled: bool) -> list[LossTerm]:
        teacher = context.teacher
        imitation = self.imitation if teacher is not None else 0.0
        lesson = Distill(imitation=imitation, temperature=self.temperature)
        return lesson.terms(network, teacher or network, context, labelled=labelled)

    def _shrink(
        self, network: Network, companion: Coefficients, thresholds: Mapping[str, float]
    ) -> None:
        for path, form in forms(network.module).items():
            if path in companion.trained:
                cut = thresholds[path] / self.step
                shrunk_further(form, companion.trained[path], cut, self.shrinkage)
                refresh(network.module.get_submodule(path), form)


def _scaled(thresholds: Mapping[str, float], share: float) -> dict[str, float]:
    return {path: threshold * share for path, threshold in thresholds.items()}


def _note(network: Network, name: str, context: Context) -> None:
    """How much of each layer is left."""
    for path, form in forms(network.module).items():
        residuals, centres = form.live
        context.journal.note(
            "packed kernels",
            candidate=name,
            layer=path,
            basis=form.kind,
            coefficients=form.residuals.numel(),
            live=residuals,
            centres=list(form.centres.shape),
            live_in_centres=centres,
        )

"""A few values for all the weights of a layer: the codebooks that a packed file is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.loop import Schedule
from lilliput.distill.teaching import Lesson, check_teachable, taught
from lilliput.network import Network
from lilliput.prune.codebooks import Economy, Floats, Start, economize, entropy, kmeans
from lilliput.prune.curvature import Importance, ScoreImages, importance_of
from lilliput.prune.from_context import repairer
from lilliput.prune.weights import by_glob, weights_of
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.teaching import BatchSize, ImitationShare, LearningRate, Optimizer, Temperature


@STAGES.register("share_weights")
class ShareWeights(Step):
    """Each layer's weights take one of a few values; zeros stay zero and are none of them.

    With `epochs` the values are then trained, all weights of a value moving as one, with a
    teacher. Smaller when packed; not faster. Later trainings keep the sharing.
    """

    name: ClassVar[str] = "share_weights"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = (
        "Han, Mao, Dally, ICLR 2016, section 3; Chou et al., IEEE TASSP 37 (1989) (economy)"
    )

    values: int = Field(32, ge=1, le=4096, description="values of a layer, zero not counted")
    layer_values: dict[str, int] = Field(
        default_factory=dict, description="values of single layers, by globs"
    )
    start: Start = Field("linear", description="first values of k-means")
    importance: Importance = "none"
    economy: Economy = 0.0
    bias_values: int = Field(
        0, ge=0, le=4096, description="values of all biases together; 0: biases stay as they are"
    )
    protect: tuple[str, ...] = Field((), description="globs of layers that share nothing")
    score_images: ScoreImages = 256
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")
    epochs: int = Field(0, ge=0, description="passes over the training split, for the values")
    learning_rate: LearningRate = 1e-3
    optimizer: Optimizer = "adam"
    batch_size: BatchSize = 128
    temperature: Temperature = 4.0
    imitation: ImitationShare = 0.9

    @field_validator("layer_values")
    @classmethod
    def _some_values(cls, given: dict[str, int]) -> dict[str, int]:
        wrong = [glob for glob, count in given.items() if not 1 <= count <= 4096]
        if wrong:
            raise ValueError(f"{wrong[0]!r} must have 1 to 4096 values")
        return given

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        names = weights_of(candidate.the_network(), self.protect)
        by_glob(names, self.layer_values, at="layer_values")
        if self.importance == "fisher" or self.bn_images or self.epochs:
            context.data.split("train")
        if self.epochs:
            check_teachable(context)

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network, held = self._shared(candidate.the_network(), context)
        network = replace(network, held={**network.held, **held})
        if self.epochs:
            # Decay would draw the values towards zero, which nobody asked for here.
            schedule = Schedule(self.epochs, self.learning_rate, self.optimizer, weight_decay=0.0)
            lesson = Lesson(schedule, self.batch_size, self.temperature, self.imitation)
            network = taught(network, context, lesson, key=f"{candidate.id}.{self.name}")
        return Candidate(id=candidate.id, network=repairer(context, self.bn_images)(network))

    def _shared(self, network: Network, context: Context) -> tuple[Network, dict[str, str]]:
        """A copy whose weights share values, and the forms of what changed."""
        network = network.copy()
        weights = weights_of(network, self.protect)
        counts = dict.fromkeys(weights, self.values)
        counts |= by_glob(weights, self.layer_values, at="layer_values")
        importance = (
            importance_of(network, context, tuple(weights), self.score_images)
            if self.importance == "fisher"
            else {}
        )
        price = self._price(weights, importance)
        facts = {}
        for name, weight in weights.items():
            book = self._book(weight, counts[name], importance.get(name), price, context, name)
            facts[name] = _facts(weight, book)
            _put(weight, book)
        biases = biases_of(network, self.protect) if self.bias_values else {}
        share_together(biases, self.bias_values)
        context.journal.note("weights shared", layers=facts, biases=len(biases))
        return network, dict.fromkeys(weights, "shared") | dict.fromkeys(biases, "fixed")

    def _price(
        self, weights: Mapping[str, nn.Parameter], importance: Mapping[str, Tensor]
    ) -> float | None:
        """One price of a bit for all layers, where errors of all layers can be compared."""
        if not importance:
            return None
        total = sum(
            float((importance[n].double() * w.detach().double().square()).sum())
            for n, w in weights.items()
        )
        return self.economy * total / sum(int(torch.count_nonzero(w)) for w in weights.values())

    def _book(
        self,
        weight: nn.Parameter,
        count: int,
        importance: Tensor | None,
        price: float | None,
        context: Context,
        name: str,
    ) -> Floats:
        """(n,) what the weights that are not zero become."""
        flat: Floats = weight.detach().cpu().double().numpy().ravel()
        there = flat != 0
        if not there.any():
            return np.zeros(0)
        factors = None if importance is None else importance.double().numpy().ravel()[there]
        book = kmeans(
            flat[there],
            count,
            start=self.start,
            importance=factors,
            rng=context.rng("share", name),
        )
        if not self.economy:
            return book.decoded
        own = self.economy * float(np.square(flat[there]).mean()) if price is None else price
        return economize(
            flat[there],
            np.concatenate([[0.0], book.levels]),
            own,
            importance=factors,
            elsewhere=np.concatenate(
                [[np.count_nonzero(~there)], np.zeros(len(book.levels))]
            ).astype(np.int64),
            moving=np.arange(len(book.levels) + 1) > 0,
        ).decoded


def biases_of(network: Network, protect: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """Biases of linear layers and convolutions, by name; those of norms are not among them."""
    layers = {name.rpartition(".")[0] for name in weights_of(network, protect)}
    known = dict(network.module.named_parameters())
    names = (f"{layer}.bias" if layer else "bias" for layer in sorted(layers))
    return {name: known[name] for name in names if name in known and known[name].ndim == 1}


def share_together(parameters: Mapping[str, nn.Parameter], count: int) -> None:
    """One codebook of `count` values for all of these, in place; zeros stay zero."""
    if not parameters:
        return
    flat = np.concatenate([p.detach().double().numpy().ravel() for p in parameters.values()])
    there = flat != 0
    if there.any():
        flat[there] = kmeans(flat[there], count).decoded
    start = 0
    with torch.no_grad():
        for parameter in parameters.values():
            piece = flat[start : start + parameter.numel()].reshape(parameter.shape)
            parameter.copy_(torch.from_numpy(piece))
            start += parameter.numel()


def _put(weight: nn.Parameter, values: Floats) -> None:
    with torch.no_grad():
        flat = weight.detach().clone().flatten()
        flat[flat != 0] = torch.from_numpy(values).to(flat)
        weight.copy_(flat.reshape(weight.shape))


def _facts(weight: nn.Parameter, values: Floats) -> dict[str, float]:
    """Of one layer: survivors, different values, bits a survivor without positions, error."""
    before = weight.detach().double().numpy().ravel()
    before = before[before != 0]
    left = values[values != 0]
    energy = float(np.square(before).sum())
    return {
        "kept": float(len(left)),
        "values": float(len(np.unique(left))),
        "bits": entropy(left) if len(left) else 0.0,
        "error": float(np.square(before - values).sum()) / energy if energy else 0.0,
    }

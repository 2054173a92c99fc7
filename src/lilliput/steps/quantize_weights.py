"""Weights of 2 to 8 bits: integers times a step, in a network that is still float."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.distill.learned_steps import Grid, LearnedSteps
from lilliput.distill.loop import Schedule
from lilliput.distill.teaching import Lesson, check_teachable, taught
from lilliput.network import Network
from lilliput.prune.codebooks import Economy, entropy
from lilliput.prune.curvature import Importance, ScoreImages, importance_of
from lilliput.prune.from_context import repairer
from lilliput.prune.grids import Array, economical_integers, fit_steps, integers, limit_of
from lilliput.prune.weights import by_glob, density_of, weights_of
from lilliput.steps.base import STAGES, Kind, Step
from lilliput.steps.teaching import BatchSize, ImitationShare, LearningRate, Optimizer, Temperature


@STAGES.register("quantize_weights")
class QuantizeWeights(Step):
    """Every weight becomes an integer of a few bits times its layer's or channel's step.

    Steps are chosen by squared error; with `epochs` weights and steps are then learnt, rounded in
    every forward pass, with a teacher. Zeros stay zero. For packed files: the network computes in
    float as before, and no faster; for speed, `quantize` the exported file.
    """

    name: ClassVar[str] = "quantize_weights"
    takes: ClassVar[Kind] = "network"
    gives: ClassVar[Kind] = "network"
    source: ClassVar[str] = "Esser et al., ICLR 2020, section 2 (learned step size)"

    bits: int = Field(4, ge=2, le=8, description="bits of a weight; 2 are -1, 0 and 1")
    layer_bits: dict[str, int] = Field(
        default_factory=dict, description="bits of single layers, by globs"
    )
    per: Literal["tensor", "channel"] = Field("tensor", description="what has a step of its own")
    importance: Importance = "none"
    economy: Economy = 0.0
    protect: tuple[str, ...] = Field((), description="globs of layers that stay as they are")
    score_images: ScoreImages = 256
    bn_images: int = Field(512, ge=0, description="examples for batch-norm statistics")
    epochs: int = Field(0, ge=0, description="passes over the training split, weights rounded")
    learning_rate: LearningRate = 0.01
    optimizer: Optimizer = "sgd"
    batch_size: BatchSize = 128
    weight_decay: float = Field(1e-4, ge=0, description="not applied to biases, norms and steps")
    temperature: Temperature = 4.0
    imitation: ImitationShare = 0.9

    @field_validator("layer_bits")
    @classmethod
    def _few_bits(cls, given: dict[str, int]) -> dict[str, int]:
        wrong = [glob for glob, bits in given.items() if not 2 <= bits <= 8]
        if wrong:
            raise ValueError(f"{wrong[0]!r} must have 2 to 8 bits; `protect` it to keep floats")
        return given

    def requires(self, candidate: Candidate, context: Context) -> None:
        self.check_kind(candidate)
        names = weights_of(candidate.the_network(), self.protect)
        by_glob(names, self.layer_bits, at="layer_bits")
        if self.importance == "fisher" or self.bn_images or self.epochs:
            context.data.split("train")
        if self.epochs:
            check_teachable(context)

    def apply(self, candidate: Candidate, context: Context) -> Candidate:
        network = candidate.the_network()
        weights = weights_of(network, self.protect)
        importance = (
            importance_of(network, context, tuple(weights), self.score_images)
            if self.importance == "fisher"
            else {}
        )
        grids = self._grids(weights, importance)
        if self.epochs:
            network = self._learnt(network, grids, context, f"{candidate.id}.{self.name}")
        network = self._rounded(network, grids, importance, context)
        held = {**network.held, **dict.fromkeys(grids, "fixed")}
        network = repairer(context, self.bn_images)(replace(network, held=held))
        return Candidate(id=candidate.id, network=network)

    def _grids(
        self, weights: Mapping[str, nn.Parameter], importance: Mapping[str, Tensor]
    ) -> dict[str, Grid]:
        """The grid of the smallest squared error for each weight."""
        bits = dict.fromkeys(weights, self.bits)
        bits |= by_glob(weights, self.layer_bits, at="layer_bits")
        grids = {}
        for name, weight in weights.items():
            limit = limit_of(bits[name])
            factors = self._rows(importance[name]) if name in importance else None
            steps = fit_steps(self._rows(weight.detach()), limit, factors)
            grids[name] = Grid(torch.from_numpy(steps), limit)
        return grids

    def _rows(self, weight: Tensor) -> Array:
        """(C, n): what shares a step lies in a row."""
        rows = weight.flatten(1) if self.per == "channel" else weight.reshape(1, -1)
        return np.asarray(rows.double().numpy())

    def _learnt(
        self, network: Network, grids: dict[str, Grid], context: Context, key: str
    ) -> Network:
        """Trained on the grids, which become those that were learnt; zeros are held all along.

        Weights that shared values or lay on another grid are free to leave them.
        """
        known = dict(network.module.named_parameters())
        sparse = [name for name in grids if density_of({name: known[name]}) < 1]
        held = {n: form for n, form in network.held.items() if n not in grids}
        held |= dict.fromkeys(sparse, "zeros")
        schedule = Schedule(
            self.epochs, self.learning_rate, self.optimizer, weight_decay=self.weight_decay
        )
        lesson = Lesson(schedule, self.batch_size, self.temperature, self.imitation)
        companion = LearnedSteps(grids)
        student = replace(network, held=held)
        trained = taught(student, context, lesson, key=key, companions=[companion])
        grids.update(companion.grids)
        return replace(trained, held=network.held)

    def _rounded(
        self,
        network: Network,
        grids: Mapping[str, Grid],
        importance: Mapping[str, Tensor],
        context: Context,
    ) -> Network:
        """A copy on the grids: the nearest integers, or those that cost fewer bits too."""
        network = network.copy()
        known = {n: p for n, p in network.module.named_parameters() if n in grids}
        prices = self._prices(known, importance)
        facts = {}
        for name, grid in grids.items():
            rows, steps = self._rows(known[name].detach()), grid.steps.numpy()
            factors = self._rows(importance[name]) if name in importance else np.ones_like(rows)
            whole = integers(rows, steps, grid.limit)
            if self.economy:
                whole = economical_integers(rows, steps, grid.limit, prices[name], factors)
            made = torch.from_numpy(whole.astype(np.float32)) * grid.steps[:, None]
            with torch.no_grad():
                known[name].copy_(made.reshape(known[name].shape))
            facts[name] = {
                "kept": int(np.count_nonzero(whole)),
                "bits": entropy(whole.ravel().astype(np.int64)),
            }
        context.journal.note("weights quantized", layers=facts)
        return network

    def _prices(
        self, weights: Mapping[str, nn.Parameter], importance: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """What a bit may cost in each layer: one price where errors of layers can be compared."""
        energy = {
            name: float((importance.get(name, 1.0) * weight.detach().square()).double().sum())
            for name, weight in weights.items()
        }
        kept = {name: int(torch.count_nonzero(weight)) for name, weight in weights.items()}
        if importance:
            everywhere = sum(energy.values()) / max(sum(kept.values()), 1)
            return dict.fromkeys(weights, self.economy * everywhere)
        return {name: self.economy * energy[name] / max(kept[name], 1) for name in weights}

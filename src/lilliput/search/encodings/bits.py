"""How many bits the weights of each layer have, and its inputs if asked.

Source: quantization search as in Wang et al., KDD 2018, and the group's later practice: a code of
weight bits, then activation bits, one a layer.
Differs: 32 bits are a value of the code and mean untouched weights; networks are those of the user,
quantized after training, and not trained from scratch at each width.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lilliput.errors import Refused
from lilliput.search.genomes import ENCODINGS, Genome, Ground, Variant
from lilliput.search.operators import few_places, swapped

NEIGHBOUR = 0.7
"""How often a gene that moves goes to the next width; else to any."""


@ENCODINGS.register("bits")
class Bits:
    """Genes are places in the ascending list of widths: weights of all layers, then inputs."""

    name = "bits"

    def __init__(self, ground: Ground) -> None:
        self._layers = tuple(layer for layer in layers_with_weights(ground))
        if not self._layers:
            raise Refused(
                f"no layer of {ground.network.name!r} may have fewer bits",
                hint="protect fewer layers; convolutions and linear maps have weights",
            )
        self._bits = np.array(sorted(set(ground.bits) | {32}), np.int64)
        self._genes = len(self._layers) * (2 if ground.activations else 1)

    @property
    def levels(self) -> Genome:
        return np.full(self._genes, len(self._bits), np.int64)

    def seeds(self) -> list[Genome]:
        """The same width everywhere, 32 first."""
        return [np.full(self._genes, level, np.int64) for level in reversed(range(len(self._bits)))]

    def sample(self, rng: np.random.Generator) -> Genome:
        """A range of widths first, then each layer within it."""
        low, high = sorted(rng.integers(0, len(self._bits), 2).tolist())
        return rng.integers(low, high + 1, self._genes)

    def repair(self, genome: Genome) -> Genome:
        return np.clip(genome, 0, self.levels - 1)

    def crossover(
        self, one: Genome, other: Genome, rng: np.random.Generator
    ) -> tuple[Genome, Genome]:
        return swapped(one, other, rng.random(len(one)) < 0.5)

    def mutate(self, genome: Genome, rng: np.random.Generator) -> Genome:
        moving = few_places(len(genome), rng)
        near = genome + rng.choice([-1, 1], len(genome))
        far = rng.integers(0, self.levels)
        moved = np.where(rng.random(len(genome)) < NEIGHBOUR, near, far)
        return self.repair(np.where(moving, moved, genome))

    def express(self, genome: Genome) -> Variant:
        widths = self._bits[genome].tolist()
        count = len(self._layers)
        inputs = dict(zip(self._layers, widths[count:], strict=False))
        return Variant((), dict(zip(self._layers, widths[:count], strict=True)), inputs)

    def describe(self, genome: Genome) -> dict[str, Any]:
        variant = self.express(genome)
        told: dict[str, Any] = {"weight_bits": dict(variant.weight_bits)}
        if variant.activation_bits:
            told["activation_bits"] = dict(variant.activation_bits)
        return told


def layers_with_weights(ground: Ground) -> list[str]:
    """Paths of convolutions and linear maps that may be quantized, in the order of the forward."""
    modules = dict(ground.network.module.named_modules())
    paths = [
        layer.path
        for layer in ground.analysis.layers
        if layer.path not in ground.fixed
        and layer.kind != "embedding"
        and layer.weight == f"{layer.path}.weight"
        and hasattr(modules.get(layer.path), "weight")
    ]
    return list(dict.fromkeys(paths))

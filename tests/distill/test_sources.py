"""Batches as networks take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.distill.sources import examples_for
from lilliput.network import Network
from lilliput.steps.distill import Distill
from lilliput.steps.finetune import Finetune
from lilliput.steps.prune_channels import PruneChannels
from lilliput.steps.prune_weights import PruneWeights
from lilliput.testing import tiny_context, tiny_network


class OfFour(nn.Module):
    """Takes four examples at a time, and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(512, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.bn(self.conv(x))).reshape(4, -1))  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "step",
    [
        Finetune(epochs=1),
        Distill(epochs=1),
        PruneWeights(density=0.5),
        PruneChannels(ratio=0.25, criterion="taylor"),
    ],
    ids=lambda step: step.name,
)
def test_a_network_of_one_batch_size_gets_batches_of_that(step: Any, tmp_path: Path) -> None:
    network = Network(OfFour().eval(), (TensorSpec(name="x", shape=(4, 3, 8, 8)),), "four")
    context = tiny_context(tmp_path, original=Candidate("original", network=network))
    step.requires(context.original, context)
    made = step.apply(context.original, context).the_network()
    assert made.module(*made.example()).shape == (4, 4)


def test_a_batch_is_as_large_as_the_epoch_has_examples(tmp_path: Path) -> None:
    """Few pictures are many patches."""
    context = tiny_context(tmp_path, "super_resolution")
    source = examples_for(tiny_network("super_resolution"), context, 16)
    pictures = len(context.data.train)
    assert context.task.epoch_steps(context.data.train, 1) > 16 > pictures
    inputs, _ = next(source.epoch(context.rng("a")))
    assert len(inputs[0]) == 16

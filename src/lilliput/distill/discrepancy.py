"""The distance between two clouds of features without a game: maximum mean discrepancy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lilliput.distill.features import Adapter, pooled
from lilliput.distill.losses import Observed

REACHES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Kernels' widths, as shares of the mean squared distance between all features of a batch."""


def discrepancy(ours: Tensor, theirs: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of (B, width) features, Gaussian kernels summed.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, equation 5 (biased, so that it
    is never negative).
    """
    both = torch.cat([ours, theirs])
    squares = both.square().sum(1)
    distances = (squares[:, None] + squares[None] - 2 * both @ both.T).clamp_min(0)
    reach = distances.detach().mean().clamp_min(1e-12)
    kernels = torch.stack([(-distances / (share * reach)).exp() for share in REACHES]).mean(0)
    n = len(ours)
    return kernels[:n, :n].mean() + kernels[n:, n:].mean() - 2 * kernels[:n, n:].mean()


class Discrepancy(nn.Module):
    """A loss term: the student's features of a batch should be spread as the teacher's are."""

    def __init__(self, adapter: Adapter, taps: tuple[str, str], *, weight: float) -> None:
        super().__init__()
        self.adapter, self.weight = adapter, weight
        self.taps, self.teacher_taps = (taps[0],), (taps[1],)

    def forward(self, seen: Observed) -> Tensor:
        theirs = pooled(seen.teacher_features[self.teacher_taps[0]])
        ours = self.adapter(pooled(seen.features[self.taps[0]]))
        return discrepancy(ours, theirs)

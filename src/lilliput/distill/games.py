"""Losses of the game between a discriminator and a student, on logits: no logarithm of zero.

Sources: Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, section 3 (minimax and the
non-saturating form); Mao et al., "Least Squares GAN", ICCV 2017, equation 9; Lim and Ye,
"Geometric GAN", arXiv 1705.02894, section 3 (hinge).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Game:
    """Two losses of logits (B,): the discriminator's, of real and fake, and the student's.

    A logit above `border` says "the teacher". `blind` is the discriminator's loss at its best
    constant logit: all that it can reach where both are alike.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    student: Callable[[Tensor], Tensor]
    border: float = 0.0
    blind: float = 2 * math.log(2)


def _cross_entropy(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


GAMES = {
    "nonsaturating": Game(_cross_entropy, lambda fake: F.softplus(-fake).mean()),
    "minimax": Game(_cross_entropy, lambda fake: -F.softplus(fake).mean()),
    "lsgan": Game(
        lambda real, fake: (real - 1).square().mean() + fake.square().mean(),
        lambda fake: (fake - 1).square().mean(),
        border=0.5,
        blind=0.5,
    ),
    "hinge": Game(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda fake: -fake.mean(),
        blind=2.0,
    ),
}
"""Names of the games. `nonsaturating` still has a gradient where the discriminator is sure."""

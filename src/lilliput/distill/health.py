"""How the game between discriminator and student stands, told after each epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from lilliput.distill.games import Game

SURE = 0.95
"""A discriminator right more often than this, two epochs running, learns at half its rate."""

PATIENCE = 2


class Health:
    """Sums over an epoch; `told` is what the last finished one came to.

    `rival_edge` is by how much the discriminator's loss is below that of one that cannot tell: of
    the cross-entropy games 2 log 2 - L_D, about twice the Jensen-Shannon divergence (Goodfellow
    et al., NeurIPS 2014, theorem 1).
    """

    def __init__(self, game: Game) -> None:
        self.game, self.sure = game, 0
        self.told: dict[str, float] = {}
        self._sums: dict[str, Tensor] = {}
        self._gradients: dict[str, float] = {}
        self._batches = 0

    def add(
        self, of_real: Tensor, of_fake: Tensor, loss: Tensor, real: Tensor, fake: Tensor
    ) -> None:
        """One batch: logits (B,), the discriminator's loss, and features (B, width)."""
        figures = {
            "rival_right_on_real": (of_real > self.game.border).float().mean(),
            "rival_right_on_fake": (of_fake <= self.game.border).float().mean(),
            "rival_logit_of_real": of_real.mean(),
            "rival_logit_of_fake": of_fake.mean(),
            "rival_norm_ratio": mean_norm(fake) / mean_norm(real).clamp_min(1e-9),
            "rival_edge": self.game.blind - loss,
        }
        for name, figure in figures.items():
            self._sums[name] = self._sums.get(name, torch.zeros(())) + figure.detach().cpu()
        self._batches += 1

    @property
    def wants_gradients(self) -> bool:
        """Norms of gradients are compared on the first batch of an epoch; they cost a little."""
        return self._batches == 1

    def compare(self, features: Tensor, weighted: Tensor) -> None:
        """Note the norm of the adversarial gradient at the student's features over all others'."""
        if not features.requires_grad:
            return
        (ours,) = torch.autograd.grad(weighted, features, retain_graph=True)

        def note(total: Tensor) -> None:
            others, mine = float((total - ours).norm()), float(ours.norm())
            # A training in bfloat16 taps a copy in float32, which the other losses do not go by.
            if others > 1e-3 * mine:
                self._gradients["rival_gradient_share"] = mine / others

        features.register_hook(note)  # type: ignore[no-untyped-call]  # torch's own

    def close(self) -> bool:
        """An epoch is over. True if the discriminator has been too sure for too long."""
        means = {name: float(total) / self._batches for name, total in self._sums.items()}
        self.told = {**means, **self._gradients}
        self._sums, self._gradients, self._batches = {}, {}, 0
        right = (means["rival_right_on_real"] + means["rival_right_on_fake"]) / 2
        self.sure = self.sure + 1 if right > SURE else 0
        if self.sure < PATIENCE:
            return False
        self.sure = 0
        return True


def mean_norm(features: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean norm of (B, width) features."""
    norms: Tensor = torch.linalg.vector_norm(features, dim=1)
    return norms.mean()

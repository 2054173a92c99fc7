"""Weights that become zero during a training, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lilliput.distill.companions import Companion, parameters_of

Choose = Callable[[Mapping[str, Tensor], float], Mapping[str, Tensor]]
"""Masks of the weights that stay, from the weights by name and the level, 0 (all) to 1 (few)."""

INTERVAL = 0.005
"""Masks are chosen anew after each such share of the training."""


def cubic(share: float) -> float:
    """The share of the final sparsity that is reached after `share` of the ramp, 0 to 1.

    Source: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878, section 3.
    """
    return 1.0 - (1.0 - min(max(share, 0.0), 1.0)) ** 3


class Sparsening(Companion):
    """Raises the sparsity by the cubic rule; from `settled` on the masks are final.

    Without `regrow` a weight that went is gone: gradient and optimiser state are kept at zero with
    it, so that neither momentum nor decay moves it. With `regrow` a hidden dense copy learns on by
    the gradients that the masked weights get, and a weight comes back where its copy has grown.

    Sources: Zhu and Gupta, arXiv 1710.01878, section 3 (schedule); Guo, Yao, Chen, "Dynamic network
    surgery", NIPS 2016, section 3.2 (regrowth).
    Differs: surgery keeps two thresholds and flips by chance; here the budget's ranking decides.
    Dropout stays as the network's author set it, where Han et al., NIPS 2015, section 3.2, lower it
    with the root of the share that is left: it belongs to the user's module, small networks seldom
    have any, and the original's answers regularise too.
    """

    def __init__(
        self,
        names: Sequence[str],
        choose: Choose,
        *,
        settled: float = 0.75,
        regrow: bool = False,
    ) -> None:
        self.names, self.choose = tuple(names), choose
        self.settled, self.regrow = settled, regrow
        self.weights: dict[str, nn.Parameter] = {}
        self.masks: dict[str, Tensor] = {}
        self.dense: dict[str, Tensor] = {}
        self.chosen_at = -1.0
        self.optimizer: torch.optim.Optimizer | None = None

    def begin(self, student: nn.Module) -> None:
        found = parameters_of(student, self.names)
        self.weights = dict(zip(self.names, found, strict=True))
        self.masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in self.weights.items()}
        self._choose(0.0)
        self._impose()

    def optimizing(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def graded(self, share: float) -> None:  # noqa: ARG002
        """The optimiser is to move the dense copy, or the survivors alone."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                if self._hiding():
                    weight.copy_(self.dense[name])
                elif weight.grad is not None:
                    weight.grad.mul_(self.masks[name])

    def stepped(self, share: float) -> None:
        if self.chosen_at < self.settled:
            if share >= self.settled:
                self._settle()
            elif share >= self.chosen_at + INTERVAL:
                self._choose(share)
        self._impose()

    def end(self) -> None:
        """A training too short to settle ends with the final masks all the same."""
        if self.chosen_at < self.settled:
            with torch.no_grad():
                for name in self.dense if self.regrow else ():
                    self.weights[name].copy_(self.dense[name])
            self._settle()
        self._impose()

    def facts(self) -> dict[str, float]:
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return {"density": kept / max(sum(mask.numel() for mask in self.masks.values()), 1)}

    def state(self) -> dict[str, Any]:
        return {"masks": self.masks, "dense": self.dense, "chosen_at": self.chosen_at}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.masks, self.dense = dict(state["masks"]), dict(state["dense"])
        self.chosen_at = float(state["chosen_at"])

    def _hiding(self) -> bool:
        """Whether the weights seen are a masked view of a dense copy."""
        return self.regrow and self.chosen_at < self.settled

    def _choose(self, share: float) -> None:
        """Masks for this share of the training, from the weights as they are now."""
        values = {name: weight.detach() for name, weight in self.weights.items()}
        self.masks = dict(self.choose(values, cubic(share / self.settled)))
        self.chosen_at = share
        if not self.regrow:
            self._forget()

    def _settle(self) -> None:
        self._choose(self.settled)
        self._forget()
        self.dense = {}

    def _impose(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                if self._hiding():
                    self.dense[name] = weight.detach().clone()
                # Not a product: that would leave -0.0, and NaN where a weight overflowed.
                weight.masked_fill_(~self.masks[name], 0.0)

    def _forget(self) -> None:
        """Momentum of weights that are gone would move them, and wrongly if they ever came back."""
        if self.optimizer is None:
            return
        for name, weight in self.weights.items():
            for kept in self.optimizer.state.get(weight, {}).values():
                if isinstance(kept, Tensor) and kept.shape == weight.shape:
                    kept.masked_fill_(~self.masks[name], 0.0)

"""A discriminator between teacher and student features, and the student's loss against it.

Sources: Wang, Xu, Xu, Tao, "Adversarial Learning of Portable Student Networks", AAAI 2018 (the
idea: a discriminator as teaching assistant on features); Belagiannis et al., "Adversarial Network
Compression", arXiv 1803.10750 (fully connected discriminator on the last features).
Differs: only the paper's abstract was at hand; its network, weights and schedule are ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from lilliput.distill.companions import Companion
from lilliput.distill.features import Adapter, pooled
from lilliput.distill.games import GAMES
from lilliput.distill.health import Health
from lilliput.distill.losses import Observed

Condition = Literal["none", "label", "teacher"]


class Discriminator(nn.Module):
    """(B, width) features and (B, condition) facts about the picture → (B,) logits.

    Linear layers with LeakyReLU(0.2) between them; each has spectral norm 1 if `spectral`, so that
    logits differ by no more than the features do. No batch norm: it would mix both kinds.

    Source of the norm: Miyato et al., "Spectral Normalization for GANs", ICLR 2018, section 2.1.
    """

    def __init__(
        self,
        width: int,
        condition: int = 0,
        *,
        hidden: Sequence[int] = (256, 128),
        spectral: bool = True,
        dropout: float = 0.3,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.generator = torch.Generator().manual_seed(seed)
        sizes = [width + condition, *hidden, 1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
            self.layers = nn.ModuleList([spectral_norm(x) for x in layers] if spectral else layers)

    def forward(self, features: Tensor, condition: Tensor | None = None) -> Tensor:
        x = self._thinned(features)
        if condition is not None:
            x = torch.cat([x, condition], 1)
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        logits: Tensor = self.layers[-1](x).squeeze(1)
        return logits

    def _thinned(self, features: Tensor) -> Tensor:
        """Dropout from a generator of its own: the student's draws are not to depend on it."""
        if not self.training or self.dropout == 0:
            return features
        drawn = torch.rand(features.shape, generator=self.generator).to(features.device)
        return features * (drawn >= self.dropout) / (1 - self.dropout)


@dataclass(frozen=True)
class Ramp:
    """Weight of the adversarial loss along a training: nothing, a linear rise, all of it, a fall.

    Shares of the training: `warmup` without, `rise`, and `decay` down to nothing at the end.
    """

    weight: float
    warmup: float = 0.15
    rise: float = 0.1
    decay: float = 0.0

    def at(self, share: float) -> float:
        if share < self.warmup:
            return 0.0
        up = (share - self.warmup) / self.rise if self.rise else 1.0
        down = (1 - share) / self.decay if self.decay else 1.0
        return self.weight * min(up, down, 1.0)


@dataclass(frozen=True)
class Rules:
    """How the discriminator learns: its game, condition, Adam's rate, and R1's weight.

    R1 of Mescheder et al., "Which Training Methods for GANs do actually Converge?", ICML 2018,
    section 4.1: half the squared gradient of the logit at the teacher's features.
    """

    game: str = "nonsaturating"
    condition: Condition = "none"
    learning_rate: float = 5e-4
    r1: float = 0.0


class Rival(Companion):
    """The discriminator in a training: it learns from each batch before the student does.

    Features of both are divided by the root mean square of the teacher's in the first batch.
    Differs: the specification divides by the mean norm; with a spectral norm of 1 in every layer
    logits would then hardly differ.
    """

    def __init__(
        self,
        discriminator: Discriminator,
        adapter: Adapter,
        taps: tuple[str, str],
        rules: Rules,
        ramp: Ramp,
    ) -> None:
        self.discriminator = discriminator.requires_grad_(False)
        self.adapter, self.taps = adapter, taps
        self.rules, self.ramp, self.game = rules, ramp, GAMES[rules.game]
        self.optimizer = torch.optim.Adam(
            discriminator.parameters(), lr=rules.learning_rate, betas=(0.5, 0.999)
        )
        self.health = Health(self.game)
        self.scale = 0.0
        self.weight = 0.0

    def begin(self, student: nn.Module) -> None:
        device = next(student.parameters()).device
        self.discriminator.to(device)

    def observed(self, seen: Observed, share: float) -> None:
        self.weight = self.ramp.at(share)
        with torch.no_grad():
            real = pooled(seen.teacher_features[self.taps[1]])
            if self.scale == 0:
                self.scale = max(float(real.square().mean().sqrt()), 1e-6)
            real, fake = real / self.scale, self.mapped(seen)
            condition = self.condition_of(seen)
        self.learn(real, fake, condition)

    def learn(self, real: Tensor, fake: Tensor, condition: Tensor | None) -> None:
        """One step of Adam on (B, width) features that carry no gradient of their own."""
        self.discriminator.requires_grad_(True).train()
        real = real.detach().requires_grad_(self.rules.r1 > 0)
        both = None if condition is None else torch.cat([condition, condition])
        logits = self.discriminator(torch.cat([real, fake]), both)
        of_real, of_fake = logits[: len(real)], logits[len(real) :]
        loss = self.game.discriminator(of_real, of_fake)
        self.health.add(of_real, of_fake, loss, real, fake)
        if self.rules.r1 > 0:
            loss = loss + self.rules.r1 / 2 * squared_gradient(of_real, real)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's own
        self.optimizer.step()
        self.discriminator.requires_grad_(False).eval()

    def mapped(self, seen: Observed) -> Tensor:
        """The student's features as the discriminator sees them, (B, width)."""
        features: Tensor = self.adapter(pooled(seen.features[self.taps[0]]))
        return features / self.scale

    def condition_of(self, seen: Observed) -> Tensor | None:
        """What the discriminator is told about each picture, (B, classes); None for nothing."""
        if self.rules.condition == "none":
            return None
        if self.rules.condition == "teacher":
            assert seen.teacher_output is not None
            return seen.teacher_output.float().softmax(1)
        assert seen.target is not None
        return F.one_hot(seen.target.long(), seen.output.shape[1]).float()

    def epoch_over(self) -> None:
        if self.health.close():
            for group in self.optimizer.param_groups:
                group["lr"] /= 2

    def facts(self) -> dict[str, float]:
        rate = self.optimizer.param_groups[0]["lr"]
        return {**self.health.told, "rival_rate": rate, "rival_weight": self.weight}

    def state(self) -> dict[str, Any]:
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "draws": self.discriminator.generator.get_state(),
            "scale": self.scale,
            "sure": self.health.sure,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.discriminator.generator.set_state(state["draws"])
        self.scale, self.health.sure = float(state["scale"]), int(state["sure"])


class Deception(nn.Module):
    """The student's loss: its features should pass for the teacher's.

    The rival sets the weight, which depends on how far the training is. The adapter is a part of
    this term, so that it is trained with the student; the rival is none.
    """

    def __init__(self, rival: Rival) -> None:
        super().__init__()
        self.adapter = rival.adapter
        self._rival = rival
        self.taps, self.teacher_taps = (rival.taps[0],), (rival.taps[1],)

    @property
    def weight(self) -> float:
        return self._rival.weight

    def forward(self, seen: Observed) -> Tensor:
        rival = self._rival
        logits = rival.discriminator(rival.mapped(seen), rival.condition_of(seen))
        loss = rival.game.student(logits)
        if rival.health.wants_gradients and self.weight > 0:
            rival.health.compare(seen.features[rival.taps[0]], self.weight * loss)
        return loss


def squared_gradient(logits: Tensor, features: Tensor) -> Tensor:
    """Mean over the batch of the squared norm of the logits' gradient at (B, width) features."""
    (gradient,) = torch.autograd.grad(logits.sum(), features, create_graph=True)
    return gradient.square().sum(1).mean()

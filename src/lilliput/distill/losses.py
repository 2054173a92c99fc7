"""Loss terms of the one training loop: each is a weight and a function of one batch.

Sources: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531,
section 2 (soft targets); Romero et al., "FitNets", ICLR 2015, section 2.2 (hints).
Differs: FitNets trains hints first and the rest after; here all terms are summed in one phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.errors import LilliputError, nearest
from lilliput.network import flat_outputs
from lilliput.tasks.base import Task

INPUT = ".input"
"""After a layer's path: the features that go into it, where the path alone is what comes out."""


@dataclass(frozen=True)
class Observed:
    """What one batch gave: outputs, the truth (None if unknown), features by module path."""

    output: Tensor
    target: Tensor | None = None
    teacher_output: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, Tensor] = field(default_factory=dict)


class LossTerm(Protocol):
    """One summand. `weight` scales it; `taps` are the features it wants to see, as in `Taps`.

    A term whose teacher calls its layers otherwise has `teacher_taps` beside them.
    """

    @property
    def weight(self) -> float: ...

    @property
    def taps(self) -> tuple[str, ...]: ...

    def __call__(self, seen: Observed) -> Tensor:
        """A scalar, unweighted."""


@dataclass(frozen=True)
class Truth:
    """The task's own loss against the labels."""

    task: Task
    weight: float = 1.0
    taps: tuple[str, ...] = ()

    def __call__(self, seen: Observed) -> Tensor:
        if seen.target is None:
            raise LilliputError(
                "the training examples have no labels",
                hint="use `distill`, which learns from the teacher alone, or add labels",
            )
        return self.task.loss(seen.output, seen.target)


@dataclass(frozen=True)
class Imitation:
    """The task's loss against the teacher's output."""

    task: Task
    weight: float = 1.0
    temperature: float = 4.0
    taps: tuple[str, ...] = ()

    def __call__(self, seen: Observed) -> Tensor:
        assert seen.teacher_output is not None
        return self.task.imitation(seen.output, seen.teacher_output, temperature=self.temperature)


def scored_terms(
    task: Task, imitation: float, temperature: float, *, labelled: bool
) -> list[LossTerm]:
    """The task's loss and the imitation of the teacher's scores; the latter alone unlabelled."""
    terms: list[LossTerm] = []
    if labelled and imitation < 1:
        terms.append(Truth(task, weight=1 - imitation))
    weight = imitation if labelled else 1.0
    if weight > 0:
        terms.append(Imitation(task, weight, temperature))
    return terms


class Hints(nn.Module):
    """Mean squared distance between normalised features of student and teacher.

    A tap of (B, C_s, ...) features against (B, C_t, ...) gets a linear map over channels, trained
    along and never exported, where C_s ≠ C_t; spatial sizes must agree. `called` is {tap: what the
    teacher calls it}, where that differs.
    Features are divided by the teacher's root mean square, so that `weight` means the same at
    every depth.
    """

    def __init__(
        self,
        channels: Mapping[str, tuple[int, int]],
        *,
        weight: float,
        called: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.weight, self.taps = weight, tuple(channels)
        self.teacher_taps = tuple((called or {}).get(tap, tap) for tap in self.taps)
        generator = torch.Generator().manual_seed(seed)
        self.adapters = nn.ParameterDict()
        for tap, (ours, theirs) in channels.items():
            if ours != theirs:
                weights = torch.randn(theirs, ours, generator=generator) / ours**0.5
                self.adapters[tap.replace(".", "/")] = nn.Parameter(weights)

    def forward(self, seen: Observed) -> Tensor:
        total = seen.output.new_zeros(())
        for tap, teacher_tap in zip(self.taps, self.teacher_taps, strict=True):
            ours, theirs = seen.features[tap], seen.teacher_features[teacher_tap]
            key = tap.replace(".", "/")
            if key in self.adapters:
                ours = torch.einsum("tc,bc...->bt...", self.adapters[key], ours)
            scale = theirs.detach().pow(2).mean().sqrt().clamp_min(1e-6)
            total = total + F.mse_loss(ours / scale, theirs / scale)
        return total / max(len(self.taps), 1)


class Taps:
    """Records features of named modules during a forward pass; a context manager.

    "fc" is the output of the module at that path, "fc.input" its first input.
    """

    def __init__(self, module: nn.Module, paths: tuple[str, ...]) -> None:
        known = dict(module.named_modules())
        self._modules: dict[str, tuple[nn.Module, bool]] = {}
        for path in paths:
            bare = path.removesuffix(INPUT)
            if path not in known and bare not in known:
                raise LilliputError(
                    f"no layer {bare!r} to take features from", hint=nearest(bare, known)
                )
            self._modules[path] = (known[path if path in known else bare], path not in known)
        self.features: dict[str, Tensor] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> Taps:
        for path, (module, before) in self._modules.items():
            if before:
                hook = self._keep_input(path)
                self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                self._handles.append(module.register_forward_hook(self._keep(path)))
        return self

    # What follows gets a copy, for it may work in place, and gradients still pass the feature.

    def _keep_input(self, path: str):  # type: ignore[no-untyped-def]  # torch's own hook signature
        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> Any:
            if inputs:
                self.features[path] = inputs[0].float()
                return (inputs[0].clone(), *inputs[1:]), named
            name, first = next(iter(named.items()))
            self.features[path] = first.float()
            return inputs, {**named, name: first.clone()}

        return hook

    def _keep(self, path: str):  # type: ignore[no-untyped-def]  # torch's own hook signature
        def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
            # A training in bfloat16 hands out features in it; losses are sums, and want all digits.
            self.features[path] = flat_outputs(output)[0].float()
            return output.clone() if isinstance(output, Tensor) else None

        return hook

    def __exit__(self, *_exc: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

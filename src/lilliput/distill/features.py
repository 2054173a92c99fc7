"""Features that two networks are compared by: where they are, how wide, and a map between them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lilliput.distill.losses import INPUT, Taps
from lilliput.errors import LilliputError, Refused, nearest
from lilliput.network import Edit, Network


def hinted_channels(student: Network, teacher: Network, taps: tuple[str, str]) -> tuple[int, int]:
    """Channels (dimension 1) of the student's features and of the teacher's, each at its tap.

    Raises:
        Refused: All that is not channels differs, so that the features cannot be held together.
    """
    ours, theirs = (
        example_features(network, tap).shape
        for network, tap in zip((student, teacher), taps, strict=True)
    )
    if ours[2:] != theirs[2:]:
        told = " and ".join("×".join(map(str, shape[1:])) for shape in (ours, theirs))
        raise Refused(
            f"the features at {taps[0]!r} and at the teacher's {taps[1]!r} differ in more than "
            f"channels: {told}",
            hint="name layers that see pictures at one size",
        )
    return ours[1], theirs[1]


def example_features(network: Network, tap: str) -> Tensor:
    """What a random input of two examples gives at this tap, in eval mode.

    Raises:
        LilliputError: The network has no such layer; the nearest names are told.
        Refused: Its forward pass does not go through it.
    """
    try:
        taps = Taps(network.module, (tap,))
    except LilliputError as error:
        where = f"the network {network.name!r}"
        raise LilliputError(error.thing, at=where, hint=error.hint) from error
    with torch.no_grad(), taps as tapped:
        network.module(*network.example(2))
    if tap not in tapped.features:
        raise Refused(
            f"the layer of {tap!r} is not used by the network {network.name!r}",
            hint="name a layer that its forward pass goes through",
        )
    return tapped.features[tap]


def last_features(network: Network) -> str:
    """The tap of what goes into the last linear layer, as `forward` uses them.

    Raises:
        Refused: No linear layer takes part; the hint names layers that could be tapped.
    """
    used: list[str] = []
    handles = [
        layer.register_forward_pre_hook(lambda _module, _inputs, path=path: used.append(path))
        for path, layer in network.module.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        with torch.no_grad():
            network.module(*network.example(2))
    finally:
        for handle in handles:
            handle.remove()
    if not used:
        layers = [path for path, _ in network.module.named_modules() if path]
        raise Refused(
            f"the network {network.name!r} has no linear layer whose input could be compared",
            hint="name a layer with `layer`: " + nearest("", layers),
        )
    return used[-1] + INPUT


def pooled(features: Tensor) -> Tensor:
    """(B, C, ...) features averaged over all that is not channels: (B, C)."""
    return features.flatten(2).mean(2) if features.ndim > 2 else features


class Adapter(nn.Module):
    """Linear map (B, ours) → (B, theirs), trained along with the student and never exported.

    `relu` is for teachers whose features come after one: exact zeros alone would give a student
    away. `kept` are the teacher's positions that the student's features had before a cut; the map
    then begins as the identity on them. Widths that agree need no map.
    """

    def __init__(
        self, ours: int, theirs: int, *, relu: bool, kept: Sequence[int] = (), seed: int = 0
    ) -> None:
        super().__init__()
        self.needed, self.relu = ours != theirs, relu
        if not self.needed:
            return
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(theirs, ours, generator=generator) / ours**0.5
        if len(kept) == ours:
            weights = torch.eye(theirs)[:, list(kept)]
        self.weight = nn.Parameter(weights)
        self.bias = nn.Parameter(torch.zeros(theirs))

    def forward(self, features: Tensor) -> Tensor:
        if not self.needed:
            return features
        mapped = features @ self.weight.T + self.bias
        return mapped.relu() if self.relu else mapped


def kept_inputs(edits: Sequence[Edit], layer: str, width: int) -> tuple[int, ...]:
    """Which of `width` inputs a layer still has after these edits (`Network.edits`)."""
    kept = list(range(width))
    for edit in edits:
        for removal in edit.get("removed", ()):
            if removal["tensor"] == f"{layer}.weight" and removal["dim"] == 1:
                if removal["of"] != len(kept):
                    return ()
                gone = set(removal["indices"])
                kept = [index for at, index in enumerate(kept) if at not in gone]
    return tuple(kept)

"""Units that no weight feeds or none reads go, and the network computes what it did.

A unit that nothing feeds emits a constant; what its readers make of it is moved into their biases.
Then nothing reads it, and it is cut like any channel.

Source: Han et al., NIPS 2015, section 3.5 (removal of neurons without connections).
Differs: there training drives the other side to zero; here the constant is folded, at once and
exactly. A convolution that pads reads the constant except at the border: such units stay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.network import Network, flat_outputs
from lilliput.prune.analysis import Analysis, Slot
from lilliput.prune.cutting import CutDiffers, cut
from lilliput.prune.groups import analyse
from lilliput.prune.trace import run
from lilliput.prune.trial import TOLERANCE, difference

Readers = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
EXAMPLES = 8


def without_dead(network: Network) -> Network:
    """The network without its dead units, equal to it within 1e-5 of its largest output.

    Args:
        network: Left as it is, and returned as it is where nothing is dead or can be cut.
    """
    analysis = analyse(network)
    folded = network.copy()
    gone = bury(folded, analysis)
    if not gone:
        return network
    try:
        smaller = cut(folded, analysis, gone)
    except CutDiffers:
        return network
    inputs = network.example(EXAMPLES, seed=3)
    with torch.no_grad():
        ours, reference = (flat_outputs(run(n, n.module, inputs)) for n in (smaller, network))
    return smaller if difference(ours, reference) <= TOLERANCE else network


def bury(network: Network, analysis: Analysis) -> list[int]:
    """Zero every slice of the classes that are dead, in place, their constants folded.

    A unit that went may have been the last to read another, so it goes round until none is left.
    Each group keeps one channel.
    """
    gone: list[int] = []
    burial = _Burial(network, analysis)
    while True:
        constants, before = burial.constants(), len(gone)
        for number in burial.open(gone):
            if analysis.emptied([*gone, number]) is None and burial.dead(number, constants):
                burial.close(number, constants)
                gone.append(number)
        if len(gone) == before:
            return sorted(gone)


class _Burial:
    """The dimensions of each class, and what the layers that read it see of it."""

    def __init__(self, network: Network, analysis: Analysis) -> None:
        self.network, self.analysis = network, analysis
        module = network.module
        self.tensors: dict[str, Tensor] = dict(module.named_parameters()) | dict(
            module.named_buffers()
        )
        self.modules = dict(module.named_modules())
        self.kept = {t.name for t in analysis.tensors if t.kept_by_mask}
        self.through = {layer.weight for layer in analysis.layers if layer.kind == "depthwise"}
        self.slots: dict[int, list[Slot]] = {}
        for slot in analysis.slots:
            for number in np.unique(slot.classes[slot.classes >= 0]).tolist():
                self.slots.setdefault(number, []).append(slot)

    def open(self, gone: list[int]) -> list[int]:
        """Classes that may go and have not."""
        free = [number for number, reason in enumerate(self.analysis.reasons) if not reason]
        return sorted(set(free).intersection(self.slots) - set(gone))

    def dead(self, number: int, constants: Mapping[str, Tensor]) -> bool:
        """Nothing reads it; or nothing feeds it, and all its readers can take its constant."""
        readers = [slot for slot in self.slots[number] if slot.reads]
        if readers and all(not self._slice(slot, number).any() for slot in readers):
            return True
        feeding = [
            slot
            for slot in self.slots[number]
            if not slot.reads
            and slot.tensor not in self.through
            and self.tensors[slot.tensor].ndim > 1
        ]
        if not readers or not feeding or any(self._slice(s, number).any() for s in feeding):
            return False
        return all(self._takes(slot, number, constants) for slot in readers)

    def close(self, number: int, constants: Mapping[str, Tensor]) -> None:
        """Fold what the class emits into its readers' biases, and zero all that belongs to it."""
        with torch.no_grad():
            for slot in self.slots[number]:
                indices = _indices(slot, number)
                weight = self.tensors[slot.tensor]
                if slot.reads and self._slice(slot, number).any():
                    owner = self._owner(slot)
                    assert owner is not None
                    assert owner.bias is not None or not constants[slot.tensor][indices].any()
                    if owner.bias is not None:
                        read = weight.index_select(1, indices).reshape(
                            len(weight), len(indices), -1
                        )
                        owner.bias += read.sum(2) @ constants[slot.tensor][indices].to(read)
                if slot.tensor not in self.kept:
                    weight.index_fill_(slot.dim, indices, 0)

    def constants(self) -> dict[str, Tensor]:
        """By weight, what its layer reads of every channel: the value, NaN where it varies."""
        seen: dict[str, list[Tensor]] = {}
        with _inputs_seen(self.modules, seen), torch.no_grad():
            for seed in (1, 2):
                inputs = self.network.example(EXAMPLES, seed=seed)
                run(self.network, self.network.module, inputs)
        return {name: _constant(values) for name, values in seen.items()}

    def _takes(self, slot: Slot, number: int, constants: Mapping[str, Tensor]) -> bool:
        if not self._slice(slot, number).any():
            return True
        owner = self._owner(slot)
        if owner is None or slot.dim != 1 or slot.tensor not in constants:
            return False
        values = constants[slot.tensor][_indices(slot, number)]
        if values.isnan().any():
            return False
        if not values.any():
            return True
        return owner.bias is not None and not _pads(owner)

    def _owner(self, slot: Slot) -> Readers | None:
        path, _, key = slot.tensor.rpartition(".")
        owner = self.modules.get(path)
        ours = isinstance(owner, Readers) and key == "weight" and getattr(owner, "groups", 1) == 1
        return owner if ours and isinstance(owner, Readers) else None

    def _slice(self, slot: Slot, number: int) -> Tensor:
        return self.tensors[slot.tensor].index_select(slot.dim, _indices(slot, number))


def _indices(slot: Slot, number: int) -> Tensor:
    return torch.from_numpy(np.flatnonzero(slot.classes == number))


def _pads(owner: Readers) -> bool:
    """Whether the layer reads zeros beyond the border."""
    if isinstance(owner, nn.Linear):
        return False
    return owner.padding_mode == "zeros" and (
        owner.padding == "same" or any(p != 0 for p in owner.padding if not isinstance(p, str))
    )


@contextmanager
def _inputs_seen(modules: Mapping[str, nn.Module], seen: dict[str, list[Tensor]]) -> Iterator[None]:
    """Keep what linear layers and convolutions read, by the name of their weight: (n, channels)."""
    handles = []
    for path, part in modules.items():
        if not isinstance(part, Readers):
            continue
        channel = -1 if isinstance(part, nn.Linear) else 1

        def keep(
            _part: nn.Module,
            given: tuple[Tensor, ...],
            named: Mapping[str, Tensor],
            name: str = f"{path}.weight" if path else "weight",
            channel: int = channel,
        ) -> None:
            rows = next(iter((*given, *named.values()))).detach().movedim(channel, -1)
            seen.setdefault(name, []).append(rows.reshape(-1, rows.shape[-1]))

        handles.append(part.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _constant(seen: list[Tensor]) -> Tensor:
    rows = torch.cat(seen)
    same = (rows == rows[:1]).all(0)
    return torch.where(same, rows[0], torch.nan)

"""On random networks, any cut of any channels computes what the zeroed network does."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from lilliput.artifact import TensorSpec
from lilliput.network import Network
from lilliput.prune import analyse, cut, replay
from lilliput.testing.zoo import shake

KINDS = (
    "conv", "grouped", "depthwise", "residual", "dense", "branch_add", "shuffle", "chunk",
    "pixel_unshuffle", "zero_pad", "norm", "excite", "pool", "instance", "slices", "transposed",
)  # fmt: skip


class Layer(nn.Module):
    """One construct; `outputs` is what it makes of `width` channels."""

    def __init__(self, kind: str, width: int, outputs: int):  # noqa: C901
        super().__init__()
        self.kind, self.outputs = kind, width
        if kind in ("conv", "branch_add", "dense", "residual", "transposed"):
            made = width if kind == "residual" else outputs
            cls = nn.ConvTranspose2d if kind == "transposed" else nn.Conv2d
            self.conv = cls(width, made, 3, padding=1)
            self.outputs = width + made if kind == "dense" else made
        if kind == "branch_add":
            self.side = nn.Conv2d(width, outputs, 1, bias=False)
        if kind == "grouped":
            self.conv = nn.Conv2d(width, width, 3, padding=1, groups=2)
        if kind == "depthwise":
            self.conv = nn.Conv2d(width, 2 * width, 3, padding=1, groups=width)
            self.outputs = 2 * width
        if kind == "pixel_unshuffle":
            self.conv = nn.Conv2d(width * 4, width, 1)
        if kind == "zero_pad":
            self.outputs = width + 4
        if kind == "chunk":
            self.outputs = width // 2
        if kind == "norm":
            self.norm = nn.BatchNorm2d(width)
        if kind == "instance":
            self.norm = nn.InstanceNorm2d(width, affine=True)
        if kind == "excite":
            self.down, self.up = nn.Linear(width, 4), nn.Linear(4, width)

    def forward(self, x):
        return getattr(self, f"_{self.kind}")(x)

    def _conv(self, x):
        return F.relu(self.conv(x))

    _grouped = _depthwise = _transposed = _conv

    def _residual(self, x):
        return x + F.relu(self.conv(x))

    def _dense(self, x):
        return torch.cat([x, self.conv(x)], 1)

    def _branch_add(self, x):
        return self.conv(x) + F.avg_pool2d(self.side(x), 3, 1, 1)

    def _shuffle(self, x):
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)

    def _chunk(self, x):
        one, two = x.chunk(2, 1)
        return one * two.sigmoid()

    def _pixel_unshuffle(self, x):
        return F.pixel_shuffle(F.pixel_unshuffle(self.conv(F.pixel_unshuffle(x, 2)), 1), 1)

    def _zero_pad(self, x):
        return F.pad(x, (0, 0, 0, 0, 1, 3))

    def _norm(self, x):
        return F.silu(self.norm(x))

    _instance = _norm

    def _excite(self, x):
        gate = self.up(F.relu(self.down(x.mean((2, 3))))).sigmoid()
        return x * gate[..., None, None]

    def _pool(self, x):
        return F.max_pool2d(x, 2, ceil_mode=True)

    def _slices(self, x):
        half = x.shape[1] // 2
        return torch.cat([x[:, half:], x[:, :half]], 1) + x


class RandomNet(nn.Module):
    def __init__(self, kinds: list[str], widths: list[int]):
        super().__init__()
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        layers, width = [], 8
        for kind, outputs in zip(kinds, widths, strict=True):
            layers.append(Layer(kind, width, outputs))
            width = layers[-1].outputs
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(width * 4, 3)

    def forward(self, x):
        return self.last(F.adaptive_avg_pool2d(self.layers(self.stem(x)), 2).flatten(1))


@st.composite
def networks(draw) -> Network:
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    # widths stay even, so that halves and groups of two always exist
    halvings = kinds.count("chunk")
    kinds = kinds if halvings <= 1 else [k for k in kinds if k != "chunk"]
    widths = [draw(st.sampled_from((4, 8, 12))) for _ in kinds]
    with torch.random.fork_rng():
        torch.manual_seed(draw(st.integers(0, 1000)))
        module = RandomNet(kinds, widths)
        shake(module)
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 2, 16, 16)),))


@settings(max_examples=25, deadline=None)
@given(networks(), st.data())
def test_any_cut_equals_zeroing(network, data):
    analysis = analyse(network)
    pool = [number for group in analysis.prunable for number in group.classes]
    wanted = data.draw(st.lists(st.sampled_from(pool), unique=True) if pool else st.just([]))
    classes: list[int] = []
    for number in wanted:
        if analysis.emptied([*classes, number]) is None:
            classes.append(number)
    # halves that must shrink alike do so only in equal numbers; the run-time check is for those
    smaller = cut(network, analysis, classes)

    zeroed = copy.deepcopy(network.module)
    state = zeroed.state_dict(keep_vars=True)
    with torch.no_grad():
        for slot, gone in analysis.removed(classes):
            if "running" not in slot.tensor:
                state[slot.tensor].index_fill_(slot.dim, torch.from_numpy(gone), 0.0)
        x = network.example(2, seed=5)[0]
        reference = zeroed(x)
        assert (smaller.module(x) - reference).abs().max() <= 1e-5 * reference.abs().max()
    assert smaller.params == analysis.params(classes)
    again = analyse(smaller, prove=False)
    assert again.macs() == analysis.macs(classes)
    fresh = replay(network.module, smaller.edits)
    fresh.load_state_dict(smaller.module.state_dict())
    assert torch.equal(fresh(x), smaller.module(x))

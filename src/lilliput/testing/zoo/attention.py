"""Tokens instead of maps: attention and mixers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.testing.zoo.entry import tiny


class Attention(nn.Module):
    """Single-head attention of our own; `width` is read from the tensors."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.q, self.k = nn.Linear(width, inner), nn.Linear(width, inner)
        self.v, self.out = nn.Linear(width, inner), nn.Linear(inner, width)
        self.scale = 0.4

    def forward(self, x: Tensor) -> Tensor:
        weights = torch.softmax(self.q(x) @ self.k(x).transpose(-2, -1) * self.scale, dim=-1)
        return self.out(weights @ self.v(x))  # type: ignore[no-any-return]


@tiny("attention", (5, 6))
class OwnAttention(nn.Module):
    """Query and key meet in a sum, so a pair of them can go; values can go too."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Linear(6, 8), Attention(8, 6)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.embed(x))
        return self.last((x + self.attention(x)).mean(1))  # type: ignore[no-any-return]


@tiny("attention_of_width", (5, 6))
class AttentionOfWidth(OwnAttention):
    """The scale follows the width, so that fewer queries would mean another function."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.embed(x))
        part = self.attention
        scores = part.q(x) @ part.k(x).mT / part.q(x).shape[-1] ** 0.5
        return self.last((x + part.out(torch.softmax(scores, -1) @ part.v(x))).mean(1))  # type: ignore[no-any-return]


@tiny("multihead_attention", (5, 8))
class MultiheadAttention(nn.Module):
    """torch's own: its widths are numbers in its code."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.wide, self.last = nn.Linear(8, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.last(F.relu(self.wide(x)).mean(1))  # type: ignore[no-any-return]


class TransformerBlock(nn.Module):
    """Joint q, k, v taken apart by `unbind`, fused attention, then a wide layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
        x = x + self.out(mixed.reshape(batch, tokens, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))  # type: ignore[no-any-return]


@tiny("transformer", (3, 8, 8))
class Transformer(nn.Module):
    """Patches, a class token, learnt positions, two blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.places = (
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.Parameter(torch.randn(5, 8)),
        )
        self.blocks = nn.Sequential(TransformerBlock(8, 2), TransformerBlock(8, 2))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
        return self.last(self.blocks(x)[:, 0])  # type: ignore[no-any-return]


@tiny("mixer", (3, 8, 8))
class Mixer(nn.Module):
    """Linear maps over positions and over channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.tokens = nn.Sequential(nn.Linear(4, 10), nn.GELU(), nn.Linear(10, 4))
        self.channels = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2)
        x = (x + self.tokens(x)).transpose(1, 2)
        return self.last((x + self.channels(x)).mean(1))  # type: ignore[no-any-return]


@tiny("embedding", (7,), dtype="int64")
class Embedding(nn.Sequential):
    """Integers in: rows of a table, whose columns are channels."""

    def __init__(self) -> None:
        super().__init__(nn.Embedding(2, 6), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))

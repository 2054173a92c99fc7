"""Forwards that take channels apart and put them together by number."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.testing.zoo.entry import Head, conv_bn, tiny


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.view(batch, self.groups, channels // self.groups, height, width)
        return x.transpose(1, 2).reshape(batch, channels, height, width)


@tiny("channel_shuffle", (3, 8, 8))
class ChannelShuffle(nn.Sequential):
    """As ShuffleNet writes it, with views."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 12),
            nn.ReLU(),
            conv_bn(12, 12, 1, groups=3),
            Shuffle(3),
            conv_bn(12, 6),
            Head(6),
        )


@tiny("channel_shuffle_module", (3, 8, 8))
class ChannelShuffleModule(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), nn.ChannelShuffle(2), conv_bn(8, 6, groups=2), Head(6))


@tiny("pixel_shuffle", (3, 8, 8))
class PixelShuffle(nn.Sequential):
    """Super-resolution twice ×2: blocks of four channels become one, the last three are colours."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 24, 3, padding=1),
            nn.PixelShuffle(2),
            nn.ReLU(),
            nn.Conv2d(6, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )


class ByHand(nn.Module):
    """Pixel shuffle ×2 written as a view."""

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        x = x.reshape(batch, channels // 4, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(batch, channels // 4, height * 2, width * 2)


@tiny("pixel_shuffle_by_hand", (3, 8, 8))
class PixelShuffleByHand(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 20, 3, padding=1), ByHand(), nn.ReLU(), nn.Conv2d(5, 3, 3, padding=1)
        )


@tiny("pixel_unshuffle", (3, 8, 8))
class PixelUnshuffle(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 5), nn.ReLU(), nn.PixelUnshuffle(2), conv_bn(20, 6), Head(6))


@tiny("chunk_gate", (3, 8, 8))
class ChunkGate(nn.Module):
    """Half of the channels gate the other half."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 12), conv_bn(6, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        values, gates = self.stem(x).chunk(2, dim=1)
        return self.head(F.relu(self.conv(values * torch.sigmoid(gates))))  # type: ignore[no-any-return]


@tiny("gated_linear_unit", (3, 8, 8))
class GatedLinearUnit(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 12), nn.GLU(1), conv_bn(6, 8), nn.ReLU(), Head(8))


@tiny("split_sizes", (3, 8, 8))
class SplitSizes(nn.Module):
    """The sizes of the pieces are numbers in the code: no channel of the split layer can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 12)
        self.one, self.two, self.head = conv_bn(4, 6), conv_bn(8, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(F.relu(self.stem(x)), [4, 8], dim=1)
        return self.head(F.relu(self.one(left) + self.two(right)))  # type: ignore[no-any-return]


@tiny("halves", (3, 8, 8))
class Halves(nn.Module):
    """Slices whose bounds follow the number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.one, self.two, self.head = conv_bn(4, 6), conv_bn(4, 6), Head(12)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        half = x.shape[1] // 2
        joined = torch.cat([self.one(x[:, :half]), self.two(x[:, half:])], 1)
        return self.head(F.relu(joined))  # type: ignore[no-any-return]


@tiny("fixed_slices", (3, 8, 8))
class FixedSlices(nn.Module):
    """Slices whose bounds are numbers: only channels after the last bound can go."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 10)
        self.one, self.two, self.head = conv_bn(4, 6), conv_bn(6, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.one(x[:, :4]) + self.two(x[:, 4:])))  # type: ignore[no-any-return]


@tiny("rotated_channels", (3, 8, 8))
class RotatedChannels(nn.Module):
    """The last three channels come first: shapes stay right when the wrong one is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 8), conv_bn(8, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([x[:, 5:], x[:, :5]], dim=1)
        return self.head(F.relu(self.conv(x)))  # type: ignore[no-any-return]


@tiny("permuted_channels", (3, 8, 8))
class PermutedChannels(nn.Module):
    """A fixed permutation from a table."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 6), conv_bn(6, 6), Head(6)
        self.order: Tensor
        self.register_buffer("order", torch.tensor([3, 0, 5, 1, 4, 2]))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(F.relu(self.stem(x))[:, self.order])))  # type: ignore[no-any-return]


@tiny("flatten_linear", (3, 8, 8))
class FlattenLinear(nn.Sequential):
    """Sixteen inputs of the linear layer belong to each channel."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 6),
            nn.ReLU(),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Linear(96, 10),
            nn.ReLU(),
            nn.Linear(10, 4),
        )


@tiny("hard_view", (3, 8, 8))
class HardView(nn.Module):
    """The number of features is written into the view."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv_bn(3, 6), conv_bn(6, 5)
        self.linear = nn.Linear(80, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.last(F.relu(self.stem(x)))), 2)
        return self.linear(x.view(-1, 80))  # type: ignore[no-any-return]


@tiny("unflattened", (10,))
class Unflattened(nn.Module):
    """A generator: a vector becomes channels of 4×4."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.conv, self.last = nn.Linear(10, 96), conv_bn(6, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.start(x)).reshape(x.shape[0], -1, 4, 4)
        return self.last(F.relu(self.conv(x)))  # type: ignore[no-any-return]


@tiny("unbound_channels", (3, 8, 8))
class UnboundChannels(nn.Module):
    """Three maps taken apart one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.three = conv_bn(3, 8), nn.Conv2d(8, 3, 1)
        self.last = nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        one, two, three = self.three(F.relu(self.stem(x))).unbind(1)
        return self.last((one * torch.sigmoid(two) + three).flatten(1))  # type: ignore[no-any-return]


@tiny("written_in_place", (3, 8, 8))
class WrittenInPlace(nn.Module):
    """Results written into a tensor that was made for them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 6), conv_bn(3, 6)
        self.conv, self.head = conv_bn(12, 6), Head(6)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.one(x), self.two(x)
        joined = one.new_zeros(one.shape[0], one.shape[1] + two.shape[1], *one.shape[2:])
        joined[:, : one.shape[1]] = one
        joined[:, one.shape[1] :] = two
        return self.head(F.relu_(self.conv(joined)))  # type: ignore[no-any-return]

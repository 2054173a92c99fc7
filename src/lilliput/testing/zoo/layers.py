"""Layers that treat channels in a way of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from lilliput.testing.zoo.entry import Head, conv_bn, tiny


class Excite(nn.Module):
    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(channels, squeezed), nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        gate = F.adaptive_avg_pool2d(x, 1).view(batch, channels)
        gate = torch.sigmoid(self.up(F.relu(self.down(gate))))
        return x * gate.view(batch, channels, 1, 1).expand_as(x)


@tiny("squeeze_excite", (3, 8, 8))
class SqueezeExcite(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), nn.ReLU(), Excite(8, 4), conv_bn(8, 6), Head(6))


class SpatialGate(nn.Module):
    """A gate of one channel, made from the mean and the maximum over all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.conv(seen))


@tiny("spatial_gate", (3, 8, 8))
class SpatiallyGated(nn.Sequential):
    """The mean over channels changes with their number: what is before it stays."""

    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), nn.ReLU(), SpatialGate(), conv_bn(8, 6), nn.ReLU(), Head(6))


@tiny("instance_norm", (3, 8, 8))
class InstanceNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.InstanceNorm2d(8, affine=True),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
            nn.ReLU(),
            nn.Conv2d(6, 3, 1),
        )


@tiny("group_norm", (3, 8, 8))
class GroupNorm(nn.Sequential):
    """Statistics over four channels at once: they stay."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.GroupNorm(2, 8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.ReLU(),
            Head(6),
        )


@tiny("group_norm_per_channel", (3, 8, 8))
class GroupNormPerChannel(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.ReLU(), Head(8))


class ChannelsLast(nn.Module):
    """The block of a ConvNeXt: depthwise, then linear maps over channels in the last place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.wide, self.narrow = nn.Linear(channels, 12), nn.Linear(12, channels)
        self.gain = nn.Parameter(torch.full((channels,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.spread(x).permute(0, 2, 3, 1))
        y = self.gain * self.narrow(F.gelu(self.wide(y)))
        return x + y.permute(0, 3, 1, 2)


@tiny("layer_norm", (3, 8, 8))
class LayerNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 2, 2), ChannelsLast(8), ChannelsLast(8), Head(8))


@tiny("prelu", (3, 8, 8))
class Rectified(nn.Sequential):
    """Slopes per channel, and one for all."""

    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), nn.PReLU(8), conv_bn(8, 6), nn.PReLU(), Head(6))


@tiny("weight_norm", (3, 8, 8))
class WeightNorm(nn.Sequential):
    """The norm runs over the inputs of a layer, so these stay; its outputs may go."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3),
            nn.ReLU(),
            parametrizations.weight_norm(nn.Conv2d(8, 10, 3)),
            nn.ReLU(),
            Head(10),
        )


@tiny("raw_scale", (3, 8, 8))
class RawScale(nn.Module):
    """A bare parameter per channel, and one per block of the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 8), nn.Conv2d(8, 8, 3, padding=1), Head(8)
        self.scale = nn.Parameter(torch.ones(8, 1, 1) * 0.7)
        self.weights = nn.ParameterList([torch.ones(()) * 0.5, torch.ones(()) * 2])

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.conv(x) * self.scale
        return self.head(self.weights[0] * x + self.weights[1] * y)  # type: ignore[no-any-return]


@tiny("batch_norm_without_scale", (3, 8, 8))
class BatchNormWithoutScale(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.BatchNorm2d(3, affine=False),
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8, affine=False),
            nn.LeakyReLU(),
            Head(8),
        )


@tiny("recurrent", (6, 5))
class Recurrent(nn.Module):
    """A GRU: its gates and its state hold on to every width."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru = nn.Linear(5, 6), nn.GRU(6, 4, batch_first=True)
        self.wide, self.last = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.gru(torch.tanh(self.embed(x)))
        return self.last(F.relu(self.wide(states[:, -1])))  # type: ignore[no-any-return]

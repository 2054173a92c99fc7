"""Convolutions in all the ways that they are wired."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.testing.zoo.entry import Head, conv_bn, tiny


@tiny("plain", (3, 8, 8))
class Plain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), nn.ReLU(), conv_bn(8, 12, stride=2), nn.ReLU(), Head(12))


@tiny("bias_without_norm", (3, 8, 8))
class BiasWithoutNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.Sigmoid(), nn.Conv2d(8, 8, 3), nn.Tanh(), Head(8))


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut that the caller gives."""

    def __init__(self, inputs: int, outputs: int, shortcut: nn.Module, stride: int = 1) -> None:
        super().__init__()
        self.one, self.two = conv_bn(inputs, outputs, stride=stride), conv_bn(outputs, outputs)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(F.relu(self.one(x))) + self.shortcut(x))


@tiny("residual", (3, 8, 8))
class Residual(nn.Sequential):
    def __init__(self) -> None:
        blocks = [Block(8, 8, nn.Identity()) for _ in range(3)]
        super().__init__(conv_bn(3, 8), nn.ReLU(), nn.Sequential(*blocks), Head(8))


@tiny("projection_shortcut", (3, 8, 8))
class ProjectionShortcut(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 6),
            nn.ReLU(),
            Block(6, 12, conv_bn(6, 12, 1, stride=2), stride=2),
            Block(12, 12, nn.Identity()),
            Head(12),
        )


class ZeroPad(nn.Module):
    """Option A of He et al.: every other pixel, zero channels before and after."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


@tiny("zero_padded_shortcut", (3, 8, 8))
class ZeroPaddedShortcut(nn.Sequential):
    """Channel k of the first stage is channel k + 2 of the second and k + 6 of the third."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 4),
            nn.ReLU(),
            Block(4, 4, nn.Identity()),
            Block(4, 8, ZeroPad(2), stride=2),
            Block(8, 8, nn.Identity()),
            Block(8, 16, ZeroPad(4), stride=2),
            Head(16),
        )


class Preactivated(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(channels), nn.Conv2d(channels, 6, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(inner)))  # type: ignore[no-any-return]


@tiny("preactivation", (3, 8, 8))
class Preactivation(nn.Sequential):
    """Batch norm before the convolution: its channels are those of the stream."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, padding=1), Preactivated(8), Preactivated(8), nn.ReLU(), Head(8)
        )


class Inverted(nn.Module):
    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            conv_bn(channels, wide, 1),
            nn.ReLU6(),
            conv_bn(wide, wide, groups=wide),
            nn.ReLU6(),
            conv_bn(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)  # type: ignore[no-any-return]


@tiny("inverted_residual", (3, 8, 8))
class InvertedResidual(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 6), nn.Hardswish(), Inverted(6, 3), Inverted(6, 2), Head(6))


@tiny("depthwise_separable", (3, 8, 8))
class DepthwiseSeparable(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 8),
            nn.ReLU(),
            conv_bn(8, 8, groups=8),
            nn.ReLU(),
            conv_bn(8, 12, 1),
            nn.ReLU(),
            Head(12),
        )


@tiny("depthwise_multiplier", (3, 8, 8))
class DepthwiseMultiplier(nn.Sequential):
    """Each input channel makes three output channels."""

    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 6),
            nn.ReLU(),
            conv_bn(6, 18, groups=6),
            nn.ReLU(),
            conv_bn(18, 8, 1),
            Head(8),
        )


@tiny("grouped", (3, 8, 8))
class Grouped(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            conv_bn(3, 8), nn.ReLU(), conv_bn(8, 16, groups=4), nn.ReLU(), conv_bn(16, 8), Head(8)
        )


@tiny("grouped_bottleneck", (3, 8, 8))
class GroupedBottleneck(nn.Module):
    """The middle of a ResNeXt block: grouped, between two 1×1 convolutions, with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.narrow, self.middle, self.wide = (
            conv_bn(8, 12, 1),
            conv_bn(12, 12, groups=3),
            conv_bn(12, 8, 1),
        )
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        inner = F.relu(self.middle(F.relu(self.narrow(x))))
        return self.head(F.relu(x + self.wide(inner)))  # type: ignore[no-any-return]


@tiny("dilated_strided", (3, 12, 12))
class DilatedStrided(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, dilation=2),
            nn.ELU(),
            nn.Conv2d(8, 10, (1, 3), stride=(2, 1), padding=(0, 1), padding_mode="reflect"),
            nn.GELU(),
            nn.MaxPool2d(2),
            Head(10),
        )


@tiny("transposed", (3, 8, 8))
class Transposed(nn.Sequential):
    """Picture to picture: grouped and depthwise transposed convolutions among them."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(8, 12, 2, stride=2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.ConvTranspose2d(12, 6, 3, padding=1, groups=3),
            nn.ReLU(),
            nn.ConvTranspose2d(6, 6, 3, padding=1, groups=6),
            nn.SiLU(),
            nn.Conv2d(6, 3, 1),
        )


@tiny("signal", (2, 32))
class Signal(nn.Sequential):
    """One dimension of space."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv1d(2, 8, 5, stride=2),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Conv1d(8, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )


@tiny("volume", (1, 6, 6, 6))
class Volume(nn.Sequential):
    """Three dimensions of space."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv3d(1, 6, 3),
            nn.BatchNorm3d(6),
            nn.ReLU(),
            nn.AvgPool3d(2),
            nn.Conv3d(6, 4, 2),
            nn.Flatten(),
            nn.Linear(4, 3),
        )


@tiny("shared_weights", (3, 8, 8))
class SharedWeights(nn.Module):
    """Two layers hold one weight: it must be cut once and stay shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8)
        self.one, self.two = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.two.weight = self.one.weight
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.two(F.relu(self.one(x)))))  # type: ignore[no-any-return]


@tiny("used_twice", (3, 8, 8))
class UsedTwice(nn.Module):
    """One layer runs twice, so that what it gives is what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.again, self.head = conv_bn(3, 8), conv_bn(8, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(self.again(x))
        return self.head(x)  # type: ignore[no-any-return]


@tiny("functional_kernel", (3, 8, 8))
class FunctionalKernel(nn.Module):
    """Weights that are bare parameters, and a blur whose kernel is made for as many channels."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 3, 3, 3) / 5)
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1) + 0.5)
        self.shift = nn.Parameter(torch.randn(8, 1, 1) / 5)
        self.blur: Tensor
        self.register_buffer("blur", torch.full((1, 1, 3, 3), 1 / 9))
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.kernel, padding=1) * self.scale + self.shift)
        channels = x.shape[1]
        x = F.conv2d(x, self.blur.expand(channels, 1, 3, 3), padding=1, groups=channels)
        return self.head(x)  # type: ignore[no-any-return]

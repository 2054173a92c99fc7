"""A depthwise separable ResNet for CIFAR-10: convolution, GELU, then batch norm, fed 0..1."""

import torch
from torch import nn


class Unit(nn.Module):
    def __init__(
        self, before: int, width: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(before, width, kernel, stride, kernel // 2, groups=groups),
            nn.GELU(),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Separable(nn.Module):
    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(Unit(before, before, 5, stride, before), Unit(before, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = Separable(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.residual(x)


class Stage(nn.Module):
    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        self.stage = nn.Sequential(*(Residual(width) for _ in range(blocks)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stage(x)


class SeparableResNet(nn.Module):
    def __init__(self, width: int = 64, blocks: int = 3, classes: int = 10) -> None:
        super().__init__()
        self.net = nn.Sequential(
            Unit(3, width),
            Stage(3 * blocks, width),
            Separable(width, 2 * width, 2),
            Stage(2 * blocks, 2 * width),
            Separable(2 * width, 4 * width, 2),
            Stage(blocks, 4 * width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def build() -> SeparableResNet:
    return SeparableResNet()

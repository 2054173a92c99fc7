"""A small network whose time is in 5×5 kernels: 32, 64 and 64 channels on pictures of 32×32."""

from torch import nn


def wide_kernels() -> nn.Module:
    """Three 5×5 layers with batch norm, halved by pooling in between; ten classes."""
    return nn.Sequential(
        *_layer(3, 32),
        nn.MaxPool2d(2),
        *_layer(32, 64),
        nn.MaxPool2d(2),
        *_layer(64, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 5, padding=2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )

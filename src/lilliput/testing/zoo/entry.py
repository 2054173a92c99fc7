"""How a tiny network enters the zoo."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.network import Network

Builder = Callable[[], Network]
BUILDERS: dict[str, Builder] = {}


def tiny(
    name: str, *shapes: tuple[int, ...], dtype: str = "float32"
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Put a module class (built without arguments) into the zoo.

    Args:
        name: What is awkward about it.
        shapes: Of its inputs, without the batch, which is free.
        dtype: Of its inputs.
    """
    specs = tuple(
        TensorSpec(name=f"input_{n}" if len(shapes) > 1 else "input", shape=(None, *s), dtype=dtype)
        for n, s in enumerate(shapes)
    )

    def enter(kind: type[nn.Module]) -> type[nn.Module]:
        def build() -> Network:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(zlib.crc32(name.encode()))
                module = kind()
                shake(module)
            return Network(module.eval(), specs, name=name)

        BUILDERS[name] = build
        return kind

    return enter


def shake(module: nn.Module) -> None:
    """Give vectors that start as zeros and ones, and running statistics, random values.

    With the values they start from, a wrongly cut batch norm would go unnoticed.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:
                parameter.normal_(0.0 if name.endswith("bias") else 1.0, 0.2)
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0.0, 0.3)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)


def conv_bn(inputs: int, outputs: int, kernel: int = 3, **options: int) -> nn.Sequential:
    """Convolution without bias, padded to keep the size, then batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False, **options)  # type: ignore[arg-type]
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Head(nn.Module):
    """Global average and a linear map to four classes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.mean((2, 3)))  # type: ignore[no-any-return]

"""The transformation network of fast style transfer (Johnson et al., ECCV 2016), as lengstrom built
it: RGB pictures of 0..255 in, the same in the style of one painting out.
"""

import torch
import torch.nn.functional as F
from torch import nn


class Normed(nn.Module):
    """A convolution without bias, then instance normalization with a scale and a shift."""

    def __init__(
        self, weight: tuple[int, ...], out: int, stride: int = 1, up: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(weight))
        self.in_scale, self.in_shift = nn.Parameter(torch.ones(out)), nn.Parameter(torch.zeros(out))
        self.stride, self.up = stride, up

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.up:
            height, width = 2 * x.shape[2], 2 * x.shape[3]
            x = F.conv_transpose2d(x, self.weight, stride=2)[:, :, :height, :width]
        else:
            x = F.conv2d(x, self.weight, stride=self.stride, padding=self.weight.shape[-1] // 2)
        return F.instance_norm(x, weight=self.in_scale, bias=self.in_shift, eps=1e-3)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        first, second = (Normed((width, width, 3, 3), width) for _ in range(2))
        self.add_module("1", first)
        self.add_module("2", second)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.children()
        return x + second(F.relu(first(x)))


class StyleNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = Normed((32, 3, 9, 9), 32)
        self.conv2 = Normed((64, 32, 3, 3), 64, stride=2)
        self.conv3 = Normed((128, 64, 3, 3), 128, stride=2)
        for number in range(1, 6):
            self.add_module(f"res{number}", Residual(128))
        self.up1 = Normed((128, 64, 3, 3), 64, up=True)
        self.up2 = Normed((64, 32, 3, 3), 32, up=True)
        self.out = Normed((3, 32, 9, 9), 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in (self.conv1, self.conv2, self.conv3):
            x = F.relu(layer(x))
        for number in range(1, 6):
            x = self.get_submodule(f"res{number}")(x)
        for layer in (self.up1, self.up2):
            x = F.relu(layer(x))
        return 150 * torch.tanh(self.out(x)) + 127.5


def build() -> StyleNet:
    return StyleNet()

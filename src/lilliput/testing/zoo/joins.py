"""Branches that part and meet."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lilliput.testing.zoo.entry import Head, conv_bn, tiny


@tiny("concat", (3, 8, 8))
class Concat(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv_bn(3, 6), conv_bn(3, 5)
        self.join, self.head = conv_bn(11, 8), Head(8)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat(
            [
                F.relu(self.one(x)),
                self.two(x),
            ],
            dim=1,
        )
        return self.head(F.relu(self.join(joined)))  # type: ignore[no-any-return]


@tiny("dense_block", (3, 8, 8))
class DenseBlock(nn.Module):
    """Each layer reads the outputs of all layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1))
            for width in (6, 10, 14)
        )
        self.head = Head(18)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(x)  # type: ignore[no-any-return]


@tiny("inception", (3, 8, 8))
class Inception(nn.Module):
    """Branches of several kernels and one that only pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 6)
        self.branches = nn.ModuleList(
            [
                conv_bn(6, 4, 1),
                nn.Sequential(conv_bn(6, 3, 1), nn.ReLU(), conv_bn(3, 5, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), conv_bn(6, 4, 1)),
                nn.AvgPool2d(3, stride=1, padding=1),
            ]
        )
        self.head = Head(19)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        joined = torch.cat([branch(x) for branch in self.branches], dim=1)
        return self.head(F.relu(joined))  # type: ignore[no-any-return]


@tiny("u_net", (3, 8, 8))
class UNet(nn.Module):
    """Picture to picture, with a concatenated skip over the bottom."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.bottom = conv_bn(3, 6), conv_bn(6, 10, stride=2)
        self.up = nn.ConvTranspose2d(10, 6, 2, stride=2)
        self.join, self.last = conv_bn(12, 8), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        risen = F.relu(self.up(F.relu(self.bottom(skip))))
        return self.last(F.relu(self.join(torch.cat([skip, risen], 1))))  # type: ignore[no-any-return]


@tiny("upsample_add", (3, 8, 8))
class UpsampleAdd(nn.Module):
    """The top-down path of a feature pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv_bn(3, 6), conv_bn(6, 10, stride=2)
        self.lateral, self.top = nn.Conv2d(6, 8, 1), nn.Conv2d(10, 8, 1)
        self.head = Head(8)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.fine(x))
        coarse = F.relu(self.coarse(fine))
        risen = F.interpolate(self.top(coarse), size=fine.shape[-2:], mode="bilinear")
        return self.head(F.relu(self.lateral(fine) + risen))  # type: ignore[no-any-return]


@tiny("two_inputs", (3, 8, 8), (5,))
class TwoInputs(nn.Module):
    """A picture and a vector that scales and shifts its features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.condition = conv_bn(3, 8), nn.Linear(5, 16)
        self.conv, self.head = conv_bn(8, 6), Head(6)

    def forward(self, picture: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.condition(vector).chunk(2, dim=1)
        x = self.stem(picture) * scale[:, :, None, None] + shift[:, :, None, None]
        return self.head(F.relu(self.conv(F.relu(x))))  # type: ignore[no-any-return]


@tiny("dict_output", (3, 8, 8))
class DictOutput(nn.Module):
    """A hidden layer is an output too, so its channels are spoken for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.head = conv_bn(3, 8), conv_bn(8, 6), Head(6)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = F.relu(self.conv(F.relu(self.stem(x))))
        return {"features": features, "scores": self.head(features)}


@tiny("two_heads", (3, 8, 8))
class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two = conv_bn(3, 8), Head(8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = F.relu(self.stem(x))
        return self.one(x), [self.two(x)]


@tiny("stochastic_depth", (3, 8, 8))
class StochasticDepth(nn.Module):
    """A list of blocks that training skips at random."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv_bn(3, 8), Head(8)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_bn(8, 6), nn.ReLU(), nn.Dropout(0.3), conv_bn(6, 8))
            for _ in range(3)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for block in self.blocks:
            if not self.training or torch.rand(()) < 0.8:
                x = F.relu(x + block(x))
        return self.head(x)  # type: ignore[no-any-return]


class Branching(nn.Module):
    """Python decides what runs, by shapes, by counters, by recursion."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"even": conv_bn(8, 8), "odd": conv_bn(8, 8, 1)})

    def forward(self, x: Tensor, depth: int = 0) -> Tensor:
        if depth == 3:
            return x
        layer = self.layers["odd" if depth % 2 else "even"]
        y = layer(x) if x.shape[-1] >= 4 else x
        return self.forward(F.relu(y) if depth else y * torch.sigmoid(y), depth + 1)


@tiny("python_branches", (3, 8, 8))
class PythonBranches(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(conv_bn(3, 8), Branching(), Head(8))

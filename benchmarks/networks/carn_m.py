"""CARN-M, a light cascading residual network for super-resolution (Ahn et al., ECCV 2018).

RGB pictures of 0..1 in, the same enlarged out. One set of weights holds the heads of all three
scales; the builders fix the scale that `forward` uses.
"""

import torch
from torch import nn

MEAN = (0.4488, 0.4371, 0.4040)


class MeanShift(nn.Module):
    def __init__(self, sign: int) -> None:
        super().__init__()
        self.shifter = nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            self.shifter.weight.copy_(torch.eye(3).view(3, 3, 1, 1))
            self.shifter.bias.copy_(sign * torch.tensor(MEAN))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shifter(x)


class Reduce(nn.Module):
    def __init__(self, parts: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(parts * width, width, 1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class EfficientResidual(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(width, width, 1),
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.body(x) + x)


class Cascade(nn.Module):
    """Each reduction sees everything before it; the residual block's weights are shared."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.b1 = EfficientResidual(width, groups)
        self.c1, self.c2, self.c3 = (Reduce(parts, width) for parts in (2, 3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen, out = x, x
        for reduce in (self.c1, self.c2, self.c3):
            seen = torch.cat([seen, self.b1(out)], dim=1)
            out = reduce(seen)
        return out


class Upsample(nn.Module):
    def __init__(self, width: int, scale: int, groups: int) -> None:
        super().__init__()
        factor, times = (2, scale.bit_length() - 1) if scale in (2, 4) else (scale, 1)
        layers: list[nn.Module] = []
        for _ in range(times):
            wide = width * factor * factor
            layers += [
                nn.Conv2d(width, wide, 3, 1, 1, groups=groups),
                nn.ReLU(),
                nn.PixelShuffle(factor),
            ]
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Heads(nn.Module):
    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.up2, self.up3, self.up4 = (Upsample(width, s, groups) for s in (2, 3, 4))

    def forward(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        return {2: self.up2, 3: self.up3, 4: self.up4}[scale](x)


class CarnM(nn.Module):
    def __init__(self, scale: int, width: int = 64, groups: int = 4) -> None:
        super().__init__()
        self.scale = scale
        self.sub_mean, self.add_mean = MeanShift(-1), MeanShift(1)
        self.entry = nn.Conv2d(3, width, 3, 1, 1)
        self.b1, self.b2, self.b3 = (Cascade(width, groups) for _ in range(3))
        self.c1, self.c2, self.c3 = (Reduce(parts, width) for parts in (2, 3, 4))
        self.upsample = Heads(width, groups)
        self.exit = nn.Conv2d(width, 3, 3, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = seen = self.entry(self.sub_mean(x))
        for block, reduce in ((self.b1, self.c1), (self.b2, self.c2), (self.b3, self.c3)):
            seen = torch.cat([seen, block(out)], dim=1)
            out = reduce(seen)
        return self.add_mean(self.exit(self.upsample(out, self.scale)))


def x2() -> CarnM:
    return CarnM(2)


def x4() -> CarnM:
    return CarnM(4)

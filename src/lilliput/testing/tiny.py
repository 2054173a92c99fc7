"""Data, a network and a context small enough for a test of a tenth of a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentProgress
from lilliput.data.dataset import Dataset, Split
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.target import Target
from lilliput.tasks import task_of

SIDE = 8
CLASSES = 4


class TinyResidual(nn.Module):
    """Stem, two residual blocks, pooling, a linear layer: (N, 3, 8, 8) → (N, 4)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.block1, self.block2 = TinyBlock(width), TinyBlock(width)
        self.classify = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        scores: Tensor = self.classify(self.block2(self.block1(x)).mean((2, 3)))
        return scores


class TinyBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(y)))


class TinyUpscaler(nn.Module):
    """(N, 3, H, W) → (N, 3, 2H, 2W) by pixel shuffle."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, 12, 3, padding=1)
        self.shuffle = nn.PixelShuffle(2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        pictures: Tensor = self.shuffle(self.last(x))
        return pictures


class Heard(SilentProgress):
    """Keeps the lines that are said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


def tiny_data(task: str = "classification", *, seed: int = 0) -> Dataset:
    """Pictures whose class is their brightest quarter; or pictures to be upscaled."""
    rng = np.random.default_rng(seed)
    if task == "super_resolution":
        pictures = [_smooth(rng) for _ in range(10)]
        return task_of(task).prepare(
            Dataset(
                "tiny",
                train=Split(pictures[:4]),
                calibration=Split(pictures[4:6]),
                validation=Split(pictures[6:8]),
                test=Split(pictures[8:]),
                alike=False,
            )
        )
    return Dataset(
        "tiny",
        train=_quarters(rng, 96),
        calibration=_quarters(rng, 32),
        validation=_quarters(rng, 48),
        test=_quarters(rng, 48),
    )


def _quarters(rng: np.random.Generator, count: int) -> Split:
    labels = rng.integers(0, CLASSES, count)
    pictures = rng.integers(0, 120, (count, SIDE, SIDE, 3))
    half = SIDE // 2
    for picture, label in zip(pictures, labels, strict=True):
        row, column = divmod(int(label), 2)
        picture[row * half :, column * half :][:half, :half] += 100
    return Split(pictures.astype(np.uint8), labels.astype(np.int64))


def _smooth(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """A picture of 24 × 24 that interpolation can guess: a few waves."""
    y, x = np.mgrid[0:24, 0:24] / 24.0
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0, 2, (3, 3))]
    return np.asarray(np.stack([127 + 60 * wave for wave in waves], -1), np.uint8)


def tiny_network(task: str = "classification", *, seed: int = 0) -> Network:
    """An untrained network for `tiny_data` of this task, its batch-norm statistics its own."""
    torch.manual_seed(seed)
    if task == "super_resolution":
        module: nn.Module = TinyUpscaler()
        spec = TensorSpec(name="x", shape=(None, 3, None, None), sample=(1, 3, 12, 12))
        return Network(module.eval(), (spec,), "tiny upscaler", Preprocessing())
    module = TinyResidual()
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    spec = TensorSpec(name="x", shape=(None, 3, SIDE, SIDE))
    return Network(module.eval(), (spec,), "tiny", Preprocessing(mean=(0.4,), std=(0.2,)))


def tiny_context(folder: Path, task: str = "classification", **settings: Any) -> Context:
    """A context of `tiny_data` and `tiny_network`; `settings` are fields of Context."""
    given: dict[str, Any] = {
        "data": tiny_data(task),
        "task": task_of(task),
        "target": Target(),
        "original": Candidate("original", network=tiny_network(task)),
        "folder": folder,
        "timing_seconds": 0.5,
    }
    return Context(**(given | settings))

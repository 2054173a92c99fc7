"""The image-classification network of MLPerf Tiny: ResNet-8 for CIFAR-10, fed raw bytes 0..255."""

import torch
import torch.nn.functional as F
from torch import nn


def same(x: torch.Tensor) -> torch.Tensor:
    """TensorFlow's SAME padding of a 3x3 stride-2 convolution on an even-sized picture."""
    return F.pad(x, (0, 1, 0, 1))


class ResNet8(nn.Module):
    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.stem_bn = nn.BatchNorm2d(16, eps=1e-3)
        self.conv1a = nn.Conv2d(16, 16, 3, padding=1)
        self.bn1a = nn.BatchNorm2d(16, eps=1e-3)
        self.conv1b = nn.Conv2d(16, 16, 3, padding=1)
        self.bn1b = nn.BatchNorm2d(16, eps=1e-3)
        self.conv2a = nn.Conv2d(16, 32, 3, stride=2)
        self.bn2a = nn.BatchNorm2d(32, eps=1e-3)
        self.conv2b = nn.Conv2d(32, 32, 3, padding=1)
        self.bn2b = nn.BatchNorm2d(32, eps=1e-3)
        self.short2 = nn.Conv2d(16, 32, 1, stride=2)
        self.conv3a = nn.Conv2d(32, 64, 3, stride=2)
        self.bn3a = nn.BatchNorm2d(64, eps=1e-3)
        self.conv3b = nn.Conv2d(64, 64, 3, padding=1)
        self.bn3b = nn.BatchNorm2d(64, eps=1e-3)
        self.short3 = nn.Conv2d(32, 64, 1, stride=2)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem_bn(self.stem(x)))
        y = F.relu(self.bn1a(self.conv1a(x)))
        x = F.relu(x + self.bn1b(self.conv1b(y)))
        y = F.relu(self.bn2a(self.conv2a(same(x))))
        x = F.relu(self.short2(x) + self.bn2b(self.conv2b(y)))
        y = F.relu(self.bn3a(self.conv3a(same(x))))
        x = F.relu(self.short3(x) + self.bn3b(self.conv3b(y)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def resnet8() -> ResNet8:
    return ResNet8()

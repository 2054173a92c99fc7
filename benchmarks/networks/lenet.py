"""The two LeNets of the compression literature, in Caffe's shapes, with ReLU after convolutions.

LeNet-300-100 has 266,610 parameters (1,066,440 bytes in fp32), LeNet-5 431,080 (1,724,320 bytes).
Differs: Caffe's LeNet has no ReLU after its convolutions.
"""

from torch import nn


def lenet300() -> nn.Module:
    """784-300-100-10 on 28×28 pixels."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 300),
        nn.ReLU(),
        nn.Linear(300, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def lenet5() -> nn.Module:
    """Convolutions 5×5 to 20 and 50 channels, each halved by max pooling, then 800-500-10."""
    return _lenet5(20, 50, 500)


def lenet5_thin() -> nn.Module:
    """LeNet-5 at 10-20-72-10: 29,122 parameters."""
    return _lenet5(10, 20, 72)


def _lenet5(first: int, second: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, first, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * second, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )

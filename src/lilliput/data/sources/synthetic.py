"""Noise, for trying things out: only by its name, and marked as synthetic wherever it is used."""

from __future__ import annotations

import re

import numpy as np

from lilliput.data.dataset import Split
from lilliput.data.sources.raw import WHOLE, Raw
from lilliput.data.sources.splits import rng_for
from lilliput.errors import LilliputError

PREFIX = "random:"
CLASSES = 10
FORM = re.compile(r"random:(\d+)(?::(\d+)x(\d+)x(\d+))?")


def load_random(source: str, *, seed: int = 0) -> Raw:
    """`random:N` or `random:N:HxWxC`: N pictures of noise in ten classes (32x32x3 if not said).

    Raises:
        LilliputError: the name has another form, or asks for nothing.
    """
    found = FORM.fullmatch(source)
    if not found or not int(found[1]):
        raise LilliputError(
            f"{source!r} does not say how many pictures of noise",
            hint="write random:N or random:N:HxWxC, for example random:256:28x28x1",
        )
    count = int(found[1])
    shape = tuple(int(side) for side in found.groups()[1:]) if found[2] else (32, 32, 3)
    rng = rng_for(seed, "noise")
    pictures = rng.integers(0, 256, (count, *shape), np.uint8)
    labels = np.arange(count, dtype=np.int64) % CLASSES
    return Raw(source, {WHOLE: Split(pictures, labels)}, synthetic=True)

"""Disjoint splits of one or several sources, the same for the same seed."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lilliput.data.dataset import EMPTY, SPLITS, Array, Dataset, Split
from lilliput.data.sources.raw import WHOLE, Raw, Shares

Index = NDArray[np.intp]

MATTERS_MOST = ("test", "validation", "calibration", "train")
"""A picture that two splits hold stays in the first of these."""

OWN = "the source's own"
"""Where a split comes from that no seed drew."""

HALF = 0.5
"""Of held-out examples that a source calls validation while it has no test: the rest is test."""


def rng_for(seed: int, purpose: str) -> np.random.Generator:
    """Independent draws for each purpose, so that one split's size never moves another's."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode())])


def draw(labels: Array | None, count: int, share: float, rng: np.random.Generator) -> Index:
    """Positions of about `share` of `count` examples, every label in proportion, sorted.

    Each label with two examples or more gives one at least, and keeps one at least.
    """
    if labels is None or np.ndim(labels) != 1 or np.asarray(labels).dtype.kind not in "iub":
        labels = np.zeros(count, np.int64)
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    wanted = sizes * share
    take = np.floor(wanted).astype(np.intp)
    missing = max(round(count * share) - int(take.sum()), 0)
    for at in np.argsort(take - wanted, kind="stable")[:missing]:
        take[at] += 1
    if share > 0:
        take = np.clip(take, np.minimum(sizes - 1, 1), np.maximum(sizes - 1, 0))
    order = rng.permutation(count)
    grouped = order[np.argsort(group[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    picked = [grouped[s : s + t] for s, t in zip(starts, take, strict=True)]
    return np.sort(np.concatenate(picked)) if picked else np.zeros(0, np.intp)


def divide(split: Split, share: float, rng: np.random.Generator) -> tuple[Split, Split]:
    """The examples drawn, and the rest, both in their old order."""
    labels = None if split.targets is None else np.asarray(split.targets)
    chosen = draw(labels, len(split), share, rng)
    rest = np.setdiff1d(np.arange(len(split)), chosen)
    return split.take(chosen), split.take(rest)


def with_all_parts(
    parts: Mapping[str, Split],
    shares: Shares,
    seed: int,
    origin: Mapping[str, str] | None = None,
) -> tuple[dict[str, Split], dict[str, str]]:
    """Train, validation and test where the source can give them, and where each comes from.

    A source that names its test examples keeps them; one that holds out a single part called
    validation has it halved, since the examples that choose cannot also give the final figures.
    A source of nothing but test examples stays so.
    """
    made = dict(parts)
    origin = dict.fromkeys((n for n in parts if n != WHOLE), OWN) | dict(origin or {})
    if WHOLE in made:
        made["train"] = made.pop(WHOLE)
    if "test" not in made and "validation" in made:
        pair = divide(made["validation"], HALF, rng_for(seed, "test"))
        made["test"], made["validation"] = pair
        origin["test"] = origin["validation"] = "half of the validation examples given"
    for name, share in (("test", shares.test), ("validation", shares.validation)):
        train = made.get("train")
        if name in made or train is None or not len(train):
            continue
        share = min(share, shares.most / len(train))
        made[name], made["train"] = divide(train, share, rng_for(seed, name))
        origin[name] = f"{len(made[name])} drawn from the source's training examples"
    return made, origin


def with_calibration(
    parts: dict[str, Split], shares: Shares, seed: int
) -> tuple[dict[str, Split], str]:
    """Calibration examples drawn from train if there are none yet, and where they come from."""
    train = parts.get("train")
    if "calibration" in parts or train is None or not len(train):
        return parts, "none"
    count = min(shares.calibration, len(train))
    order = rng_for(seed, "calibration").permutation(len(train))
    drawn = train.take(np.sort(order[:count]))
    if not shares.apart or count == len(train):
        return {**parts, "calibration": drawn}, "drawn from train, which keeps them"
    rest = train.take(np.sort(order[count:]))
    return {**parts, "calibration": drawn, "train": rest}, "taken out of train"


def fingerprints(inputs: Sequence[Array] | Array) -> list[bytes]:
    """One hash of shape, type and content an example."""
    found = []
    for example in inputs:
        array = np.ascontiguousarray(example)
        digest = hashlib.blake2b(f"{array.shape}{array.dtype}".encode(), digest_size=16)
        digest.update(array.tobytes())
        found.append(digest.digest())
    return found


def content_hash(parts: Mapping[str, Split], prints: Mapping[str, list[bytes]]) -> str:
    """A hash of all examples with their targets, whatever their order and split."""
    lines = []
    for name, split in parts.items():
        targets = [None] * len(split) if split.targets is None else split.targets
        for mark, target in zip(prints[name], targets, strict=True):
            lines.append(mark + (b"" if target is None else np.asarray(target).tobytes()))
    return hashlib.blake2b(b"".join(sorted(lines)), digest_size=16).hexdigest()


def disjoint(
    parts: Mapping[str, Split], prints: Mapping[str, list[bytes]]
) -> tuple[dict[str, Split], int]:
    """Each picture in one split only, the one that matters most; and how many left another.

    Calibration and train may share examples: neither is ever scored.
    """
    taken: set[bytes] = set()
    made: dict[str, Split] = {}
    moved = 0
    for name in MATTERS_MOST:
        if name not in parts:
            continue
        keep = [i for i, mark in enumerate(prints[name]) if mark not in taken]
        lost = len(prints[name]) - len(keep)
        made[name] = parts[name].take(keep) if lost else parts[name]
        moved += lost
        if name in ("test", "validation"):
            taken.update(prints[name])
    return made, moved


def assemble(
    raw: Raw,
    others: Mapping[str, Split],
    named: Mapping[str, str],
    *,
    seed: int,
    alike: bool,
    source: str | None = None,
) -> Dataset:
    """The data set of a source, some splits of which other sources give, by their names."""
    theirs = {split: f"from {other!r}" for split, other in named.items()}
    held, origin = with_all_parts({**raw.parts, **others}, raw.shares, seed, theirs)
    prints = {name: fingerprints(split.inputs) for name, split in held.items()}
    content = content_hash(held, prints)
    held, moved = disjoint(held, prints)
    held, calibration = with_calibration(held, raw.shares, seed)
    stated = {
        "source": raw.name if source is None else source,
        "labelled": all(split.targets is not None for split in held.values()),
        "hash": content,
        "duplicates_moved": moved,
        "seed": seed,
        "validation": origin.get("validation", "none"),
        "test": origin.get("test", "none"),
        "calibration": origin.get("calibration", calibration),
    }
    return Dataset(
        raw.name,
        **{name: held.get(name, EMPTY) for name in SPLITS},
        layout=raw.layout,
        augment=raw.augment,
        classes=raw.classes,
        synthetic=raw.synthetic,
        alike=alike,
        facts={**raw.facts, **stated},
    )

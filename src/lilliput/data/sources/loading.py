"""One function for every kind of source, and how several sources become one data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lilliput.data.dataset import SPLITS, Dataset, Split
from lilliput.data.form import with_channels
from lilliput.data.sources.folder import load_folder
from lilliput.data.sources.named import NAMED, USUAL_TEST
from lilliput.data.sources.npz import load_npz
from lilliput.data.sources.python import load_python
from lilliput.data.sources.raw import WHOLE, Raw, in_form
from lilliput.data.sources.splits import assemble
from lilliput.data.sources.synthetic import PREFIX, load_random
from lilliput.errors import LilliputError, nearest
from lilliput.preprocessing import Preprocessing

if TYPE_CHECKING:
    from lilliput.tasks.base import Task

LOOKED_FOR = {
    "test": ("test", WHOLE, "validation", "train"),
    "validation": ("validation", WHOLE, "test", "train"),
    "calibration": ("calibration", "train", WHOLE, "validation"),
}
"""The part of another source that serves as this split: the first that it has."""


def load_data(
    source: str | Path,
    *,
    task: Task | None = None,
    seed: int = 0,
    validation: str | Path | None = None,
    calibration: str | Path | None = None,
    test: str | Path | None = None,
    preprocessing: Preprocessing | None = None,
    root: Path | None = None,
) -> Dataset:
    """The examples of `source` in disjoint splits, the same for the same seed.

    Args:
        source: A folder of pictures (by class, or without labels; `train`, `val`, `test` on top
            if wanted), an `.npz`, `module:function` or `file.py:function`, a set's name (digits,
            mnist, fashion_mnist, cifar10, set5, set14, t91, pool32), or `random:N` for noise.
        task: What the data is for: a task other than classification gets pictures without their
            classes.
        seed: Fixes what goes into which split.
        validation, calibration, test: Other sources for these splits, of any kind.
        preprocessing: Pictures are brought to its channels and its size, and the facts say so;
            left out, they stay as they are, as they do for tasks other than classification.
        root: The only folder to look for named sets in; left out, `LILLIPUT_DATA`,
            `../shared/data` and the cache, and what is public is downloaded.

    Returns:
        Splits without a common picture, but that calibration may share some with train. `facts`
        holds "source", a "hash" of all examples, "duplicates_moved", and where splits come from.

    Raises:
        LilliputError: the source is unknown, empty, broken, or does not fit the others.
    """
    source = str(source)
    # Only a classifier may have its pictures changed: to other tasks they are the truth as well.
    classes = task is None or task.name == "classification"
    form = preprocessing if classes else None
    raw = _opened(source, seed, root, form)
    asked = {"validation": validation, "calibration": calibration, "test": test}
    if test is None and source in USUAL_TEST:
        asked["test"] = USUAL_TEST[source]
    named = {split: str(other) for split, other in asked.items() if other is not None}
    named = {split: other for split, other in named.items() if other != source}
    if "test" in named and named.get("validation") == named["test"]:
        raise LilliputError(
            f"validation and test are both {named['test']!r}",
            hint="what selects cannot give the final figures too: name two sources, or leave "
            "validation out",
        )
    others = {
        split: _part_of(other, split, raw, seed=seed, root=root, form=form)
        for split, other in named.items()
    }
    if not classes:
        raw = replace(raw, parts=_without_classes(raw.parts), classes=())
        others = _without_classes(others)
    # Where nobody gives test examples, they are half of the validation examples, whosever.
    foreign = "test" in named or ("validation" in named and "test" in raw.parts)
    alike = raw.alike and not foreign
    return assemble(raw, others, named, seed=seed, alike=alike, source=source)


def _opened(source: str, seed: int, root: Path | None, form: Preprocessing | None) -> Raw:
    path = Path(source).expanduser()
    if source not in NAMED and path.is_dir():
        return load_folder(path, form)
    raw = _as_it_is(source, seed, root)
    return raw if form is None else in_form(raw, form)


def _as_it_is(source: str, seed: int, root: Path | None) -> Raw:
    """Every source but folders, which are brought to form picture by picture."""
    if source in NAMED:
        return NAMED[source](root)
    if source.startswith(PREFIX):
        return load_random(source, seed=seed)
    wrong = why_no_source(source)
    if wrong is not None:
        raise wrong
    path = Path(source).expanduser()
    if path.suffix == ".npz":
        return load_npz(path)
    made = load_python(source)
    return _as_raw(made) if isinstance(made, Dataset) else made


def why_no_source(source: str) -> LilliputError | None:
    """What is wrong with the name of a source, before anything of it is opened."""
    path = Path(source).expanduser()
    if source in NAMED or source.startswith(PREFIX) or path.is_dir():
        return None
    if path.suffix == ".npz":
        return None if path.is_file() else LilliputError(f"no file {source!r}")
    if path.exists():
        return LilliputError(
            f"{source!r} is neither a folder nor an .npz",
            hint="give a folder of pictures, an .npz, or file.py:function that yields batches",
        )
    if ":" in source:
        return None
    return LilliputError(
        f"no data {source!r}: not a folder, a file, a function or a set's name",
        hint=nearest(source, NAMED),
    )


def _as_raw(data: Dataset) -> Raw:
    """A data set that the user's code made: its splits are kept, what it lacks is drawn."""
    parts = {name: getattr(data, name) for name in SPLITS if len(getattr(data, name))}
    if not parts:
        raise LilliputError(f"the data {data.name!r} has no examples in any split")
    return Raw(
        data.name,
        parts,
        layout=data.layout,
        augment=data.augment,
        classes=data.classes,
        synthetic=data.synthetic,
        alike=data.alike,
        facts=data.facts,
    )


def _part_of(
    other: str,
    split: str,
    main: Raw,
    *,
    seed: int,
    root: Path | None,
    form: Preprocessing | None,
) -> Split:
    """What another source gives for a split, in the form of the main one."""
    raw = _opened(other, seed, root, form)
    if raw.layout != main.layout:
        raise LilliputError(
            f"{other!r} holds {raw.layout} inputs and {main.name!r} {main.layout} inputs",
            hint="give both as uint8 pictures, or both as ready float32 inputs",
        )
    part = raw.parts[next(name for name in LOOKED_FOR[split] if name in raw.parts)]
    if raw.classes and main.classes and raw.classes != main.classes:
        odd = sorted(set(raw.classes) ^ set(main.classes)) or ["their order"]
        raise LilliputError(
            f"{other!r} has other classes than {main.name!r}: {', '.join(odd[:8])}",
            hint="label i must mean the same in both",
        )
    if main.layout != "image":
        return part
    channels = np.shape(next(iter(main.parts.values())).inputs[0])[-1]
    return Split(with_channels(part.inputs, channels), part.targets)


def _without_classes(parts: dict[str, Split]) -> dict[str, Split]:
    """Pictures whose folders or labels are classes, for a task that knows no classes."""

    def bare(split: Split) -> Split:
        labels = split.targets is not None and len(split) and np.ndim(split.targets[0]) == 0
        return Split(split.inputs) if labels else split

    return {name: bare(split) for name, split in parts.items()}

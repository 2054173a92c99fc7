"""Times of little networks: loaded side by side, judged by their quiet rounds, kept for good."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from lilliput.atomic import write_atomically
from lilliput.errors import CannotWrite
from lilliput.meter.host import fingerprint
from lilliput.meter.loads import loaded_once
from lilliput.meter.statistics import Runs
from lilliput.noun import Noun
from lilliput.runtimes.base import Session
from lilliput.target import Target

if TYPE_CHECKING:
    import onnx

Figures = TypeVar("Figures", bound=Noun)

VERSION = 2
TOLERANCE = 0.03
"""Layers whose times differ by less cost the same."""


@contextmanager
def loaded(models: Mapping[str, onnx.ModelProto], target: Target) -> Iterator[dict[str, Session]]:
    """{name: the model loaded on the target, random inputs bound}; all are closed at the end."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="lilliput-") as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in models}
        for name, path in files.items():
            onnx.save(models[name], str(path))
        with loaded_once(files, target) as sessions:
            yield sessions


def quiet_seconds(runs: Runs) -> float:
    """The lower quartile of the rounds' medians, from (rounds, burst) nanoseconds.

    A busy neighbour only ever adds time, and one bad stretch must not bend a table.
    """
    return float(np.percentile(np.median(runs, axis=1), 25)) * 1e-9


def kept(
    noun: type[Figures], asked: Mapping[str, object], folder: Path, work: Callable[[], Figures]
) -> Figures:
    """What `work` finds out; read from the folder if the same was asked there before.

    Where nothing can be written, it is found out anew each time.
    """
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]
    file = folder / f"{digest}.json"
    known = _stored(noun, file)
    if known is not None:
        return known
    found = work()
    # Another process may have found it meanwhile: the first figures stay, so that all agree.
    known = _stored(noun, file)
    if known is not None:
        return known
    with suppress(CannotWrite):
        write_atomically(file, found.model_dump_json(indent=1).encode())
    return found


def _stored(noun: type[Figures], file: Path) -> Figures | None:
    """The figures in the file; None where there is none, or one that is damaged."""
    try:
        return noun.model_validate_json(file.read_text())
    except (OSError, ValueError):
        return None


def identity(target: Target) -> dict[str, object]:
    """What times of layers depend on besides the layer: machine, libraries and target."""
    machine = fingerprint()
    return {
        "cpu": machine["cpu"],
        "flags": machine["flags"],
        "cores": machine["cores"],
        "versions": {k: machine["versions"].get(k) for k in ("onnxruntime", "openvino")},
        "target": target.model_dump(mode="json"),
        "profile": VERSION,
    }


def users_cache(kind: str) -> Path:
    """The user's own folder for figures of this kind."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("lilliput")) / kind

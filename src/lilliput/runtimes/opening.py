"""Opening a file on a target: every reason why it cannot work is said before anything is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from lilliput.artifact import ArtifactMetadata, TensorSpec, read_metadata
from lilliput.data.dataset import Array
from lilliput.errors import LilliputError, Missing, Refused, nearest
from lilliput.onnx_io import SUFFIXES, as_onnx
from lilliput.runtimes.base import RUNTIMES, Runtime, Session
from lilliput.target import Target


def open_session(path: Path | str, target: Target) -> Session:
    """Load the file in the target's runtime, after `check_can_open`.

    A `.lil` file is unpacked first; its load time includes that.
    """
    runtime = RUNTIMES[target.runtime]
    check_can_open(runtime, Path(path), target)
    began = time.perf_counter()
    with as_onnx(path) as plain:
        unpacking = time.perf_counter() - began
        session = runtime.load(plain, target)
    session.load_seconds += unpacking
    session.conditions["load_ms"] = round(1e3 * session.load_seconds, 3)
    return session


def check_can_open(runtime: Runtime, path: Path, target: Target) -> None:
    """Raise `Refused` or `Missing`, with a way out, if `runtime` cannot open `path` here."""
    if not path.is_file():
        raise LilliputError(f"no file at {str(path)!r}", hint="check the path")
    form = ".onnx" if path.suffix in SUFFIXES else path.suffix
    if form not in runtime.formats:
        others = those_that_open(form)
        raise Refused(
            f"{runtime.name} opens {', '.join(runtime.formats)} files, not {path.name!r}",
            hint=f"runtimes that open {path.suffix}: {', '.join(others)}" if others else None,
        )
    check_target(runtime, target)
    require_runtime(runtime)


def those_that_open(form: str) -> list[str]:
    """The runtimes that open files of this suffix."""
    return [name for name in RUNTIMES if form in RUNTIMES[name].formats]


def require_runtime(runtime: Runtime) -> None:
    """Raise `Missing`, with the command that installs it, if the runtime is not here."""
    reason = runtime.unavailable()
    if reason is not None:
        raise Missing(f"the runtime {runtime.name} cannot be used here", hint=reason)


def check_target(runtime: Runtime, target: Target) -> None:
    """Raise `Refused` for a precision or a device that the runtime does not have."""
    if target.precision not in runtime.precisions:
        raise Refused(
            f"{runtime.name} has no precision {target.precision!r}",
            hint=nearest(target.precision, runtime.precisions),
        )
    if target.device != "cpu":
        raise Refused(
            f"{runtime.name} runs on the CPU here, not on {target.device!r}",
            hint="set the target's device to cpu",
        )


def installed_version(package: str) -> str | None:
    """The version of an installed distribution, without importing it."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def with_samples(path: Path, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The file's inputs with the sample shapes that its own metadata names."""
    return sampled(read_metadata(path), specs)


def sampled(metadata: ArtifactMetadata, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs with the sample shapes that the metadata names."""
    known = {spec.name: spec for spec in metadata.inputs}
    return tuple(
        spec.model_copy(update={"sample": known[spec.name].sample}) if spec.name in known else spec
        for spec in specs
    )


def random_feeds(inputs: Sequence[TensorSpec], *, batch: int = 1, seed: int = 0) -> list[Array]:
    """Inputs of the right shapes: standard normal, or zeros and ones where integers are taken.

    A free size other than the batch counts as 1 unless the file says at what it is measured.
    """
    rng = np.random.default_rng(seed)
    feeds: list[Array] = []
    for spec in inputs:
        shape = spec.concrete(batch)
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            feeds.append(rng.standard_normal(shape).astype(dtype))
        else:
            feeds.append(rng.integers(0, 2, shape).astype(dtype))
    return feeds


def check_feeds(feeds: Sequence[Array], inputs: Sequence[TensorSpec]) -> None:
    """Raise `LilliputError` naming the input whose shape or number does not fit the file."""
    if len(feeds) != len(inputs):
        names = ", ".join(spec.name for spec in inputs)
        raise LilliputError(f"the file takes {len(inputs)} inputs ({names}), got {len(feeds)}")
    for feed, spec in zip(feeds, inputs, strict=True):
        fits = feed.ndim == len(spec.shape) and all(
            want is None or want == got for want, got in zip(spec.shape, feed.shape, strict=True)
        )
        if not fits:
            wanted = "×".join("any" if size is None else str(size) for size in spec.shape)
            got = "×".join(map(str, feed.shape))
            raise LilliputError(
                f"input {spec.name!r} takes {wanted}, got {got}",
                hint="check the preprocessing's size and channels, and the batch size",
            )

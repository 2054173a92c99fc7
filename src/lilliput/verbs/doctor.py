"""What works on this machine, what is missing, and the command that installs it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lilliput.meter.host import fingerprint, load_average
from lilliput.noun import Noun
from lilliput.runtimes.base import RUNTIMES
from lilliput.runtimes.opening import installed_version

WORKSHOP = 'pip install "lilliput[train]"'

PACKAGES = (
    ("onnx", "reads and writes files", "pip install lilliput"),
    ("onnxruntime", "the default runtime", "pip install lilliput"),
    ("torch", "pruning, distilling, export", WORKSHOP),
    ("safetensors", "weights", WORKSHOP),
    ("lightning-fabric", "training", WORKSHOP),
    ("onnxscript", "the second exporter", WORKSHOP),
    ("scikit-learn", "the embedded digits", WORKSHOP),
    ("openvino", "an optional runtime", 'pip install "lilliput[openvino]"'),
    ("ray", "--workers ray", 'pip install "lilliput[ray]"'),
    ("mlflow-skinny", "--track mlflow", 'pip install "lilliput[mlflow]"'),
    ("tensorboardX", "--track tensorboard", 'pip install "lilliput[tensorboard]"'),
)
"""(distribution, what it serves, what installs it)."""


class Part(Noun):
    """A package or a runtime: `missing` is None when it works here, else the way to get it."""

    name: str
    purpose: str
    version: str | None = None
    missing: str | None = None


class Folder(Noun):
    """A folder that lilliput looks into, whether it is there, and how to have it."""

    purpose: str
    path: Path
    found: bool
    hint: str = ""


class Diagnosis(Noun):
    """What `doctor` found; `str()` is the text for a terminal, `model_dump()` the JSON.

    `healthy` says that files can be measured here; `warnings` are sentences about the machine.
    """

    version: str
    machine: dict[str, Any]
    packages: tuple[Part, ...]
    runtimes: tuple[Part, ...]
    folders: tuple[Folder, ...]
    warnings: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        return any(part.missing is None for part in self.runtimes if part.name != "null")

    @property
    def workshop(self) -> bool:
        """Whether networks can be trained and cut here, not only files measured."""
        return all(part.missing != WORKSHOP for part in self.packages)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def doctor() -> Diagnosis:
    """Look at packages, runtimes, the CPU and the folders; nothing is loaded or changed."""
    machine = fingerprint()
    return Diagnosis(
        version=installed_version("lilliput") or "from source",
        machine=machine,
        packages=tuple(_package(*entry) for entry in PACKAGES),
        runtimes=tuple(_runtime(name) for name in RUNTIMES),
        folders=(data_folder(), cache_folder()),
        warnings=tuple(_warnings(machine)),
    )


def data_folder() -> Folder:
    """Where named data sets are looked for first: LILLIPUT_DATA, else beside the working folder."""
    named = os.environ.get("LILLIPUT_DATA")
    path = Path(named) if named else Path("..") / "shared" / "data"
    return Folder(
        purpose="data sets",
        path=path,
        found=path.is_dir(),
        hint="export LILLIPUT_DATA=FOLDER; without it sets are downloaded when first used",
    )


def cache_folder() -> Folder:
    """Where downloads and measured width tables are kept; made when first needed."""
    import platformdirs

    path = Path(platformdirs.user_cache_dir("lilliput"))
    return Folder(
        purpose="cache", path=path, found=path.is_dir(), hint="it is made when first needed"
    )


def _package(name: str, purpose: str, command: str) -> Part:
    version = installed_version(name)
    return Part(name=name, purpose=purpose, version=version, missing=None if version else command)


def _runtime(name: str) -> Part:
    runtime = RUNTIMES[name]
    return Part(
        name=name,
        purpose=f"runs {', '.join(runtime.formats)}",
        missing=runtime.unavailable(),
    )


def _warnings(machine: dict[str, Any]) -> Iterator[str]:
    if machine["saturates"]:
        yield (
            "this CPU adds 8-bit products in 16 bits: int8 files for it get 7-bit weights, which "
            "costs nothing in speed"
        )
    if machine["governor"] not in (None, "performance"):
        yield (
            f"the clock follows the governor {machine['governor']!r}; steadier figures: "
            "cpupower frequency-set -g performance"
        )
    busy = load_average()
    if busy is not None and busy[0] > 0.5 * machine["usable_cores"]:
        yield f"other work runs here (load {busy[0]:.1f}); figures taken now are flagged"


def _lines(found: Diagnosis) -> Iterator[str]:
    machine = found.machine
    yield f"lilliput {found.version}, Python {machine['python']}, {machine['os']}"
    yield (
        f"{machine['cpu']}: {machine['cores']} cores, {machine['usable_cores']} usable threads, "
        f"{machine['memory_bytes'] / 1e9:.0f} GB, instruction set {machine['isa']}"
    )
    yield ""
    for part in found.packages:
        yield _line(part.name, part.version or "missing", part.purpose, part.missing)
    yield ""
    for part in found.runtimes:
        yield _line(part.name, "missing" if part.missing else "works", part.purpose, part.missing)
    yield ""
    for folder in found.folders:
        state = "found" if folder.found else "not there"
        yield _line(folder.purpose, state, str(folder.path), None if folder.found else folder.hint)
    yield from (f"\n! {warning}" for warning in found.warnings)


def _line(name: str, state: str, about: str, way_out: str | None) -> str:
    line = f"{name:<17} {state:<13} {about}"
    return f"{line}\n{'':<17} → {way_out}" if way_out else line

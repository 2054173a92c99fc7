"""What `int8-holds` is made of: the networks, the files of ours and of the peers, their judging."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Options
from benchmarks.peers import ort_int8
from benchmarks.peers.environment import interpreter, output_of
from benchmarks.resnets import PREPROCESSING as IMAGENET
from benchmarks.resnets import Log
from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context, SilentJournal
from lilliput.data.dataset import Split
from lilliput.data.sources import load_data
from lilliput.encode.calibration import calibration_of
from lilliput.encode.saturation import OldCpu
from lilliput.export.onnx_file import export_network
from lilliput.models.source import load_network
from lilliput.onnx_io import read_model
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.runtimes.opening import open_session
from lilliput.steps.quantize import Quantize
from lilliput.target import Target
from lilliput.tasks import task_of

OURS = "ours"
IMAGES = 256
OLD_CPU = ("avx2",)
"""Our file is made for the CPU that clips; it is right on the others too."""

CROP = 48
"""Side of the pictures on which super-resolution is scored as an old CPU would run it."""


@dataclass(frozen=True)
class Case:
    """A network as a user would hand it over, its data and what may be lost."""

    name: str
    model: str
    weights: str
    preprocessing: Preprocessing
    data: str = "cifar10"
    task: str | Mapping[str, Any] = "classification"
    unit: str = "points"
    allowed: float = 0.2

    @property
    def enlarges(self) -> bool:
        return self.task != "classification"

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        if self.enlarges:
            free = TensorSpec(name="input", shape=(None, 3, None, None), sample=(1, 3, 48, 48))
            return (free,)
        return (TensorSpec(name="input", shape=(None, 3, 32, 32)),)


CASES = (
    Case("ResNet-8", "mlperf_tiny.py:resnet8", "mlperf_tiny_resnet8/model", Preprocessing(scale=1)),
    Case("ResNet-20", "resnet_cifar.py:resnet20", "cifar10_resnet20/model", IMAGENET),
    Case("ResNet-56", "resnet_cifar.py:resnet56", "cifar10_resnet56/model", IMAGENET),
    Case(
        "Separable ResNet",
        "separable_resnet.py:build",
        "cifar10_separable_resnet_4_3/model",
        Preprocessing(),
    ),
    Case(
        "CARN-M ×2",
        "carn_m.py:x2",
        "sr_carn_m/carn_m_fp16",
        Preprocessing(),
        data="t91",
        task={"name": "super_resolution", "scale": 2},
        unit="dB",
        allowed=0.1,
    ),
)


class Journal(SilentJournal):
    """Remembers what the stage noted, in memory."""

    def __init__(self) -> None:
        self.events: dict[str, dict[str, Any]] = {}

    def note(self, event: str, **facts: Any) -> None:
        self.events[event] = facts


@dataclass(frozen=True)
class Files:
    """The float file and the int8 files of one network, by who made them."""

    float: Artifact
    int8: Mapping[str, Path]
    coverage: str


def prepared(case: Case, options: Options) -> Context:
    """The network's data and its float file."""
    task = task_of(case.task)
    data = task.prepare(load_data(case.data, task=task))
    folder = options.work / case.model.partition(":")[2]
    folder.mkdir(exist_ok=True)
    path = folder / "float.onnx"
    network = load_network(
        f"{options.home}/networks/{case.model}",
        weights=options.data / f"models/{case.weights}.safetensors",
        inputs=case.inputs,
        preprocessing=case.preprocessing,
        task=task,
    )
    metadata = ArtifactMetadata(preprocessing=network.preprocessing, task=task.settings())
    artifact = export_network(network, path, metadata=metadata)
    return Context(
        data=data,
        task=task,
        target=Target(isa=OLD_CPU),
        original=Candidate("float", artifact=artifact),
        folder=folder,
        journal=Journal(),
        progress=Log(options),
    )


def make_files(context: Context, options: Options) -> Files:
    """Quantize with every tool; what an earlier run finished is kept."""
    folder = context.folder
    original = context.original.the_artifact()
    images = 32 if options.smoke else IMAGES
    coverage = folder / "coverage.txt"
    if not coverage.is_file() or not (folder / "ours.onnx").is_file():
        options.log("  ours")
        Quantize(calibration_images=images).apply(Candidate("ours", artifact=original), context)
        journal = context.journal
        assert isinstance(journal, Journal)
        coverage.write_text(journal.events["quantized"]["coverage"])
    files = {OURS: folder / "ours.onnx"}
    batches = calibration_batches(context, images)
    for name, make in peers(options).items():
        path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:8]}.onnx"
        if not path.is_file():
            options.log(f"  {name}")
            make(original.path, batches, path)
        files[name] = path
    return Files(original, files, coverage.read_text())


def quantized(context: Context, rate: float | None) -> Path:
    """The int8 file as the stage makes it; one from an earlier run is kept."""
    original = context.original.the_artifact()
    candidate = Candidate(f"int8-{'ordinary' if rate is None else rate}", artifact=original)
    path = context.folder / f"{candidate.id}.onnx"
    if not path.is_file():
        made = Quantize(rate=rate).apply(candidate, context)
        assert made.the_artifact().path == path
    return path


def calibration_batches(context: Context, images: int) -> list[np.ndarray]:
    """The very examples that ours is calibrated with."""
    artifact = context.original.the_artifact()
    found = calibration_of(
        context.data,
        context.task,
        artifact.metadata.preprocessing or IDENTITY,
        artifact.metadata.inputs,
        images=images,
        rng=context.rng("quantize", "calibration"),
    )
    return [batch[0] for feeds in (found.fit, found.judge) for batch in feeds()]


Make = Callable[[Path, list[np.ndarray], Path], None]


def peers(options: Options) -> dict[str, Make]:
    """{peer: what makes its file}."""

    def by_ort(settings: dict[str, Any]) -> Make:
        return lambda source, batches, target: ort_int8.quantize_static(
            source, batches, target, settings
        )

    found: dict[str, Make] = {
        "ONNX Runtime, defaults": by_ort(ort_int8.DEFAULTS),
        "ONNX Runtime, U8S8 per channel": by_ort(ort_int8.u8s8_per_channel(reduce_range=False)),
        "ONNX Runtime, U8S8 per channel, 7 bits": by_ort(
            ort_int8.u8s8_per_channel(reduce_range=True)
        ),
    }
    python = interpreter("nncf", create=not options.smoke)
    if python is not None:
        found["NNCF 3.4.0"] = lambda source, batches, target: by_nncf(
            python, source, batches, target
        )
    return found


def by_nncf(python: Path, source: Path, batches: list[np.ndarray], target: Path) -> None:
    """Run NNCF in its environment."""
    calibration = target.with_suffix(".npz")
    np.savez(calibration, **{str(n): batch for n, batch in enumerate(batches)})
    try:
        output_of(python, "nncf_int8.py", source, calibration, target, peer="NNCF")
    finally:
        calibration.unlink()


@dataclass(frozen=True)
class Judged:
    """One file on the test pictures: scores, and the relative error of its outputs."""

    scores: np.ndarray
    error: float


def judge(
    context: Context, files: Files, split: Split, folder: Path, *, old_cpu: bool
) -> dict[str, Judged]:
    """Scores and relative output error of every int8 file, and of the float file as "float".

    Results are kept in `folder` by the content of the file.
    """
    runners: dict[str, Path] = {"float": files.float.path, **files.int8}
    outputs = {
        name: _outputs(context, path, split, folder, old_cpu=old_cpu and name != "float")
        for name, path in runners.items()
    }
    reference = outputs["float"]
    size = np.sqrt(sum(np.square(o, dtype=np.float64).sum() for o in reference))
    found = {}
    for name, made in outputs.items():
        gaps = [np.square(a.astype(np.float64) - b) for a, b in zip(made, reference, strict=True)]
        targets = list(_targets(context, split))
        scores = [context.task.scores(o, t) for o, t in zip(made, targets, strict=True)]
        error = float(np.sqrt(sum(g.sum() for g in gaps)) / size)
        found[name] = Judged(np.concatenate(scores), error)
    return found


def old_cpu_split(context: Context, count: int) -> Split:
    """The test pictures that are also run as an old CPU would: few, or small."""
    split = context.data.test
    if split.uniform:
        return split.head(count)
    assert split.targets is not None
    scale = len(split.targets[0]) // len(split.inputs[0])
    small, large = [], []
    for picture, truth in zip(split.inputs, split.targets, strict=True):
        top, left = ((side - CROP) // 2 for side in picture.shape[:2])
        small.append(picture[top : top + CROP, left : left + CROP])
        large.append(
            truth[
                scale * top : scale * (top + CROP),
                scale * left : scale * (left + CROP),
            ]
        )
    return Split(small, large)


def _batches(context: Context, split: Split) -> Iterator[Any]:
    artifact = context.original.the_artifact()
    size = 50 if split.uniform and not context.task.name.startswith("super") else 1
    preprocessing = artifact.metadata.preprocessing or IDENTITY
    return context.task.batches(split, preprocessing, size, layout=context.data.layout)


def _targets(context: Context, split: Split) -> Iterator[Any]:
    for batch in _batches(context, split):
        yield batch.targets


def _outputs(
    context: Context, path: Path, split: Split, folder: Path, *, old_cpu: bool
) -> list[np.ndarray]:
    content = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    # Pictures of many sizes are run whole and as crops: as many of them, and not the same.
    size = "" if split.uniform else f"-{sum(picture.size for picture in split.inputs)}"
    kept = folder / f"outputs-{content}-{len(split)}{size}-{'old' if old_cpu else 'native'}.npz"
    if not kept.is_file():
        inputs = (batch.inputs for batch in _batches(context, split))
        if old_cpu:
            emulator = OldCpu(read_model(path))
            made = [emulator.run(batch)[0] for batch in inputs]
        else:
            with closing(open_session(path, Target())) as session:
                made = [session.run(batch)[0] for batch in inputs]
        np.savez(kept, **{str(n): o for n, o in enumerate(made)})
    held = np.load(kept)
    return [held[str(n)] for n in range(len(held.files))]

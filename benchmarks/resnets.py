"""The published CIFAR-10 ResNets as a user hands them over, and how their files are scored."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.harness import Options
from benchmarks.scoring import points_lost
from lilliput.artifact import Artifact, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.measurement import Measurement
from lilliput.meter.host import native_precision
from lilliput.models.source import load_network
from lilliput.preprocessing import Preprocessing
from lilliput.target import Target
from lilliput.tasks import task_of

PREPROCESSING = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
WORTH_A_LINE = 5.0


class Log:
    """Progress as lines of the claim's log."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def track(self, items: Any, *, label: str, total: int | None = None) -> Any:
        began = time.perf_counter()
        yield from items
        seconds = time.perf_counter() - began
        if seconds > WORTH_A_LINE:
            of = f" ({total})" if total else ""
            self.options.log(f"  {label}{of}: {seconds:.0f} s")

    def say(self, line: str) -> None:
        self.options.log(line)


def class_and_weights(options: Options, name: str) -> tuple[str, Path]:
    """What a user names: the file with the class, and the weights file."""
    return (
        f"{options.home}/networks/resnet_cifar.py:{name}",
        options.data / f"models/cifar10_{name}/model.safetensors",
    )


def context_for(options: Options, name: str, folder: Path, *, seed: int, threads: int) -> Context:
    """The network with its published weights, and CIFAR-10 with all of its training images."""
    task = task_of("classification")
    factory, weights = class_and_weights(options, name)
    network = load_network(
        factory,
        weights=weights,
        inputs=(TensorSpec(name="input", shape=(None, 3, 32, 32)),),
        preprocessing=PREPROCESSING,
    )
    folder.mkdir(parents=True, exist_ok=True)
    data = load_data("cifar10", task=task, seed=seed)
    return Context(
        data=replace(data, train=data.train.joined(data.validation)),
        task=task,
        target=Target(),
        original=Candidate("original", network=network),
        folder=folder,
        checkpoints=folder,
        answers=folder,
        seed=seed,
        train_threads=threads,
        train_precision=native_precision(),
        progress=Log(options),
    )


def with_preprocessing(path: Path, original: Artifact) -> Artifact:
    """The file with the preprocessing that its network was trained with; peers store none."""
    found = Artifact.of(path)
    if found.metadata.preprocessing is not None:
        return found
    kept = {"preprocessing": original.metadata.preprocessing}
    return Artifact.of(path, metadata=found.metadata.model_copy(update=kept))


def whole_test_drop(ours: Artifact, original: Artifact, target: Target) -> Measurement:
    """Paired loss on all 10,000 test examples; the original runs in ONNX Runtime."""
    task = task_of("classification")
    return points_lost(ours, original, task, load_data("cifar10", task=task).test, target)

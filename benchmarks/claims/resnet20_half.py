"""ResNet-20 on CIFAR-10 at half its multiply-adds: ours and torch-pruning, equal training."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import mean

from benchmarks.fast import PREPROCESSING, Log, whole_test_drop
from benchmarks.harness import Claim, CommittedFile, Options, Peer, Row
from benchmarks.peers.torch_pruning_half import cut_by_torch_pruning
from lilliput.artifact import Artifact, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.export.onnx_file import export_network
from lilliput.meter.cost import file_cost
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.steps.distill import Distill
from lilliput.steps.finetune import Finetune
from lilliput.steps.prune_channels import PruneChannels
from lilliput.target import Target
from lilliput.tasks import task_of

MAX_MACS = 20.4e6
EPOCHS, SMOKE_EPOCHS = 12, 1
PEER = "torch-pruning 1.6.1, group L2 norm, fine-tuned with cross-entropy"


def run(options: Options) -> Claim:
    lost: dict[str, list[float]] = {"ours": [], PEER: []}
    macs: dict[str, list[float]] = {"ours": [], PEER: []}
    minutes: list[float] = []
    files: dict[str, CommittedFile] = {}
    for seed in options.seeds[:1] if options.smoke else options.seeds:
        context = prepared(options, seed)
        original = export_network(context.original.the_network(), options.work / "original.onnx")
        for name, make in (("ours", ours), (PEER, theirs)):
            began = time.perf_counter()
            path = options.work / f"{'ours' if name == 'ours' else 'peer'}-{seed}.onnx"
            artifact = finished(path) or export_network(make(context, options), path)
            lost[name].append(whole_test_drop(artifact, original, Target()).value)
            macs[name].append(file_cost(artifact.path).macs)
            if name == "ours":
                minutes.append((time.perf_counter() - began) / 60)
                files[f"seed {seed}"] = options.commit(artifact.path, f"resnet20-half-{seed}.onnx")
            options.log(f"seed {seed}, {name}: {lost[name][-1]:.2f} points lost")
    return Claim(
        says="ResNet-20 on CIFAR-10 at half its multiply-adds loses at most 0.7 points",
        rows=(
            spread("points lost", lost["ours"], "points", "<= 0.7"),
            Row(
                name="multiply-adds",
                figure=max(macs["ours"]),
                unit="MACs",
                goal=f"<= {MAX_MACS:g}",
            ),
            Row(name="minutes, longest", figure=max(minutes), unit="min", goal="<= 60"),
        ),
        peers=(
            Peer(
                name=PEER,
                rows=(
                    spread("points lost", lost[PEER], "points", None),
                    Row(name="multiply-adds", figure=max(macs[PEER]), unit="MACs"),
                ),
            ),
        ),
        files=files,
    )


def spread(name: str, values: list[float], unit: str, goal: str | None) -> Row:
    """The mean over seeds, with the least and the largest as its interval."""
    return Row(
        name=name,
        figure=mean(values),
        interval=(min(values), max(values)),
        unit=unit,
        goal=goal,
        seeds=len(values),
        note="interval: least and largest of the seeds",
    )


def finished(path: Path) -> Artifact | None:
    """The file of an interrupted claim, which need not be made again."""
    return Artifact.of(path) if path.is_file() else None


def prepared(options: Options, seed: int) -> Context:
    """ResNet-20 with its published weights, and CIFAR-10 with all of its training images."""
    task = task_of("classification")
    data = load_data("cifar10", task=task, seed=seed)
    network = load_network(
        f"{options.home}/networks/resnet_cifar.py:resnet20",
        weights=options.data / "models/cifar10_resnet20/model.safetensors",
        inputs=(TensorSpec(name="input", shape=(None, 3, 32, 32)),),
        preprocessing=PREPROCESSING,
    )
    folder = options.work / f"seed-{seed}"
    folder.mkdir(exist_ok=True)
    return Context(
        data=data,
        task=task,
        target=Target(),
        original=Candidate("original", network=network),
        folder=folder,
        checkpoints=folder,
        seed=seed,
        train_threads=2,
        progress=Log(options),
    )


def ours(context: Context, options: Options) -> Network:
    """Channels cut globally to the goal, then distilled from the original."""
    cut = PruneChannels(max_macs=MAX_MACS, multiple_of=1, rounds=1)
    narrow = cut.apply(Candidate("ours", network=context.original.network), context)
    epochs = SMOKE_EPOCHS if options.smoke else EPOCHS
    trained = Distill(epochs=epochs, learning_rate=0.03).apply(
        Candidate("ours", network=narrow.network), context
    )
    return trained.the_network()


def theirs(context: Context, options: Options) -> Network:
    """torch-pruning's cut of what it cuts correctly here, then its usual fine-tuning."""
    module = cut_by_torch_pruning(context.original.the_network(), MAX_MACS)
    original = context.original.the_network()
    network = Network(module, original.inputs, "torch-pruning", original.preprocessing)
    epochs = SMOKE_EPOCHS if options.smoke else EPOCHS
    tuned = Finetune(epochs=epochs, learning_rate=0.01).apply(
        Candidate("peer", network=network), context
    )
    return tuned.the_network()


def verify(options: Options) -> Claim:
    """Score the committed files again."""
    original = export_network(prepared(options, 0).original.the_network(), options.work / "o.onnx")
    lost, macs = [], []
    for seed in options.seeds:
        path = options.committed(f"seed {seed}")
        lost.append(whole_test_drop(Artifact.of(path), original, Target()).value)
        macs.append(file_cost(path).macs)
    return Claim(
        says="the committed files, scored again",
        rows=(
            spread("points lost", lost, "points", "<= 0.7"),
            Row(name="multiply-adds", figure=max(macs), unit="MACs", goal=f"<= {MAX_MACS:g}"),
        ),
    )

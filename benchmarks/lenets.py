"""LeNets on MNIST: trained once a seed, and how their files are scored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.harness import Options
from benchmarks.resnets import Log
from benchmarks.scoring import scores
from lilliput.artifact import Artifact, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.distill.speed import torch_threads
from lilliput.models.source import load_network
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.steps.finetune import Finetune
from lilliput.target import Target
from lilliput.tasks import task_of

PREPROCESSING = Preprocessing(channels=1, mean=(0.1307,), std=(0.3081,))
EPOCHS = {"lenet5": 20, "lenet300": 30}
INPUT = TensorSpec(name="input", shape=(None, 1, 28, 28))


def lenet_context(options: Options, name: str, *, seed: int) -> Context:
    """MNIST and the network, trained with shifted pictures; what was trained once is kept.

    5,000 training images are kept apart and choose whatever is to be chosen. What is made of the
    network trains on pictures that move by a pixel at most: small networks have no room for more.
    """
    torch.manual_seed(seed)
    network = load_network(
        f"{options.home}/networks/lenet.py:{name}", inputs=(INPUT,), preprocessing=PREPROCESSING
    )
    shared = options.home / "work" / f"baseline{'-smoke' if options.smoke else ''}"
    shared.mkdir(parents=True, exist_ok=True)
    folder = options.work / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    task = task_of("classification")
    context = Context(
        data=load_data("mnist", task=task, seed=seed),
        task=task,
        target=Target(),
        original=Candidate("original", network=network),
        folder=folder,
        checkpoints=folder,
        seed=seed,
        progress=Log(options),
    )
    path = shared / f"{name}-{seed}.safetensors"
    if not path.is_file():
        save_network(_trained(network, name, context, smoke=options.smoke), path)
    trained = load_saved(path, network.module)
    return replace(
        context,
        data=replace(context.data, augment=("nudge",)),
        original=Candidate("original", network=trained),
    )


def _trained(network: Network, name: str, context: Context, *, smoke: bool) -> Network:
    step = Finetune(epochs=1 if smoke else EPOCHS[name], learning_rate=0.05)
    with torch_threads(1):
        return step.apply(Candidate(f"baseline-{name}", network=network), context).the_network()


def error(path: Path) -> float:
    """Per cent of MNIST's 10,000 test pictures that a file gets wrong, in ONNX Runtime."""
    task = task_of("classification")
    return float(100 - scores(Artifact.of(path), task, load_data("mnist", task=task).test).mean())

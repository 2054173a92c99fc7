"""Adversarial distillation: a small LeNet on MNIST, and every arm on a small CIFAR-10 ResNet.

No arm is tuned: each has the same epochs, batches, learning rate and first weights, and otherwise
the defaults of its step. `shuffled` is the last arm again with each of the teacher's features
given to another picture of the batch: what it gains is not about pictures. One default differs
between the steps: where a teacher answers, four augmented epochs come again and again; those of
labels alone are new each time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.harness import Claim, Options, Row
from benchmarks.lenets import error, lenet_context
from benchmarks.resnets import Log, context_for
from benchmarks.scoring import scores
from lilliput.artifact import Artifact
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.distill.adversary import Deception, Rival
from lilliput.distill.loop import train
from lilliput.distill.losses import Observed
from lilliput.distill.sources import Examples
from lilliput.export.onnx_file import export_network
from lilliput.models.source import load_network
from lilliput.network import Network
from lilliput.steps.base import Step
from lilliput.steps.distill import Distill
from lilliput.steps.distill_adversarial import DistillAdversarial, adapter_between
from lilliput.steps.finetune import Finetune
from lilliput.tasks import task_of

MNIST_GOAL = "<= 0.65"
MNIST_EPOCHS, CIFAR_EPOCHS, SMOKE_EPOCHS = 40, 16, 1
RATES = {"mnist": 0.05, "cifar": 0.1}
DATA = {"mnist": "mnist", "cifar": "cifar10"}
TASK = task_of("classification")

CE, KD, HINTS, GAME, BOTH, SHUFFLED = (
    "cross-entropy",
    "distillation",
    "hints",
    "adversarial",
    "adversarial + distillation",
    "shuffled",
)
ARMS = (CE, KD, HINTS, GAME, BOTH, SHUFFLED)
CONDITION = "teacher"
"""Told the teacher's scores, the discriminator can see which feature belongs to which picture."""


@dataclass(frozen=True)
class Job:
    """One training: the data, the arm and the seed."""

    data: str
    arm: str
    seed: int

    @property
    def stem(self) -> str:
        return f"{self.data}-{self.arm.replace(' + ', '-')}-{self.seed}"


@dataclass(frozen=True)
class Made:
    """A trained network's file, its error on the whole test split, and the seconds of training."""

    path: Path
    error: float
    seconds: float


def run(options: Options) -> Claim:
    """All trainings, two side by side, a thread each; finished ones are kept as parts."""
    jobs = jobs_of(options)
    for job in jobs:
        if job.data == "mnist" and not part(options, job).is_file():
            lenet_context(options, "lenet5", seed=job.seed)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        made = dict(zip(jobs, pool.map(partial(make, options), jobs), strict=True))
    for job, result in made.items():
        options.log(f"{job.stem}: error {result.error:.2f} %, {result.seconds:.0f} s")
    kept = [job for job in jobs if job.data == "mnist"]
    return Claim(
        says="A LeNet of 29 thousand parameters errs on at most 0.65 % of MNIST; and what labels, "
        "soft scores, hints and a discriminator each teach a small CIFAR-10 ResNet",
        rows=rows_of(made),
        files={job.stem: options.commit(made[job].path, f"{job.stem}.onnx") for job in kept},
    )


def verify(options: Options) -> Claim:
    """Score the committed files again."""
    stems = [Job("mnist", BOTH, seed).stem for seed in options.seeds]
    errors = [error(options.committed(stem)) for stem in stems]
    return Claim(
        says="the committed files, scored again",
        rows=(spread(f"MNIST, {BOTH}", errors, MNIST_GOAL),),
    )


def jobs_of(options: Options) -> list[Job]:
    """Seeds in the outer loop, so that an interrupted claim has whole comparisons."""
    seeds = options.seeds[:1] if options.smoke else options.seeds
    cifar = [Job("cifar", arm, seed) for seed in seeds for arm in ARMS]
    return [*(Job("mnist", BOTH, seed) for seed in seeds), *cifar]


def rows_of(made: Mapping[Job, Made]) -> tuple[Row, ...]:
    """Errors of every arm: mean over seeds, the least and the largest; MNIST's is the goal."""

    def errors(data: str, arm: str) -> list[float]:
        return [m.error for job, m in made.items() if (job.data, job.arm) == (data, arm)]

    arms = [spread(f"CIFAR-10, {arm}", errors("cifar", arm), None) for arm in ARMS]
    return (spread(f"MNIST, {BOTH}", errors("mnist", BOTH), MNIST_GOAL), *arms)


def spread(name: str, errors: list[float], goal: str | None) -> Row:
    return Row(
        name=name,
        figure=round(mean(errors), 4),
        interval=(round(min(errors), 4), round(max(errors), 4)),
        unit="% error",
        goal=goal,
        seeds=len(errors),
        note="interval: least and largest of the seeds",
    )


def make(options: Options, job: Job) -> Made:
    """One network trained, exported and scored from its file; a finished one is only scored."""
    torch.set_num_threads(1)
    path = part(options, job)
    clock = path.with_suffix(".seconds")
    if not path.is_file():
        began = time.perf_counter()
        network = trained(prepared(options, job), job, epochs_of(options, job))
        clock.write_text(f"{time.perf_counter() - began:.1f}")
        export_network(network, path)
    return Made(path, error_of(path, job), float(clock.read_text()))


def part(options: Options, job: Job) -> Path:
    return options.parts / f"{job.stem}.onnx"


def epochs_of(options: Options, job: Job) -> int:
    if options.smoke:
        return SMOKE_EPOCHS
    return MNIST_EPOCHS if job.data == "mnist" else CIFAR_EPOCHS


def prepared(options: Options, job: Job) -> Context:
    """Data, and the teacher as the original; checkpoints in a folder of the job's own."""
    folder = options.work / job.stem
    folder.mkdir(exist_ok=True)
    if job.data == "cifar":
        context = context_for(options, "resnet20", folder, seed=job.seed, threads=1)
    else:
        context = replace(mnist(options, job.seed), folder=folder, checkpoints=folder)
    return small(context) if options.smoke else replace(context, progress=Log(options))


def small(context: Context) -> Context:
    """A few batches to train on, for a smoke run."""
    return replace(context, data=replace(context.data, train=context.data.train.head(512)))


def mnist(options: Options, seed: int) -> Context:
    """LeNet-5 as the teacher, and all of MNIST's training pictures, as its task moves them."""
    context = lenet_context(options, "lenet5", seed=seed)
    data = context.data
    everything = data.train.joined(data.validation)
    return replace(context, data=replace(data, train=everything, augment=("shift",)))


def student_of(options_home: Path, job: Job, context: Context) -> Network:
    """The untrained student: the same first weights for every arm of a seed."""
    torch.manual_seed(context.derived_seed("student"))
    teacher = context.original.the_network()
    file = "lenet.py:lenet5_thin" if job.data == "mnist" else "resnet_cifar.py:resnet8_half"
    return load_network(
        f"{options_home}/networks/{file}",
        inputs=teacher.inputs,
        preprocessing=teacher.preprocessing,
    )


def step_of(job: Job, epochs: int) -> Step:
    """The arm as the step that a recipe would name."""
    common: dict[str, Any] = {"epochs": epochs, "learning_rate": RATES[job.data]}
    if job.arm == CE:
        return Finetune(**common)
    if job.arm == KD:
        return Distill(**common)
    if job.arm == HINTS:
        return Distill(**common, hints=("linear.input",), imitation=0.0)
    imitation = 0.0 if job.arm == GAME else 0.9
    return DistillAdversarial(**common, condition=CONDITION, imitation=imitation)


def trained(context: Context, job: Job, epochs: int) -> Network:
    student, step = student_of(Path(__file__).parent.parent, job, context), step_of(job, epochs)
    if job.arm == SHUFFLED:
        assert isinstance(step, DistillAdversarial)
        return shuffled(step, student, context)
    return step.apply(Candidate("student", network=student), context).the_network()


class ShuffledRival(Rival):
    """Sees each of the teacher's features beside another picture's scores."""

    def observed(self, seen: Observed, share: float) -> None:
        moved = {tap: x.roll(1, 0) for tap, x in seen.teacher_features.items()}
        super().observed(replace(seen, teacher_features=moved), share)


def shuffled(step: DistillAdversarial, student: Network, context: Context) -> Network:
    """The step with the control's discriminator; batches are in random order, so that the next
    picture is any picture.
    """
    teacher = context.original.the_network()
    source = Examples(context.data, context.task, student.preprocessing, step.batch_size)
    terms, _ = step.parts(student, teacher, context, labelled=True)
    taps = step.taps(student, teacher)
    adapter = adapter_between(student, teacher, taps, seed=context.derived_seed("adapter"))
    plain = step.rival(teacher, taps, adapter, context)
    rival = ShuffledRival(plain.discriminator, adapter, taps, plain.rules, plain.ramp)
    return train(
        student,
        [*terms[:-1], Deception(rival)],
        source,
        step.schedule(),
        context,
        key="student.distill",
        teacher=teacher,
        companions=[rival],
    )


def error_of(path: Path, job: Job) -> float:
    """Per cent of the whole test split that the file gets wrong in ONNX Runtime."""
    test = load_data(DATA[job.data], task=TASK).test
    return 100.0 - float(scores(Artifact.of(path), TASK, test).mean())

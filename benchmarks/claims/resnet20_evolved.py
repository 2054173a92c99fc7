"""ResNet-20 evolved: narrower networks, mixed bits, and one packed file.

The search looks at 5,000 of the training examples, which these weights know by heart: it orders
cuts, and says nothing of accuracy. The test split is looked at once, by the delivered files.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Claim, CommittedFile, Options, Row
from benchmarks.resnets import class_and_weights, context_for, whole_test_drop
from benchmarks.scoring import scores
from lilliput.artifact import Artifact
from lilliput.atomic import write_atomically
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.sources import load_data
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.measurement import Measurement
from lilliput.meter.cost import file_cost
from lilliput.meter.stopwatch import Pace, Timing, compare_files
from lilliput.network import Network
from lilliput.runs.journal import JournalFile
from lilliput.search.genomes import Variant
from lilliput.search.ladder import packed_bytes
from lilliput.search.searching import Quest, evolved
from lilliput.steps.distill import Distill
from lilliput.steps.prune_channels import PruneChannels
from lilliput.steps.search_bits import SearchBits
from lilliput.steps.search_filters import SearchFilters
from lilliput.target import Target
from lilliput.tasks import task_of
from lilliput.teacher import load_teacher
from lilliput.verbs.pack import pack

PUBLISHED = {"30.1 M": (30.1e6, 91.22), "19.1 M": (19.1e6, 90.90), "6.1 M": (6.1e6, 87.61)}
"""{point: (multiply-adds, accuracy)} of the published front, trained for 400 epochs."""

SHORTCUTS = 262_144
"""In the file each zero-padded shortcut is a convolution of its own, which counts too: at most so
much, where no channel of the stem is cut."""

EVOLVED, PRUNED, MIXED, UNIFORM = "evolved", "pruned", "mixed", "uniform"
FRONT, BITS = (EVOLVED, PRUNED), (MIXED, UNIFORM)
WIDTHS = (3, 4)
"""Bits of the uniform networks that mixed ones are compared with; below 2 there is nothing."""

SAFELY_WITHIN = 0.98
"""Of a uniform network's packed bytes, before training, which changes them a little."""

EPOCHS, BIT_EPOCHS = 20, 6
RATE = 0.03
TEACHER, VIEWS = "resnet56", 7
"""Of the delivered and the pruned networks: its answers to seven augmented epochs are kept."""

LIMITS = {"accuracy": f"{EPOCHS} epochs, where the published front had 400"}
"""What stands in the way of a goal that is missed, by the end of the row's name."""

TIMES_SMALLER = 16
BRIEFLY_TRAINED, STARTS = 8, 2
SEED = 0
SAYS = (
    "ResNet-20 evolves into networks that dominate the published front and `prune_channels` after "
    f"{EPOCHS} epochs, ResNet-56 teaching both; mixed bits beat uniform ones; one file is "
    f"{TIMES_SMALLER} times smaller"
)


@dataclass(frozen=True)
class Job:
    """One network: how it is made, and within what or to which bits."""

    kind: str
    point: str

    @property
    def stem(self) -> str:
        return f"{self.kind}-{self.point.replace(' ', '')}"


SMALL = Job(MIXED, f"{TIMES_SMALLER} times")


def run(options: Options) -> Claim:
    """Two jobs side by side, a thread each; what an interrupted claim finished is kept as parts."""
    jobs = [
        *(Job(kind, point) for point in PUBLISHED for kind in FRONT),
        *(Job(kind, f"{width} bits") for width in WIDTHS for kind in BITS),
        SMALL,
    ]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        files = dict(zip(jobs, pool.map(partial(made, options), jobs), strict=True))
    original = original_file(options)
    rows = [row for point in PUBLISHED for row in front_rows(point, files, original, options)]
    rows += [row for width in WIDTHS for row in bit_rows(f"{width} bits", files, original)]
    delivered = {job.stem: job for job in jobs if job.kind in (EVOLVED, MIXED) and job != SMALL}
    return Claim(
        says=SAYS,
        rows=tuple(limited(row) for row in (*rows, *small_rows(files[SMALL], original))),
        files={
            name: committed(options, files[job])
            for name, job in {**delivered, "small": SMALL}.items()
        },
    )


def original_file(options: Options) -> Artifact:
    return exported(prepared(options).original.the_network(), options.work / "original.onnx")


def committed(options: Options, path: Path) -> CommittedFile:
    """Packed, since a float file of the largest network may be larger than what is committed."""
    packed = options.work / f"{path.stem}.lil"
    if path.suffix != packed.suffix:
        packed.unlink(missing_ok=True)
        pack(path, out=packed)
    return options.commit(packed, f"resnet20-{packed.name}")


# Searches ----------------------------------------------------------------------------------


def prepared(options: Options, job: Job | None = None) -> Context:
    """ResNet-20 and CIFAR-10; the trainings share their teacher's answers."""
    folder = options.work / (job.stem if job else "searches")
    context = context_for(options, "resnet20", folder, seed=SEED, threads=1)
    context = replace(
        context, checkpoints=options.work / "trainings", answers=options.work / "answers"
    )
    if options.smoke:
        data = context.data
        few = {"train": data.train.head(512), "validation": data.validation.head(200)}
        context = replace(context, data=replace(data, **few))
    return context


def settings(options: Options) -> dict[str, Any]:
    """What both searches have in common."""
    sizes = {"population": 32, "generations": 10, "screen_examples": 1000, "refit_examples": 512}
    few = {"population": 6, "generations": 1, "screen_examples": 100, "refit_examples": 64}
    return {
        "max_drop": 85.0,
        "rank_examples": 0,
        "screen_steps": 2 if options.smoke else 390,
        "learning_rate": RATE,
        "batch_size": 128,
        **(few if options.smoke else sizes),
    }


def filters(options: Options, **limits: float) -> SearchFilters:
    return SearchFilters(objectives=("loss", "macs"), limits=limits, **settings(options))


def bits(options: Options, **limits: float) -> SearchBits:
    return SearchBits(bits=(2, 3, 4, 6, 8), limits=limits, **settings(options))


@contextmanager
def quest_of(stage: SearchFilters | SearchBits, job: Job, options: Options) -> Iterator[Quest]:
    """A search whose results are journalled: an interrupted claim goes on with it."""
    context = prepared(options, job)
    with JournalFile(context.folder / f"{stage.name}.jsonl") as journal:
        context = replace(context, journal=journal)
        yield stage.quest(context.original, context)


def kept(options: Options, job: Job) -> Variant:
    """The variant to train; what was chosen once stays chosen."""
    path = options.parts / f"{job.stem}.json"
    if not path.is_file():
        write_atomically(path, json.dumps(asdict(chosen(options, job))).encode())
    stored = json.loads(path.read_text())
    return Variant(tuple(stored["gone"]), stored["weight_bits"])


def chosen(options: Options, job: Job) -> Variant:
    """The best member within the job's limit; for a uniform width, that."""
    if job.kind == EVOLVED:
        limit = PUBLISHED[job.point][0] - SHORTCUTS
        with quest_of(filters(options, macs=limit), job, options) as quest:
            return best_within(quest, lambda v: float(quest.shop.analysis.macs(v.gone)), limit)
    with quest_of(bits(options), job, options) as quest:
        if job.kind == UNIFORM:
            return uniform(quest, job)

        def packed(variant: Variant) -> float:
            return packed_bytes(quest.shop.built(variant))

        if job == SMALL:
            limit = original_file(options).bytes / TIMES_SMALLER
        else:
            limit = packed(uniform(quest, job))
        limit *= SAFELY_WITHIN
        limited = replace(quest, settings=bits(options, coded_bytes=limit))
        return best_within(limited, packed, limit)


def uniform(quest: Quest, job: Job) -> Variant:
    """The job's bits in all layers."""
    width = int(job.point.split()[0])
    seeds = [quest.encoding.express(genome) for genome in quest.encoding.seeds()]
    return next(v for v in seeds if set(v.weight_bits.values()) == {width})


def best_within(quest: Quest, cost: Callable[[Variant], float], limit: float) -> Variant:
    """Of the members within the limit that lose least, the best after a short training.

    The dearest within it that evolution began with are among them, wherever they stand.
    """
    archive = evolved(quest).archive.values()
    sound = sorted((m for m in archive if not m.outcome.failed), key=lambda m: m.outcome.values)
    priced = [(cost(v), v) for v in map(quest.encoding.express, quest.encoding.seeds())]
    starts = sorted((p for p in priced if p[0] <= limit), key=lambda p: p[0], reverse=True)
    within = [start for _, start in starts[:STARTS]]
    others = (v for v in map(quest.variant, sound) if v not in within and cost(v) <= limit)
    within += list(islice(others, BRIEFLY_TRAINED - len(within)))
    if not within:
        raise LilliputError(f"no member costs at most {limit:.4g}", hint="search for longer")

    def loss(variant: Variant) -> float:
        network = quest.shop.trained(variant, quest.training(), epochs=None, key="brief")
        return quest.shop.loss(network, variant, len(quest.context.data.validation))

    return min(within, key=loss)


# Trainings ---------------------------------------------------------------------------------


def made(options: Options, job: Job) -> Path:
    """One network, chosen, trained and exported; what an interrupted claim finished is kept."""
    torch.set_num_threads(1)
    path = options.parts / f"{job.stem}.onnx"
    if not path.is_file():
        began = time.perf_counter()
        network = trained(options, job)
        path.with_suffix(".seconds").write_text(f"{time.perf_counter() - began:.1f}")
        exported(network, path)
    return pack(path, out=options.work / f"{job.stem}.lil").path if job.kind in BITS else path


def trained(options: Options, job: Job) -> Network:
    """Channels gone and distilled, or distilled on its grids; equally long within a comparison."""
    context = prepared(options, job)
    if job.kind == PRUNED:
        step = PruneChannels(max_macs=PUBLISHED[job.point][0] - SHORTCUTS, multiple_of=1)
        cut = step.apply(Candidate(job.stem, network=context.original.network), context)
        return distilled(cut.the_network(), job, options, context)
    variant = kept(options, job)
    if job.kind == EVOLVED:
        quest = filters(options).quest(context.original, context)
        return distilled(quest.shop.narrowed(variant, verify=True), job, options, context)
    if job == SMALL:
        factory, weights = class_and_weights(options, TEACHER)
        original = context.original.the_network()
        taught = load_teacher(factory, str(weights), original, context.task, context.data)
        context = replace(context, other_teacher=taught)
    quest = bits(options).quest(context.original, context)
    epochs = 1 if options.smoke else BIT_EPOCHS * (2 if job == SMALL else 1)
    return quest.shop.trained(variant, quest.training(), epochs=epochs, key=job.stem)


def distilled(network: Network, job: Job, options: Options, context: Context) -> Network:
    """The same training for evolved and for pruned networks."""
    teacher, weights = class_and_weights(options, TEACHER)
    step = Distill(
        epochs=1 if options.smoke else EPOCHS,
        learning_rate=RATE,
        views=VIEWS,
        teacher=teacher,
        teacher_weights=weights,
    )
    return step.apply(Candidate(job.stem, network=network), context).the_network()


def exported(network: Network, path: Path) -> Artifact:
    return export_network(network, path)


# Figures -----------------------------------------------------------------------------------


def accuracy(path: Path) -> float:
    """Per cent of the whole test split that the file gets right."""
    task = task_of("classification")
    return float(scores(Artifact.of(path), task, load_data("cifar10", task=task).test).mean())


def front_rows(
    point: str, files: Mapping[Job, Path], original: Artifact, options: Options
) -> list[Row]:
    """A point of the published front beside ours, and beside `prune_channels` at equal training."""
    limit, published = PUBLISHED[point]
    ours, theirs = files[Job(EVOLVED, point)], files[Job(PRUNED, point)]
    timings = timed({"ours": ours, "theirs": theirs}, original, options)
    found, other = accuracy(ours), accuracy(theirs)
    mine = timings["ours"]
    low, high = mine.ratio_interval
    return [
        Row(name=f"{point}: accuracy", figure=round(found, 2), unit="%", goal=f">= {published}"),
        Row(
            name=f"{point}: multiply-adds",
            figure=file_cost(ours).macs,
            unit="MACs",
            goal=f"<= {limit:g}",
        ),
        Row(name=f"{point}: median latency", figure=round(mine.median_ms, 4), unit="ms"),
        Row(
            name=f"{point}: times faster",
            figure=round(1 / mine.ratio, 3),
            interval=(1 / high, 1 / low),
            unit="×",
        ),
        Row(
            name=f"{point}: points gained over `prune_channels`, equally trained",
            figure=round(found - other, 2),
            goal="> 0",
            note=f"{other:.2f} % at {file_cost(theirs).macs:.4g} multiply-adds, "
            f"{1 / timings['theirs'].ratio:.3f} × faster",
        ),
    ]


def timed(files: Mapping[str, Path], original: Artifact, options: Options) -> dict[str, Timing]:
    given = {"original": original.path, **files}
    return compare_files(
        {name: (path, Target()) for name, path in given.items()},
        "original",
        Pace(max_seconds=3 if options.smoke else 60),
    )


def limited(row: Row) -> Row:
    """With the reason where the goal is missed."""
    why = next((text for end, text in LIMITS.items() if row.name.endswith(end)), None)
    return row if row.holds is not False else row.model_copy(update={"limits": why})


def bit_rows(point: str, files: Mapping[Job, Path], original: Artifact) -> list[Row]:
    """Mixed and uniform bits, from the packed files."""
    mixed, uniform = files[Job(MIXED, point)], files[Job(UNIFORM, point)]
    lost = {path: packed_drop(path, original) for path in (mixed, uniform)}
    sizes = {path: path.stat().st_size for path in (mixed, uniform)}
    return [
        Row(
            name=f"uniform {point}: points that mixed bits gain",
            figure=round(lost[uniform].value - lost[mixed].value, 2),
            goal="> 0",
            note=f"{lost[mixed].value:.2f} lost against {lost[uniform].value:.2f}",
        ),
        Row(
            name=f"uniform {point}: packed bytes of mixed bits, of the uniform ones'",
            figure=round(sizes[mixed] / sizes[uniform], 4),
            goal="<= 1",
            note=f"{sizes[mixed]} B of {sizes[uniform]} B",
        ),
    ]


def packed_drop(path: Path, original: Artifact) -> Measurement:
    return whole_test_drop(Artifact.of(path), original, Target())


def small_rows(small: Path, original: Artifact) -> list[Row]:
    return [
        Row(
            name="packed file: times smaller than the fp32 ONNX file",
            figure=round(original.bytes / small.stat().st_size, 2),
            unit="×",
            goal=f">= {TIMES_SMALLER}",
            note=f"{small.stat().st_size} of {original.bytes} bytes",
        ),
        Row.of(
            "packed file: points lost, whole test split",
            packed_drop(small, original),
            goal="<= 0.5",
        ),
    ]


def verify(options: Options) -> Claim:
    """Score the committed files again."""
    rows = []
    for point, (_, published) in PUBLISHED.items():
        found = accuracy(options.committed(Job(EVOLVED, point).stem))
        goal = f">= {published}"
        rows.append(Row(name=f"{point}: accuracy", figure=round(found, 2), unit="%", goal=goal))
    small = small_rows(options.committed("small"), original_file(options))
    return Claim(says="the committed files, scored again", rows=(*rows, *small))

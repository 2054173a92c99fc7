"""LeNet-5 searched to plain narrow networks of 103 kB and 45 kB, and evolution against chance.

The search looks at 5,000 training examples that nothing is trained on; the test split is looked at
once, by the delivered files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.harness import Claim, Options, Row
from benchmarks.lenets import error, lenet_context
from lilliput.artifact import Artifact, ArtifactMetadata
from lilliput.context import Context
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.meter.stopwatch import Pace, compare_files
from lilliput.network import Network
from lilliput.runs.journal import JournalFile
from lilliput.search.evolution import Algorithm, Evolution
from lilliput.search.genomes import Variant
from lilliput.search.members import Member
from lilliput.search.searching import Quest, delivered, evolved
from lilliput.steps.search_filters import SearchFilters
from lilliput.target import Target
from lilliput.tasks import task_of

LIMITS = {"103 kB": 103_000, "45 kB": 45_000}
TASK = task_of("classification")
EPOCHS = 30
SAYS = (
    "LeNet-5 evolves into plain fp32 networks of at most 103 kB and 45 kB that keep 99.2 % on "
    "MNIST, and evolution finds a better front than chance at equal evaluations"
)


def run(options: Options) -> Claim:
    seeds = options.seeds[:1] if options.smoke else options.seeds
    found: dict[str, list[Artifact]] = {name: [] for name in LIMITS}
    gains = []
    for seed in seeds:
        evolution, quest = searched(options, "nsga2", seed)
        chance, _ = searched(options, "random", seed)
        gains.append(evolution.hypervolumes[-1] - chance.hypervolumes[-1])
        options.log(f"seed {seed}: hypervolume {evolution.hypervolumes[-1]:.4f}, by chance less")
        options.log(f"  {gains[-1]:.4f}, after {len(evolution.archive)}, {len(chance.archive)}")
        for name, limit in LIMITS.items():
            found[name].append(trained(options, quest, evolution, limit, seed))
    rows = [row for name in LIMITS for row in rows_of(name, found[name], options)]
    won = sum(gain > 0 for gain in gains)
    return Claim(
        says=SAYS,
        rows=(
            *rows,
            Row(
                name="seeds in which evolution's hypervolume is larger than chance's",
                figure=won,
                goal=f">= {len(seeds)}",
                seeds=len(seeds),
            ),
            Row(name="hypervolume gained over chance, mean", figure=round(mean(gains), 5)),
        ),
        files={
            f"{name}, seed {seed}": options.commit(
                file.path, f"lenet5-evolved-{name.split()[0]}-{seed}.onnx"
            )
            for name, files in found.items()
            for seed, file in zip(seeds, files, strict=True)
        },
    )


def searched(options: Options, algorithm: Algorithm, seed: int) -> tuple[Evolution[Variant], Quest]:
    """All generations, gone on with where an interrupted claim stopped."""
    stage = SearchFilters(
        algorithm=algorithm,
        seed=seed,
        population=6 if options.smoke else 48,
        generations=2 if options.smoke else 30,
        screen_examples=500 if options.smoke else 5000,
        rank_examples=0,
        max_drop=30.0,
        epochs=1 if options.smoke else EPOCHS,
        learning_rate=0.02,
        batch_size=128,
        refit_examples=256 if options.smoke else 2048,
    )
    context = prepared(options, seed)
    with journalled(context, options.work / f"{algorithm}-{seed}.jsonl") as logged:
        quest = stage.quest(logged.original, logged)
        return evolved(quest), quest


@contextmanager
def journalled(context: Context, path: Path) -> Iterator[Context]:
    with JournalFile(path) as journal:
        yield replace(context, journal=journal)


def trained(
    options: Options, quest: Quest, evolution: Evolution[Variant], limit: int, seed: int
) -> Artifact:
    """The member that loses least within the limit, trained in full and exported."""
    name = f"evolved-{limit}-{seed}"
    path = options.work / f"{name}.onnx"
    if path.is_file():
        return Artifact.of(path)
    with journalled(quest.context, options.work / f"nsga2-{seed}.jsonl") as context:
        quest = replace(quest, context=context, shop=replace(quest.shop, context=context))
        made = delivered(quest, least_loss(quest, evolution, limit), context.original, name)
    if made is None:
        raise LilliputError(f"the training of {name} failed", at=str(options.work))
    return exported(made.the_network(), path)


def least_loss(quest: Quest, evolution: Evolution[Variant], limit: int) -> Member:
    """Of all that were evaluated, the best whose file keeps the limit by its formula."""
    bytes_of = quest.shop.counter.file_bytes
    within = [
        member
        for member in evolution.archive.values()
        if not member.outcome.failed and bytes_of(quest.variant(member)) <= limit
    ]
    if not within:
        raise LilliputError(f"no candidate has at most {limit} bytes", hint="more generations")
    return min(within, key=lambda member: member.outcome.values)


def prepared(options: Options, seed: int) -> Context:
    """MNIST with 5,000 training examples held out, and the seed's trained LeNet-5."""
    context = lenet_context(options, "lenet5", seed=seed)
    data = context.data
    if options.smoke:
        few = {"train": data.train.head(1024), "validation": data.validation.head(500)}
        data = replace(data, **few)
    return replace(context, data=data, folder=options.work, checkpoints=options.work)


def exported(network: Network, path: Path) -> Artifact:
    metadata = ArtifactMetadata(preprocessing=network.preprocessing, task=TASK.settings())
    return export_network(network, path, metadata=metadata)


def rows_of(name: str, files: list[Artifact], options: Options) -> list[Row]:
    """Mean accuracy on the whole test split, the largest file, and the time beside LeNet-5's."""
    goal = ">= 99.2"
    original = prepared(options, options.seeds[0]).original.the_network()
    whole = exported(original, options.work / "original.onnx")
    timing = compare_files(
        {"original": (whole.path, Target()), "ours": (files[0].path, Target())},
        "original",
        Pace(max_seconds=3 if options.smoke else 30),
    )["ours"]
    return [
        Row(
            name=f"{name}: accuracy",
            figure=round(100 - mean(error(file.path) for file in files), 3),
            unit="%",
            goal=goal,
            seeds=len(files),
        ),
        Row(
            name=f"{name}: largest file",
            figure=max(file.bytes for file in files),
            unit="B",
            goal=f"<= {LIMITS[name]}",
        ),
        Row(name=f"{name}: median latency", figure=round(timing.median_ms, 4), unit="ms"),
        Row(
            name=f"{name}: time over the original's",
            figure=round(timing.ratio, 4),
            interval=timing.ratio_interval,
        ),
    ]

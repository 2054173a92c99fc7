"""LeNet-5 searched to plain narrow networks of 103 kB and 45 kB, and evolution against chance.

The search looks at 5,000 training examples that nothing is trained on; the test split is looked at
once, by the delivered files. The baseline is trained here and kept in the claim's work folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean

from benchmarks.harness import Claim, Options, Row
from benchmarks.resnets import Log
from lilliput.artifact import Artifact, ArtifactMetadata, TensorSpec
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Dataset
from lilliput.data.sources import load_data
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError
from lilliput.export.onnx_file import export_network
from lilliput.meter.accuracy import metric_of, score_file
from lilliput.meter.stopwatch import compare_files
from lilliput.models.source import load_network
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.runs.journal import JournalFile
from lilliput.runtimes.opening import open_session
from lilliput.search.evolution import Algorithm, Evolution
from lilliput.search.genomes import Variant
from lilliput.search.members import Member
from lilliput.search.searching import Quest, delivered, evolved
from lilliput.steps.search_filters import SearchFilters
from lilliput.target import Target
from lilliput.tasks import task_of

LIMITS = {"103 kB": 103_000, "45 kB": 45_000}
TASK = task_of("classification")
GREY = Preprocessing(mean=(0.1307,), std=(0.3081,), channels=1)
BASELINE_EPOCHS, EPOCHS = 15, 30
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
    with journalled(quest.context, options.work / f"nsga2-{seed}.jsonl") as context:
        quest = replace(quest, context=context, shop=replace(quest.shop, context=context))
        made = delivered(quest, least_loss(quest, evolution, limit), context.original, name)
    if made is None:
        raise LilliputError(f"the training of {name} failed", at=str(options.work))
    return exported(made.the_network(), options.work / f"{name}.onnx")


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
    """MNIST with 5,000 training examples held out, and the trained LeNet-5."""
    data = mnist(options)
    context = Context(
        data=data,
        task=TASK,
        target=Target(),
        original=Candidate("original", network=untrained(options)),
        folder=options.work,
        checkpoints=options.work,
        seed=seed,
        progress=Log(options),
    )
    return replace(context, original=Candidate("original", network=baseline(options, context)))


def mnist(options: Options) -> Dataset:
    """The same split for all seeds: the baseline is one, and must not have seen what judges."""
    data = load_data("mnist", task=TASK, seed=0)
    both = data.train.joined(data.validation)
    order = range(len(both))
    data = replace(data, validation=both.take(order[-5000:]), train=both.take(order[:-5000]))
    if options.smoke:
        return replace(data, train=data.train.head(1024), validation=data.validation.head(500))
    return data


def untrained(options: Options) -> Network:
    return load_network(
        f"{options.home}/networks/lenet.py:lenet5",
        inputs=(TensorSpec(name="input", shape=(None, 1, 28, 28)),),
        preprocessing=GREY,
    )


def baseline(options: Options, context: Context) -> Network:
    """LeNet-5 trained by labels alone; kept, and the same for all seeds."""
    path = options.work / "baseline.safetensors"
    network = context.original.the_network()
    if not path.is_file():
        source = Examples(context.data, TASK, network.preprocessing, 128)
        epochs = 1 if options.smoke else BASELINE_EPOCHS
        schedule = Schedule(epochs, 0.05)
        made = train(network, [Truth(TASK)], source, schedule, context, key="baseline")
        save_network(made, path)
    return load_saved(path, network.module)


def exported(network: Network, path: Path) -> Artifact:
    return export_network(network, path, metadata=ArtifactMetadata(task=TASK.settings()))


def rows_of(name: str, files: list[Artifact], options: Options) -> list[Row]:
    """Mean accuracy on the whole test split, the largest file, and the time beside LeNet-5's."""
    goal = ">= 99.2"
    whole = exported(
        load_saved(options.work / "baseline.safetensors", untrained(options).module),
        options.work / "original.onnx",
    )
    timing = compare_files(
        {"original": (whole.path, Target()), "ours": (files[0].path, Target())},
        "original",
        max_seconds=3 if options.smoke else 30,
    )["ours"]
    return [
        Row(
            name=f"{name}: accuracy",
            figure=round(mean(accuracy(file) for file in files), 3),
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


def accuracy(file: Artifact) -> float:
    test = load_data("mnist", task=TASK).test
    with closing(open_session(file.path, Target())) as session:
        return metric_of(score_file(session, TASK, test, GREY), TASK.metric).value

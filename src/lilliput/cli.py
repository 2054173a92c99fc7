"""The command line: each verb a thin call of the Python function of the same name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option

from lilliput import cli_completion as completion
from lilliput import console, units
from lilliput.cli_insight import sensitivity
from lilliput.cli_options import (
    LIMITS,
    OUTPUT,
    TIME,
    Data,
    FileSeed,
    Isa,
    Json,
    Mean,
    Out,
    Quiet,
    Run,
    Scale,
    Seed,
    Shape,
    Size,
    Std,
    TargetName,
    Task,
    Threads,
    Track,
    Weights,
    Workers,
    file_shape,
    folder_of,
    option,
    preprocessing_of,
    progress_of,
    target_of,
)
from lilliput.cli_packing import pack, unpack
from lilliput.cli_setup import doctor, new, schema

app = typer.Typer(
    name="lilliput",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a trained network to a measured Pareto front of deployable files.",
    epilog="lilliput VERB --help explains a verb, with an example. LILLIPUT_DEBUG=1 shows "
    "tracebacks.",
)

RUNS, FILES, SETUP = "Runs", "Networks and files", "Setting up"


@app.command(rich_help_panel=RUNS)
def compress(
    model: Annotated[str, Argument(help="FILE.py:FUNCTION, PACKAGE:FUNCTION, .pt2 or .onnx")],
    weights: Weights = None,
    data: Data = "digits",
    task: Task = "classification",
    target: TargetName = "onnxruntime",
    threads: Threads = 1,
    isa: Isa = None,
    max_latency: Annotated[
        Any, option(units.parse_duration_ms, "TIME", "As 3ms or 800us.", panel=LIMITS)
    ] = None,
    max_size: Annotated[
        Any, option(units.parse_bytes, "SIZE", "As 200kB or 1.5MB.", panel=LIMITS)
    ] = None,
    max_drop: Annotated[
        float | None, Option(min=0, help="Loss of the metric, in its unit.", rich_help_panel=LIMITS)
    ] = None,
    max_macs: Annotated[
        Any, option(units.parse_count, "NUMBER", "Multiply-adds, as 20M.", panel=LIMITS)
    ] = None,
    max_params: Annotated[
        Any, option(units.parse_count, "NUMBER", "Weights, as 300k.", panel=LIMITS)
    ] = None,
    input_shape: Shape = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: Size = None,
    teacher: Annotated[
        str | None, Option(help="A larger network that teaches in MODEL's place, named as it.")
    ] = None,
    teacher_weights: Annotated[Path | None, Option(help="Its weights.")] = None,
    time_budget: Annotated[
        Any, option(units.parse_minutes, "TIME", "For the whole, as 30m or 2h.", panel=TIME)
    ] = None,
    epochs: Annotated[
        int | None, Option(min=0, help="Of a full training.", rich_help_panel=TIME)
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    track: Track = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Show the plan and stop.", rich_help_panel=OUTPUT)
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a trained network under a budget, in measured files.

    Example: lilliput compress mynet.py:build --weights net.safetensors --data photos/
    --target onnxruntime --max-latency 3ms --max-size 200kB --max-drop 0.5
    """
    from lilliput.budget import Budget
    from lilliput.verbs import compress as verb

    goals: dict[str, Any] = {
        "weights": weights,
        "data": data,
        "task": task,
        "target": target_of(target, threads, isa),
        "budget": Budget(
            max_latency_ms=max_latency,
            max_bytes=max_size,
            max_drop=max_drop,
            max_macs=max_macs,
            max_params=max_params,
        ),
        "preprocessing": preprocessing_of(mean, std, scale, input_shape, size),
        "input_shape": input_shape,
        "teacher": teacher,
        "teacher_weights": teacher_weights,
        "seed": seed,
        "time_budget_minutes": time_budget,
        "epochs": epochs,
    }
    if dry_run:
        from lilliput.verbs.check import check_goals

        console.show(check_goals(verb.recipe_for(model, **goals)), as_json=json)
        return
    folder = folder_of(out, model)
    _run(
        lambda progress: verb.compress(model, **goals, out=folder, track=track, progress=progress),
        folder,
        json=json,
        quiet=quiet,
    )


@app.command(rich_help_panel=RUNS)
def run(
    recipe: Annotated[Path, Argument(help="A recipe, such as compress writes.")],
    out: Out = None,
    track: Track = None,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a recipe in a new folder.

    Example: lilliput run recipe.yaml --out runs/second
    """
    from lilliput.recipe import Recipe
    from lilliput.verbs.run import run as verb

    loaded = Recipe.read(recipe)
    folder = folder_of(out, loaded.model.reference)
    _run(
        lambda progress: verb(loaded, out=folder, track=track, workers=workers, progress=progress),
        folder,
        json=json,
        quiet=quiet,
    )


@app.command(rich_help_panel=RUNS)
def resume(
    run: Run,
    retry_failed: Annotated[
        bool, Option("--retry-failed", help="Try again what failed, too.")
    ] = False,
    track: Track = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was stopped; what it finished is not done again.

    Example: lilliput resume runs/mynet-20261124-080000
    """
    from lilliput.verbs.resume import resume as verb

    def go_on(progress: Any) -> Any:
        return verb(run, retry_failed=retry_failed, track=track, progress=progress)

    _run(go_on, run, json=json, quiet=quiet)


@app.command(rich_help_panel=RUNS)
def check(
    recipe: Annotated[Path, Argument(help="A recipe.")],
    json: Json = False,
) -> None:
    """Check a recipe: all its mistakes at once, then what running it would do.

    Example: lilliput check recipe.yaml
    """
    from lilliput.verbs.check import check as verb

    console.show(verb(recipe), as_json=json)


@app.command(rich_help_panel=RUNS)
def report(
    run: Run,
    json: Json = False,
) -> None:
    """Write a run's report.html and report.md again, from its journal alone, and print it.

    Example: lilliput report runs/mynet-20261124-080000
    """
    from lilliput.verbs.report import report as verb

    made = verb(run)
    console.show(made.data if json else made, as_json=json)


@app.command("list", rich_help_panel=RUNS)
def list_(
    folder: Annotated[Path, Argument(help="Where runs are kept.")] = Path("runs"),
    json: Json = False,
) -> None:
    """List the runs in a folder, newest first.

    Example: lilliput list
    """
    from lilliput.verbs.list import list as verb

    found = verb(folder)
    if json:
        console.show([info.as_json() for info in found], as_json=True)
    else:
        console.show("\n".join(map(str, found)) or f"no runs in {folder}", as_json=False)


@app.command(rich_help_panel=FILES)
def inspect(
    model: Annotated[str, Argument(help="FILE.py:FUNCTION, PACKAGE:FUNCTION, .pt2 or .onnx")],
    weights: Weights = None,
    data: Annotated[
        str | None,
        Option(help="Tells the input's shape.", autocompletion=completion.data_sets),
    ] = None,
    task: Task = "classification",
    input_shape: Shape = None,
    json: Json = False,
) -> None:
    """List what can be cut from a network, what is frozen and why.

    Example: lilliput inspect mynet.py:build --input-shape 1x3x32x32
    """
    from lilliput.verbs.inspect import inspect as verb

    found = verb(model, weights=weights, data=data, task=task, input_shape=input_shape)
    console.show(found, as_json=json)


@app.command(rich_help_panel=FILES)
def measure(
    files: Annotated[list[Path], Argument(help="Files; the first is what others are held to.")],
    target: TargetName = "onnxruntime",
    threads: Threads = 1,
    batch: Annotated[int, Option(min=1, help="Batch size, where a file leaves it free.")] = 1,
    max_time: Annotated[
        Any, option(units.parse_duration_ms, "TIME", "For all files, as 20s.", panel=TIME)
    ] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time files side by side, in turn, with the doubt in the result.

    Example: lilliput measure original.onnx best.onnx --target onnxruntime --threads 1
    """
    from lilliput.verbs.measure import measure as verb

    found = verb(
        files,
        target=target_of(target, threads, None),
        batch=batch,
        max_seconds=20.0 if max_time is None else max_time / 1000,
        seed=seed,
        progress=progress_of(json=json, quiet=quiet),
    )
    console.show(found, as_json=json)


@app.command(rich_help_panel=FILES)
def evaluate(
    file: Annotated[Path, Argument(help="A file.")],
    data: Data,
    task: Annotated[
        str | None,
        Option(help="Left out, what the file says.", autocompletion=completion.tasks),
    ] = None,
    against: Annotated[Path | None, Option(help="Another file, to say what is lost.")] = None,
    split: Annotated[
        str,
        Option(help="test, validation, train or calibration.", autocompletion=completion.splits),
    ] = "test",
    target: TargetName = "onnxruntime",
    threads: Threads = 1,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: Size = None,
    old_cpu: Annotated[
        bool,
        Option("--old-cpu", help="Also as an x86 CPU without VNNI computes int8; slow."),
    ] = False,
    seed: FileSeed = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a file in its runtime on a whole split.

    Example: lilliput evaluate best.onnx --data cifar10 --against original.onnx
    """
    from lilliput.verbs.evaluate import evaluate as verb

    found = verb(
        file,
        data=data,
        task=task,
        against=against,
        split=split,
        target=target_of(target, threads, None),
        preprocessing=preprocessing_of(mean, std, scale, file_shape(file), size),
        old_cpu=old_cpu,
        seed=seed,
        progress=progress_of(json=json, quiet=quiet),
    )
    console.show(found, as_json=json)


@app.command(rich_help_panel=FILES)
def explain(
    file: Annotated[Path, Argument(help="An ONNX file.")],
    target: TargetName = "onnxruntime",
    threads: Threads = 1,
    json: Json = False,
) -> None:
    """Say why a file is not faster: time by operator, share in int8, what would help.

    Example: lilliput explain best.onnx --target openvino
    """
    from lilliput.verbs.explain import explain as verb

    console.show(verb(file, target=target_of(target, threads, None)), as_json=json)


for verb_of_its_own in (sensitivity, pack, unpack):
    app.command(rich_help_panel=FILES)(verb_of_its_own)


for setting_up in (new, schema, doctor):
    app.command(rich_help_panel=SETUP)(setting_up)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0 done; 1 something unforeseen, or a full disk; 2 a mistake in what was given; 3 the budget is
    missed (the files are there); 4 a file does not compute what it should; 5 something is not
    installed; 130 stopped by Ctrl-C (the best so far is there).
    """
    try:
        app(args=argv, prog_name="lilliput")
    except BrokenPipeError:
        console.hush_broken_pipe()
        sys.exit(console.BUG)
    except Exception as error:  # noqa: BLE001  # the last line of defence: told, not swallowed
        sys.exit(console.tell(error))


def _run(verb: Callable[[Any], Any], folder: Path, *, json: bool, quiet: bool) -> None:
    """Do the work of a run under progress, print what came of it, leave with its exit code."""
    with console.stoppable(folder, as_json=json):
        result = verb(progress_of(json=json, quiet=quiet))
        code = console.conclude(result, as_json=json)
    raise typer.Exit(code)

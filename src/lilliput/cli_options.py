"""Options that several verbs share, and options that are quantities with units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from lilliput import cli_completion as completion
from lilliput import units
from lilliput.errors import LilliputError

if TYPE_CHECKING:
    from lilliput.preprocessing import Preprocessing
    from lilliput.target import Target

LIMITS, INPUT, TIME, OUTPUT = "Limits", "Pictures to inputs", "Time and chance", "Output"


def option(parse: Callable[[str], Any], metavar: str, about: str, *names: str, panel: str) -> Any:
    """An option whose text `parse` turns into a value; its error shows how to write it."""

    def parsed(text: str) -> Any:
        try:
            return parse(text)
        except LilliputError as error:
            raise typer.BadParameter(f"{error.thing}; {error.hint}") from error

    return Option(*names, parser=parsed, metavar=metavar, help=about, rich_help_panel=panel)


Json = Annotated[bool, Option("--json", help="Print JSON.", rich_help_panel=OUTPUT)]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress.", rich_help_panel=OUTPUT)]
Out = Annotated[
    Path | None,
    Option(help="The run's folder; runs/MODEL-DATE-TIME unless given.", rich_help_panel=OUTPUT),
]
Weights = Annotated[Path | None, Option(help=".safetensors, or a state dict in .pt or .pth.")]
Data = Annotated[
    str,
    Option(
        help="A folder, an .npz, FILE.py:FUNCTION, or a named set (digits, cifar10, ...).",
        autocompletion=completion.data_sets,
    ),
]
Task = Annotated[
    str,
    Option(help="classification, super_resolution, ...", autocompletion=completion.tasks),
]
TargetName = Annotated[
    str,
    Option(
        "--target",
        help="onnxruntime, openvino, openvino:bf16, ...",
        autocompletion=completion.targets,
    ),
]
Track = Annotated[
    list[str] | None,
    Option(
        help="Show the run in mlflow or tensorboard as it goes on; repeat it for both.",
        autocompletion=completion.trackers,
        rich_help_panel=OUTPUT,
    ),
]
Run = Annotated[Path, Argument(help="The run's folder.", autocompletion=completion.runs)]
Threads = Annotated[int, Option(min=1, help="Threads the file will run with.")]
Isa = Annotated[
    list[str] | None,
    Option(help="A CPU flag of the target, if it is another machine; repeat it for more."),
]
MOST_SEED = 2**63 - 1
Seed = Annotated[
    int, Option(min=0, max=MOST_SEED, help="Fixes all but clocks.", rich_help_panel=TIME)
]
FileSeed = Annotated[
    int | None,
    Option(
        min=0,
        max=MOST_SEED,
        help="Of the split and of draws. Left out, the one that the file was made with.",
        rich_help_panel=TIME,
    ),
]
Workers = Annotated[
    str | None,
    Option(
        help="Who evaluates a search's candidates: processes, ray, or ray://HOST:PORT.",
        rich_help_panel=TIME,
    ),
]
Mean = Annotated[
    Any, option(units.parse_numbers, "NUMBERS", "Subtracted, per channel.", panel=INPUT)
]
Std = Annotated[
    Any, option(units.parse_numbers, "NUMBERS", "Divided by, per channel.", panel=INPUT)
]
Scale = Annotated[
    Any, option(units.parse_factor, "FACTOR", "On 0..255 before that: 1/255 or 1.", panel=INPUT)
]
Size = Annotated[
    Any,
    option(
        units.parse_height_width, "HxW", "Pictures are resized to it first: 96x96.", panel=INPUT
    ),
]
Shape = Annotated[
    Any,
    option(
        units.parse_shape, "SHAPE", "Batch first, as 1x3x32x32; else from the data.", panel=INPUT
    ),
]


def progress_of(*, json: bool, quiet: bool) -> Any:
    """What watches a long job: nothing under --json and --quiet."""
    from lilliput.console import progress_for

    return progress_for(quiet=quiet or json)


def folder_of(out: Path | None, model: str) -> Path:
    """The run's folder, known before it is made, so that Ctrl-C can name it."""
    from lilliput.recipe import model_name
    from lilliput.runs.folder import default_path

    return default_path(model_name(model)) if out is None else out


def target_of(name: str, threads: int, isa: Sequence[str] | None) -> Target:
    """Where the file will run."""
    from lilliput.target import Target

    return Target.parse(name, threads=threads, isa=tuple(isa or ()))


def preprocessing_of(
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float | None,
    input_shape: Sequence[int | None] | None,
    size: tuple[int, int] | None = None,
) -> Preprocessing | None:
    """What the options say, or None when they say nothing and the data decides."""
    if mean is None and std is None and scale is None and size is None:
        return None
    from lilliput.preprocessing import Preprocessing

    per_channel = max(len(mean or ()), len(std or ()))
    channels = per_channel if per_channel > 1 else _channels(input_shape)
    return Preprocessing(
        scale=1 / 255 if scale is None else scale,
        mean=tuple(mean or (0.0,)),
        std=tuple(std or (1.0,)),
        channels=channels,
        size=size,
    )


def _channels(input_shape: Sequence[int | None] | None) -> int:
    """Colours unless the shape (batch first) says otherwise."""
    return (input_shape[1] or 3) if input_shape is not None and len(input_shape) == 4 else 3


def file_shape(file: Path) -> tuple[int | None, ...] | None:
    """The shape of an ONNX file's first input; None where it is not a readable ONNX file."""
    if file.suffix not in (".onnx", ".lil") or not file.is_file():
        return None
    from lilliput.runtimes.reference import graph_specs

    inputs, _ = graph_specs(file)
    return inputs[0].shape if inputs else None

"""The verb that looks into a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lilliput import console
from lilliput.cli_options import (
    OUTPUT,
    TIME,
    Data,
    FileSeed,
    Isa,
    Json,
    Mean,
    Quiet,
    Scale,
    Shape,
    Size,
    Std,
    TargetName,
    Threads,
    Weights,
    file_shape,
    preprocessing_of,
    progress_of,
    target_of,
)


def sensitivity(
    model: Annotated[
        str, Argument(help="A float .onnx or .lil, FILE.py:FUNCTION, PACKAGE:FUNCTION or .pt2")
    ],
    data: Data,
    weights: Weights = None,
    task: Annotated[str | None, Option(help="Left out, what the file says.")] = None,
    target: TargetName = "onnxruntime",
    threads: Threads = 1,
    isa: Isa = None,
    cut: Annotated[
        list[float] | None,
        Option(help="Share of channels to cut, 0.25 and 0.5 unless given; repeat it for more."),
    ] = None,
    input_shape: Shape = None,
    mean: Mean = None,
    std: Std = None,
    scale: Scale = None,
    size: Size = None,
    images: Annotated[
        int, Option(min=2, help="Examples to calibrate with.", rich_help_panel=TIME)
    ] = 256,
    validation_images: Annotated[
        int, Option(min=1, help="Examples to score on, at most.", rich_help_panel=TIME)
    ] = 1000,
    seed: FileSeed = None,
    csv: Annotated[
        Path | None, Option(help="Write all figures to this file.", rich_help_panel=OUTPUT)
    ] = None,
    run: Annotated[
        Path | None,
        Option(help="A run's folder, whose report shows it too.", rich_help_panel=OUTPUT),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say which layer suffers: in int8, by cuts, and how few have to stay float.

    Stopped and given again, it goes on where it was.

    Example: lilliput sensitivity mynet.py:build --weights net.safetensors --data photos/
    --csv layers.csv
    """
    from lilliput.atomic import write_atomically
    from lilliput.verbs.sensitivity import sensitivity as verb

    shape = input_shape or file_shape(Path(model))
    try:
        found = verb(
            model,
            data=data,
            weights=weights,
            task=task,
            target=target_of(target, threads, isa),
            preprocessing=preprocessing_of(mean, std, scale, shape, size),
            input_shape=input_shape,
            images=images,
            validation_images=validation_images,
            ratios=(0.25, 0.5) if cut is None else cut,
            seed=seed,
            run=run,
            progress=progress_of(json=json, quiet=quiet),
        )
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on where it was", err=True)
        raise typer.Exit(console.STOPPED) from None
    if csv is not None:
        write_atomically(csv, found.as_csv().encode())
    console.show(found, as_json=json)

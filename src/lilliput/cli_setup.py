"""The verbs of setting up: something to start from, what a recipe may hold, what is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

from lilliput import console
from lilliput.cli_options import OUTPUT, Json, Quiet, progress_of


def new(
    folder: Annotated[Path, Argument(help="Made if it is not there.")],
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a folder with a small model, its weights and a recipe that runs.

    Example: lilliput new first && lilliput run first/recipe.yaml
    """
    from lilliput.verbs.new import new as verb

    console.show(verb(folder, progress=progress_of(json=json, quiet=quiet)), as_json=json)


def schema(
    out: Annotated[
        Path | None,
        Option(
            "--out", "-o", help="A file to write, in place of printing.", rich_help_panel=OUTPUT
        ),
    ] = None,
) -> None:
    """Print the JSON schema of recipes, which editors complete and underline with.

    Example: lilliput schema --out recipe.schema.json
    """
    from lilliput.verbs.schema import schema as verb

    found = verb(out=out)
    console.show(found if out is None else f"wrote {out}", as_json=out is None)


def doctor(json: Json = False) -> None:
    """Say what is installed, what is missing, and the exact command that installs it.

    Example: lilliput doctor
    """
    from lilliput.errors import Missing
    from lilliput.verbs.doctor import doctor as verb

    found = verb()
    console.show(found, as_json=json)
    if not found.healthy:
        raise typer.Exit(Missing.exit_code)

"""Pages that are written at build time from the code itself, so that they cannot grow stale.

The command line's reference comes from its own help, the stages' from their pydantic models, the
recipe's from its schema, the front page from the README. Nothing of it is kept in the repository.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic_core import PydanticUndefined

ROOT = Path(__file__).parents[1]
REPOSITORY_FILES = ("src", "examples", "benchmarks", "tests", "LICENSE", "Makefile")
"""What the README links to and the site does not hold; such links lose their address."""

COMMENT = re.compile(r"^<!-- (?!/?claims:).*?-->\n", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision record into the navigation."""
    for entry in config.nav or ():
        if "Decisions" in entry:
            records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
            entry["Decisions"] = ["adr/index.md", *(f"adr/{record.name}" for record in records)]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the written pages to those in the folder."""
    for path, text in written_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Leave out the remarks that tell the tests how to run a page."""
    return COMMENT.sub("", markdown)


def written_pages() -> dict[str, str]:
    """{path in the site: Markdown}."""
    return {
        "index.md": front_page((ROOT / "README.md").read_text()),
        "contributing.md": front_page((ROOT / "CONTRIBUTING.md").read_text()),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(),
        "figures.md": figures(),
        "adr/index.md": decisions(sorted((ROOT / "docs/adr").glob("[0-9]*.md"))),
        "reference/cli.md": command_line(),
        "reference/stages.md": stages(),
        "reference/recipe.md": recipe(),
        "reference/python.md": python_names(),
        "reference/testing.md": testing_names(),
    }


def front_page(text: str) -> str:
    """A file of the repository's root as a page of the site: links begin at `docs/`."""

    def moved(match: re.Match[str]) -> str:
        words, place = match["words"], match["place"]
        if place.startswith(REPOSITORY_FILES):
            return words
        if place.startswith("docs/"):
            page = place.removeprefix("docs/")
            return f"[{words}]({page if Path(page).suffix else page + '/index.md'})"
        named = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
        return f"[{words}]({named.get(place, place)})"

    return re.sub(r"\[(?P<words>[^\]]+)\]\((?P<place>[^)]+)\)", moved, text)


def figures() -> str:
    """Every claim that has a committed result, the peers' figures included."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import harness, tables

    found = [path.stem for path in sorted((ROOT / "benchmarks/results").glob("*.json"))]
    parts = [f"## {name}\n{tables.table(harness.read(name)).rstrip()}" for name in found]
    head = (
        "# Figures\n\nWhat we claim, written from the committed results in `benchmarks/results`: "
        "the figures of the files themselves, each beside its goal and beside what other tools "
        "reach in the same run. A goal that was missed says so, and what stands in the way."
    )
    return "\n\n".join([head, *parts]) + "\n"


def decisions(records: Iterable[Path]) -> str:
    """The list of decision records, by their own titles."""
    lines = [
        f"- [{record.read_text().splitlines()[0].lstrip('# ')}]({record.name})"
        for record in records
    ]
    return "\n".join(
        ["# Decisions", "", "Why the code is as it is, half a page each.", "", *lines, ""]
    )


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; bars and line breaks in cells are made harmless."""
    head = [*head]
    clean = ([" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *clean]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


# --- the command line ------------------------------------------------------------------------


def command_line() -> str:
    """Every verb with its arguments and options, from the application itself."""
    import typer

    from lilliput import cli

    group: Any = typer.main.get_command(cli.app)
    parts = ["# Command line", str(cli.app.info.help), _exit_codes(cli.main)]
    parts += [_verb(name, command) for name, command in group.commands.items()]
    return "\n\n".join(parts) + "\n"


def _exit_codes(main: Any) -> str:
    meanings = inspect.cleandoc(main.__doc__).partition("\n\n")[2]
    rows = re.findall(r"(\d+) ([^;]+?)(?:;|\.$)", " ".join(meanings.split()))
    return "## Exit codes\n\n" + table(("code", "meaning"), rows)


def _verb(name: str, command: Any) -> str:
    text, _, example = inspect.cleandoc(command.help or "").partition("Example: ")
    parts = [f"## {name}", text.strip()]
    if example:
        parts.append("```\n" + " ".join(example.split()) + "\n```")
    shown = [p for p in command.params if p.name != "help"]
    rows = [(_spelled(p), _taken(p), _about(p)) for p in shown]
    parts.append(table(("", "default", ""), rows))
    return "\n\n".join(parts)


def _spelled(param: Any) -> str:
    if type(param).__name__.endswith("Argument"):
        return f"`{param.name.upper()}`"
    metavar = getattr(param, "metavar", None)
    return ", ".join(f"`{opt}`" for opt in param.opts) + (f" {metavar}" if metavar else "")


def _taken(param: Any) -> str:
    if getattr(param, "required", False):
        return "needed"
    default = param.default
    if callable(default) or default is None or default is False:
        return ""
    return f"`{default}`"


def _about(param: Any) -> str:
    return str(getattr(param, "help", None) or "")


# --- stages and recipes ----------------------------------------------------------------------


def stages() -> str:
    """Every registered stage with its settings, from its model."""
    from lilliput.steps.base import STAGES

    parts = [
        "# Stages",
        (
            "What a recipe's `stages` may hold, in the order that you write them. A stage takes "
            "torch networks or files; a recipe whose chain does not fit is refused before anything "
            "runs."
        ),
    ]
    for name in STAGES:
        stage = STAGES[name]
        kinds = {"network": "networks", "artifact": "files"}
        parts += [
            f"## {name}",
            inspect.getdoc(stage) or "",
            f"Takes {kinds[stage.takes]}, gives {kinds[stage.gives]}. *Source:* {stage.source}.",
            fields_table(stage.model_fields),
        ]
    return "\n\n".join(parts) + "\n"


def fields_table(fields: Mapping[str, Any]) -> str:
    """Settings with type, default and bounds."""
    rows = [
        (f"`{name}`", _type(field.annotation), _default(field), field.description or "")
        for name, field in fields.items()
    ]
    bounds = [_bounds(field) for field in fields.values()]
    cells = [
        (name, f"{kind} {limit}".strip(), default, about)
        for (name, kind, default, about), limit in zip(rows, bounds, strict=True)
    ]
    return table(("setting", "type", "default", ""), cells)


def _type(annotation: Any) -> str:
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    text = re.sub(r"typing\.|lilliput\.[a-z_.]+\.|pathlib\.", "", text)
    choices = re.sub(r"Literal\[(.*?)\]", lambda m: " or ".join(m[1].split(", ")), text)
    return f"`{choices}`"


def _bounds(field: Any) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    found = [
        f"{sign} {getattr(limit, word):g}"
        for limit in field.metadata
        for word, sign in signs.items()
        if getattr(limit, word, None) is not None
    ]
    return ", ".join(found)


def _default(field: Any) -> str:
    if field.default_factory is not None:
        return "see below"
    if field.default is PydanticUndefined:
        return "needed"
    if field.default is None:
        return "unset"
    value = field.default
    return f"`{json.dumps(value if not isinstance(value, tuple) else list(value), default=str)}`"


def recipe() -> str:
    """The sections of a recipe, and its JSON schema in full."""
    import lilliput
    from lilliput.recipe import Recipe

    parts = [
        "# Recipe",
        inspect.getdoc(Recipe) or "",
        (
            "`lilliput compress` writes the recipe that it ran into the run's folder; "
            "`lilliput check RECIPE` lists all mistakes at once."
        ),
        fields_table(Recipe.model_fields),
    ]
    for name, field in Recipe.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            parts += [
                f"## {name}",
                inspect.getdoc(section) or "",
                fields_table(section.model_fields),
            ]
    parts += [
        "## stages",
        "A list; each entry is one of the [stages](stages.md).",
        "## JSON schema",
        (
            "`lilliput schema` prints it; editors that know YAML complete with it: "
            "[How do I edit a recipe?](../how-to/edit-recipe.md)"
        ),
        '??? note "the schema"\n\n    ```json\n'
        + "\n".join("    " + line for line in json.dumps(lilliput.schema(), indent=1).splitlines())
        + "\n    ```",
    ]
    return "\n\n".join(parts) + "\n"


def _section(annotation: Any) -> Any:
    """The pydantic model behind an annotation such as `Preprocessing | None`."""
    options = getattr(annotation, "__args__", (annotation,))
    found = [option for option in options if hasattr(option, "model_fields")]
    return found[0] if found else None


# --- the Python names ------------------------------------------------------------------------


FUNCTIONS = ("load", "channel_rule")
"""Public functions that are no verbs of the command line."""


def python_names() -> str:
    """Every public name of the package, the verbs first; mkdocstrings reads the docstrings."""
    import lilliput

    named = [name for name in lilliput.__all__ if name in lilliput.VERBS or name in FUNCTIONS]
    nouns = [name for name in lilliput.__all__ if name not in named]
    return "\n".join(
        [
            "# Python",
            "",
            "Every verb of the command line is a function of the same name.",
            "",
            "```python",
            "import lilliput",
            "```",
            "",
            "## Verbs",
            "",
            *_references(named),
            "## Nouns",
            "",
            *_references(nouns),
        ]
    )


def _references(names: Iterable[str]) -> Iterator[str]:
    from lilliput import _HOMES  # the public names' modules are written down only there

    for name in names:
        yield f"::: {_HOMES[name]}.{name}\n"


def testing_names() -> str:
    """What a package that adds a step, a runtime or a task uses."""
    contracts = ("StepContract", "RuntimeContract", "TaskContract")
    tiny = ("tiny_network", "tiny_data", "tiny_context")
    return "\n".join(
        [
            "# Plug-ins and their tests",
            "",
            "The classes that a new method builds on, and the tests that it inherits.",
            "",
            "## Stages",
            "",
            *(f"::: lilliput.steps.base.{n}\n" for n in ("Stage", "Step", "Search", "Selection")),
            "::: lilliput.context.Context\n",
            "## Contracts",
            "",
            *(f"::: lilliput.testing.contracts.{name}\n" for name in contracts),
            "## Tiny things to test with",
            "",
            *(f"::: lilliput.testing.tiny.{name}\n" for name in tiny),
        ]
    )

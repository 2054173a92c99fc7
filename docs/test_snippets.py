"""Runs what README and docs tell readers to run, and resolves the names that they mention.

A page's ```bash and ```python blocks run in order in a folder of their own; a block with
`title="FILE"` is written to that file instead. Remarks in HTML comments:

    <!-- not run: REASON -->   before a block that is only shown
    <!-- exit 0 or 3 -->       before a block that may end so
    <!-- after: README.md -->  anywhere in a page that goes on where another ended
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
]
LONGEST_SECONDS = 240

BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>bash|python|toml|yaml)(?P<options>[^\n]*)\n"
    r"(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
REMARK = re.compile(r"<!-- (?P<text>(?:not run: |exit )[^\n]*?) -->\n+ *\Z")
AFTER = re.compile(r"^<!-- after: (?P<page>\S+) -->$", re.MULTILINE)
TITLE = re.compile(r'title="(?P<file>[^"]+)"')
NAME = re.compile(r"`(?P<name>lilliput(?:\.\w+)+)(?:\(\))?`")
LINK = re.compile(r"\[[^\]]+\]\((?P<place>[^)#]+?)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Snippet:
    """A block of a page; `codes` are the exit codes that it may end with."""

    language: str
    body: str
    line: int
    file: str | None = None
    not_run: str | None = None
    codes: tuple[int, ...] = (0,)


def snippets(text: str) -> Iterator[Snippet]:
    """The blocks of a page that have a language which we run or write."""
    for match in BLOCK.finditer(text):
        remark = REMARK.search(text[: match.start()])
        said = remark["text"] if remark else ""
        title = TITLE.search(match["options"])
        indent = len(match["indent"])
        codes = tuple(map(int, re.findall(r"\d+", said))) if said.startswith("exit") else (0,)
        yield Snippet(
            language=match["language"],
            body="".join(line[indent:] for line in match["body"].splitlines(keepends=True)),
            line=text[: match.start()].count("\n") + 1,
            file=title["file"] if title else None,
            not_run=said.removeprefix("not run: ") if said.startswith("not run") else None,
            codes=codes,
        )


def run(snippet: Snippet, folder: Path) -> None:
    """Write or run one block; an exit code that was not announced fails with its output."""
    if snippet.not_run:
        return
    if snippet.file:
        (folder / snippet.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / snippet.file).write_text(snippet.body)
        return
    if snippet.language in ("toml", "yaml"):
        pytest.fail(f"line {snippet.line}: neither a title nor a reason why it is not run")
    command = ["bash", "-euo", "pipefail", "-c", snippet.body]
    if snippet.language == "python":
        command = [sys.executable, "-c", snippet.body]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "ORT_DISABLE_TELEMETRY": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    done = subprocess.run(  # noqa: S603  # our own pages
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    if done.returncode not in snippet.codes:
        pytest.fail(
            f"line {snippet.line} ended with {done.returncode}\n{snippet.body}\n"
            f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Runs a page once in a session and gives the folder as the page left it."""
    folders: dict[str, Path] = {}

    def finish(page: str) -> Path:
        if page not in folders:
            text = (ROOT / page).read_text()
            folder = tmp_path_factory.mktemp(re.sub(r"\W+", "-", page))
            for earlier in AFTER.finditer(text):
                shutil.copytree(finish(earlier["page"]), folder, dirs_exist_ok=True)
            for snippet in snippets(text):
                run(snippet, folder)
            folders[page] = folder
        return folders[page]

    return finish


@pytest.mark.timeout(900)  # a page may run several whole compressions
@pytest.mark.parametrize("page", [p for p in PAGES if [*snippets((ROOT / p).read_text())]])
def test_what_the_page_says_can_be_run(page: str, finished: Callable[[str], Path]) -> None:
    # users-ask 42: documentation whose commands do not run
    finished(page)


@pytest.mark.parametrize("page", PAGES)
def test_the_names_it_mentions_exist(page: str) -> None:
    for match in NAME.finditer((ROOT / page).read_text()):
        assert resolved(match["name"]) is not None, match["name"]


def resolved(name: str) -> Any:
    """The module, class, function or setting behind a dotted name; None if there is none."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None) or getattr(found, "model_fields", {}).get(part)
        return found
    return None


def test_links_of_the_readme_lead_somewhere() -> None:
    for match in LINK.finditer((ROOT / "README.md").read_text()):
        place = match["place"]
        assert place.startswith("https://") or (ROOT / place).exists(), place


def test_a_block_that_is_not_run_says_why_and_others_run() -> None:
    text = (
        "<!-- not run: needs a phone -->\n```bash\nfalse\n```\n"
        "<!-- exit 0 or 3 -->\n```bash\nexit 3\n```\n"
        '```python title="a/b.py"\nx = 1\n```\n```python\nassert True\n```\n```text\nno\n```\n'
    )
    first, second, third, fourth = snippets(text)
    assert first.not_run == "needs a phone"
    assert second.codes == (0, 3)
    assert third.file == "a/b.py"
    assert (fourth.language, fourth.not_run, fourth.body) == ("python", None, "assert True\n")


def test_a_block_that_fails_is_a_failure_with_its_output(tmp_path: Path) -> None:
    (failing,) = snippets("```bash\necho told; exit 7\n```\n")
    with pytest.raises(pytest.fail.Exception, match=r"line 1 ended with 7(?s:.*)told"):
        run(failing, tmp_path)


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("docs_hooks", ROOT / "docs/hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    pages: dict[str, str] = hooks.written_pages()
    return pages


def test_every_claim_that_was_run_is_among_the_figures(written: dict[str, str]) -> None:
    results = sorted((ROOT / "benchmarks/results").glob("*.json"))
    assert results
    for path in results:
        claim = json.loads(path.read_text())
        assert f"## {claim['claim']}\n\n{claim['says']}." in written["figures.md"]


def test_the_reference_holds_every_verb_stage_and_setting(written: dict[str, str]) -> None:
    import lilliput
    from lilliput.steps.base import STAGES

    for verb in lilliput.VERBS:
        assert f"## {verb}\n" in written["reference/cli.md"]
        assert f"::: lilliput.verbs.{verb}.{verb}\n" in written["reference/python.md"]
    for name in STAGES:
        assert f"## {name}\n" in written["reference/stages.md"]
        for setting in STAGES[name].model_fields:
            assert f"| `{setting}` |" in written["reference/stages.md"], f"{name}.{setting}"
    assert "| `--max-latency` TIME |" in written["reference/cli.md"]
    assert "| `epochs` | `int` ≥ 0 | `10` |" in written["reference/stages.md"]
    assert "| 3 | the budget is missed" in written["reference/cli.md"]


def test_the_front_page_is_the_readme_with_its_links_moved(written: dict[str, str]) -> None:
    assert "(tutorial/index.md)" in written["index.md"]
    assert "(contributing.md)" in written["index.md"]
    assert "](docs/" not in written["index.md"]

"""YAML as plain values that remember their lines, read within bounds and without surprises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from lilliput.errors import LilliputError

Place = tuple[str | int, ...]

MAX_BYTES = 1_000_000
MAX_VALUES = 10_000
"""Counted with aliases written out, so that a short file cannot stand for a huge one."""
MAX_DEPTH = 32
_PLAIN = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


@dataclass
class Marked:
    """A document's values, the line (from 1) of each, and what is wrong with the document."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    errors: list[tuple[Place, str]] = field(default_factory=list)

    def line(self, place: Place) -> int:
        """The line of the value, or of the nearest value around it."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)


def read_marked(text: str, *, at: str = "recipe") -> Marked:
    """Read one YAML document. Keys are always text; a key given twice is noted as an error.

    Raises:
        LilliputError: It is no YAML, or larger or deeper than any recipe; with its line.
    """
    if len(text) > MAX_BYTES:
        raise LilliputError(f"{len(text)} characters are too many for a recipe", at=at)
    marked = Marked()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is not None:
            marked.value = _Reader(marked, loader.construct_object).read(node, ())
    except yaml.MarkedYAMLError as error:
        raise _syntax(error, at) from error
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise LilliputError(f"this is no YAML: {error}", at=at) from error
    return marked


class _Reader:
    def __init__(self, marked: Marked, scalar: Callable[[yaml.Node], Any]) -> None:
        self.marked, self.scalar, self.count = marked, scalar, 0

    def read(self, node: yaml.Node, place: Place) -> Any:
        self.count += 1
        if self.count > MAX_VALUES or len(place) > MAX_DEPTH:
            raise ValueError("more or deeper values than any recipe has")
        self.marked.lines.setdefault(place, node.start_mark.line + 1)
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            self.marked.errors.append((place, f"a recipe has no tags, and {tag!r} is one"))
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*place, n)) for n, item in enumerate(node.value)]
        return self.scalar(node)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            name = str(key.value)
            here = (*place, name)
            if name in found:
                first = self.marked.lines[here]
                twice = (*place, f"{name} (again)")
                self.marked.lines[twice] = key.start_mark.line + 1
                self.marked.errors.append((twice, f"{name!r} was given in line {first} already"))
                continue
            # The key's line, since a long value may begin on the next one.
            self.marked.lines[here] = key.start_mark.line + 1
            found[name] = self.read(value, here)
        return found


def _syntax(error: yaml.MarkedYAMLError, at: str) -> LilliputError:
    mark = error.problem_mark or error.context_mark
    place = f"{at}:{mark.line + 1}" if mark else at
    problem = " ".join(filter(None, (error.context, error.problem)))
    return LilliputError(
        f"this is no YAML: {problem}",
        at=place,
        hint="check the indentation, the colons and the quotes of this line and the one before",
    )

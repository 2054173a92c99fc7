"""Each search's own front: members as the search judged them, and what became of a few of them.

Their figures are estimates and say so. Those of the files that some of them were made into stand
beside them; the others can be asked for by the lines that are printed with each.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lilliput.measurement import Measurement
from lilliput.reports.summary import Summary
from lilliput.runs.history import History
from lilliput.runs.rows import MINUS, Row
from lilliput.units import format_bytes, format_count

ABOUT = "≈"
"""Before what is no measurement, as in the table of stages."""

FORMS = {"loss": "number", "bytes": "bytes", "coded_bytes": "bytes", "latency": "times"}
"""How an objective is written; the others are counts."""

PARTS = {"kept": "{} of {} channels", "weight_bits": "weights {}", "activation_bits": "inputs {}"}
"""How what an encoding says of a layer, or a group of them, is put: its value, the original's."""

HOW = "write its lines into the run's own recipe.yaml, in place of what deliver is there"

FLOAT_BITS = 32

MOST_IN_SHORT = 12
"""Members in a short table that are not delivered."""


@dataclass(frozen=True)
class Member:
    """One network that a search found.

    Attributes:
        id: Of its genome.
        generation: It was evaluated in, from 1.
        beaten: Whether others of the front beat it, on the first rung.
        figures: {objective: the search's estimate}.
        parts: (layer or group, what it has) in the order of the network.
        simulated: The loss in torch when it was trained; None if it was not.
        rows: Its files.
        wanted: What `deliver` calls it.
    """

    id: str
    generation: int
    beaten: bool
    figures: Mapping[str, float]
    parts: tuple[tuple[str, str], ...]
    trained: bool
    simulated: Measurement | None
    rows: tuple[Row, ...]
    wanted: str

    @property
    def summary(self) -> str:
        """Its parts in a sentence."""
        return "; ".join(f"{place}: {said}" for place, said in self.parts)


@dataclass(frozen=True)
class SearchFront:
    """The members of one search, least loss first; `objectives` are {name: unit}."""

    stage: str
    objectives: Mapping[str, str]
    examples: int
    on_grids: bool
    members: tuple[Member, ...]
    run: str

    @property
    def costs(self) -> tuple[str, ...]:
        return tuple(name for name in self.objectives if name != "loss")

    @property
    def heads(self) -> list[str]:
        """Of the table of members."""
        estimates = [f"{ABOUT} {self.label(name)}" for name in self.objectives]
        trained = f"{ABOUT} loss when trained" + (", inputs on grids" if self.on_grids else "")
        return ["member", "generation", *estimates, trained, "file", "its loss, measured", "size"]

    def label(self, objective: str) -> str:
        unit = self.objectives[objective] if objective == "loss" else ""
        return objective.replace("_", " ") + (f", {unit}" if unit else "")

    def cells(self, member: Member) -> list[str]:
        """A row of that table."""
        figures = [shown(name, member.figures.get(name)) for name in self.objectives]
        simulated = "" if member.simulated is None else shown("loss", member.simulated.value)
        files = [(row.path.name, loss_of(row), row.cells()["size"]) for row in member.rows] or [
            ("", "", "")
        ]
        joined = ["; ".join(texts) for texts in zip(*files, strict=True)]
        return [member.id, str(member.generation), *figures, simulated, *joined]

    def sorts(self, member: Member) -> list[str]:
        """What each of those cells is sorted by; "" comes last."""
        known = [member.figures.get(name) for name in self.objectives]
        known.append(None if member.simulated is None else member.simulated.value)
        estimates = ["" if value is None else repr(value) for value in known]
        texts = self.cells(member)
        return [*texts[:2], *estimates, *texts[2 + len(estimates) :]]

    def short(self) -> list[Member]:
        """Those that are delivered, and a few more, spread over the front."""
        others = [member for member in self.members if not member.trained]
        last, most = len(others) - 1, MOST_IN_SHORT - 1
        kept = others if last <= most else [others[round(n * last / most)] for n in range(most + 1)]
        return [member for member in self.members if member.trained or member in kept]

    @property
    def says(self) -> list[str]:
        """What the figures are."""
        estimated = (
            f"{ABOUT} marks what the search estimated to steer by: the loss on {self.examples} "
            "validation examples before any training, costs as it counted or timed them. "
            "Files were measured, their loss on all validation examples."
        )
        simulated = (
            "The search simulated few bits of layers' inputs. A file computes them in float, "
            "or in what a quantize stage gave it: its measured loss is of that."
        )
        return [estimated, simulated] if self.on_grids else [estimated]

    def lines(self, member: Member) -> str:
        """What the recipe says to have the member."""
        return f'  - {self.stage}:\n      deliver: ["{member.wanted}"]'

    @property
    def command(self) -> str:
        return f"lilliput resume {shlex.quote(self.run)}"

    def chart(self) -> dict[str, Any]:
        """As `chart_of`; what was measured of the members' files are points of another kind."""
        return {
            "metric": f"{ABOUT} {self.label('loss')}",
            "higher_is_better": False,
            "limits": {},
            "axes": {
                name: {"label": f"{ABOUT} {self.label(name)}", "form": FORMS.get(name, "count")}
                for name in self.costs
            },
            "command": self.command,
            "points": [self._point(member) for member in self.members],
            "measured": [
                {"of": m.id, "metric": drop.value, **_measured_costs(row)}
                for m in self.members
                for row in m.rows
                if (drop := row.figures.get("drop")) is not None
            ],
        }

    def _point(self, member: Member) -> dict[str, Any]:
        cells = zip(self.heads[1:-3], self.cells(member)[1:-3], strict=True)
        return {
            "id": member.id,
            "name": member.id,
            "kind": "trained" if member.trained else "member",
            "onFront": not member.beaten,
            **{name: member.figures.get(name) for name in self.costs},
            "metric": member.figures.get("loss"),
            "details": [[head, text] for head, text in cells if text],
            "parts": [list(part) for part in member.parts],
            "files": [
                {
                    "id": row.id,
                    "name": row.path.name,
                    "say": f"{loss_of(row)}, {row.cells()['size']}",
                }
                for row in member.rows
            ],
            "lines": "" if member.trained else self.lines(member),
        }

    def as_json(self, name: str) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "name": name,
            "stage": self.stage,
            "objectives": dict(self.objectives),
            "examples": self.examples,
            "members": [
                {
                    "id": member.id,
                    "deliver": member.wanted,
                    "generation": member.generation,
                    "on_front": not member.beaten,
                    "estimated": dict(member.figures),
                    "parts": dict(member.parts),
                    "estimated_loss_trained": member.simulated and member.simulated.value,
                    "files": [row.id for row in member.rows],
                }
                for member in self.members
            ],
        }


def fronts_of(summary: Summary) -> dict[str, SearchFront]:
    """{name of a search: its front}, of every search that is over."""
    history = summary.history
    stages = [facts.get("stage") for facts in history.fronts.values()]
    return {
        name: _front(facts, summary, alone=stages.count(facts.get("stage")) == 1)
        for name, facts in history.fronts.items()
    }


def _front(facts: Mapping[str, Any], summary: Summary, *, alone: bool) -> SearchFront:
    stage, candidate = str(facts.get("stage", "")), str(facts.get("candidate", ""))
    made = dict(_delivered(summary.history, stage, candidate))
    original = facts.get("original") or {}
    prefix = "" if alone else f"{candidate}/"
    found = {}
    for told in facts.get("members", ()):
        child = made.get(str(told["id"]), {})
        found[str(told["id"])] = Member(
            id=str(told["id"]),
            generation=int(told.get("generation", 0)),
            beaten=bool(told.get("beaten")),
            figures=told.get("figures", {}),
            parts=tuple(_parts(told.get("parts", {}), original)),
            trained=bool(child),
            simulated=_figure(child, "proxy_drop"),
            rows=tuple(_files_of(child.get("id"), summary)),
            wanted=f"{prefix}{told['id']}",
        )
    return SearchFront(
        stage=stage,
        objectives=facts.get("objectives", {}),
        examples=int(facts.get("examples", 0)),
        on_grids="activation_bits" in original,
        members=tuple(sorted(found.values(), key=lambda m: m.figures.get("loss", float("inf")))),
        run=str(summary.path),
    )


def _delivered(
    history: History, stage: str, candidate: str
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(genome, what the stage told of the network) of each that was trained in full."""
    for told in (one for passed in history.stages for one in passed.get("made") or ()):
        settings = (told.get("settings") or {}).get(stage)
        if told.get("parent") == candidate and isinstance(settings, Mapping):
            yield str(settings.get("genome")), told


def _files_of(network: str | None, summary: Summary) -> Iterator[Row]:
    """The files that were made from this network, by whatever steps."""
    for row in summary.rows:
        if network in _line(row.id, summary.history):
            yield row


def _line(candidate: str, history: History) -> list[str]:
    """The candidate, its parent, and so on up."""
    found: list[str] = []
    at: str | None = candidate
    while at is not None and at not in found:
        found.append(at)
        at = history.records[at].parent if at in history.records else None
    return found


def _figure(told: Mapping[str, Any], name: str) -> Measurement | None:
    figure = (told.get("figures") or {}).get(name)
    return None if figure is None else Measurement.model_validate(figure)


def _parts(parts: Mapping[str, Any], original: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(layer or group, all that is said of it)."""
    for place in dict.fromkeys(place for values in parts.values() for place in values):
        said = []
        for kind, values in parts.items():
            if place in values:
                ours, theirs = values[place], original.get(kind, {}).get(place)
                form = PARTS.get(kind, f"{kind} {{}}")
                said.append(form.format(_value(kind, ours), _value(kind, theirs)))
        yield place, ", ".join(said)


def _value(kind: str, value: Any) -> str:
    if not kind.endswith("_bits"):
        return str(value)
    return "in float" if value == FLOAT_BITS else f"{value} bits"


def _measured_costs(row: Row) -> dict[str, float]:
    """{objective: what was measured or counted of the file}, for those that a file has."""
    names = {"bytes": "bytes", "macs": "macs", "params": "params", "latency": "ratio"}
    found = {ours: row.figures[name].value for ours, name in names.items() if name in row.figures}
    if row.path.suffix == ".lil" and "bytes" in found:
        found["coded_bytes"] = found["bytes"]
    return found


def loss_of(row: Row) -> str:
    """The file's measured loss on validation, with its interval."""
    drop = row.figures.get("drop")
    if drop is None:
        return ""
    text = shown("loss", drop.value)
    if drop.interval is not None:
        text += " [{}, {}]".format(*(shown("loss", end) for end in drop.interval))
    return text


def shown(objective: str, value: float | None) -> str:
    """A figure of an objective as people read it."""
    form = FORMS.get(objective, "count")
    if value is None:
        return ""
    if form == "bytes":
        return format_bytes(value)
    if form == "times":
        return f"{value:.2f}×"
    return f"{value:.2f}".replace("-", MINUS) if form == "number" else format_count(value)

"""The recipe itself: its sections, how it is read, and how it is written again."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import (
    ConfigDict,
    Field,
    InstanceOf,
    field_serializer,
    field_validator,
    model_validator,
)

from lilliput.budget import Budget
from lilliput.context import Precision
from lilliput.errors import LilliputError, Mistakes, nearest
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing
from lilliput.recipe.marked import Marked, read_marked
from lilliput.recipe.mistakes import Mistake, located, validated
from lilliput.recipe.paths import missing_data, missing_files, placed, with_short_forms
from lilliput.recipe.stages import build_stages, check_chain, check_fixed
from lilliput.recipe.text import recipe_text
from lilliput.steps.base import Kind, Stage
from lilliput.target import Target

NOT_TAUGHT = "a teacher and whom it teaches are torch networks, not ONNX files"

PLAIN_NAMES = ("", "build", "make", "create", "model", "net", "network", "get_model", "main")
"""Functions whose name says nothing of what they build."""


def model_name(reference: str) -> str:
    """`nets/resnet.py:resnet20` → `resnet20`; `nets/resnet.py:build`, `resnet.onnx` → `resnet`."""
    place, _, function = reference.rpartition(":")
    if not place or Path(reference).suffix.lower() in (".onnx", ".pt2"):
        return Path(reference or "network").stem
    stem = Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]
    return stem if function in PLAIN_NAMES else function


class ModelSection(Noun):
    """A network; either `factory` or `file`."""

    factory: str | None = Field(None, description="file.py:function or package.module:function")
    file: str | None = Field(None, description="an .onnx or .pt2 file, in place of a factory")
    weights: str | None = Field(None, description=".safetensors, or a state dict in .pt or .pth")
    input_shape: tuple[int, ...] | None = Field(None, description="batch first: [1, 3, 32, 32]")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.factory is None) == (self.file is None):
            raise ValueError("needs either `factory` (file.py:function) or `file` (.onnx, .pt2)")
        return self

    @property
    def reference(self) -> str:
        """What the user calls the model: the factory or the file."""
        return self.factory or self.file or ""

    @property
    def name(self) -> str:
        """A short name for folders and tables."""
        return model_name(self.reference)

    @property
    def kind(self) -> Kind:
        """What the first stage gets: a torch network, or a file as it is."""
        return "artifact" if self.reference.lower().endswith(".onnx") else "network"

    @property
    def fixed(self) -> bool:
        """Whether it is an exported program: neither trained nor cut."""
        return self.reference.lower().endswith(".pt2")


class DataSection(Noun):
    """Where examples come from; splits that are not named are taken from `source`."""

    source: str = Field(description="a folder, an .npz, a named set, or module:function")
    validation: str | None = Field(None, description="another source for what selects")
    calibration: str | None = Field(None, description="another source for value ranges")
    test: str | None = Field(None, description="another source for the final figures")
    augment: tuple[str, ...] | None = Field(
        None, description="how training pictures are changed: flip, shift, nudge; unset: as usual"
    )

    def settings(self) -> dict[str, Any]:
        """The other sources that are named: keywords of `load_data`."""
        others = self.model_dump(exclude={"source", "augment"})
        return {k: v for k, v in others.items() if v is not None}


class TaskSection(Noun):
    """What the network is for: a task's name and that task's own settings."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = Field(description="what the network is for: classification, super_resolution")


class Recipe(Noun):
    """All that a run needs; equal recipes and seeds give equal files.

    Relative paths of a recipe that was read from a file begin at that file's folder.
    """

    model: ModelSection = Field(description="the network to be compressed")
    data: DataSection = Field(description="where examples come from")
    task: TaskSection = Field(description="what the network is for")
    preprocessing: Preprocessing | None = Field(None, description="how pictures become inputs")
    teacher: ModelSection | None = Field(
        None, description="a larger network that teaches in every training, in place of the model"
    )
    target: Target = Field(default_factory=Target, description="where the files will run")
    budget: Budget = Field(default_factory=Budget, description="limits that a file should keep")
    seed: int = Field(0, ge=0, lt=2**63, description="fixes everything that is not a clock")
    time_budget_minutes: float | None = Field(
        None, gt=0, description="time that is planned for; bounds each timing of files"
    )
    device: str = Field("cpu", description="where networks are trained")
    train_threads: int = Field(1, ge=1, le=1024, description="threads of a training")
    train_precision: Precision = Field(
        "float32", description="bfloat16: faster trainings on a CPU that multiplies in it"
    )
    workers: str = Field(
        "1",
        pattern=r"^([1-9][0-9]{0,3}|ray(://.+)?)$",
        description="who evaluates a search's candidates: processes, ray, or ray://host:port",
    )
    stages: tuple[InstanceOf[Stage], ...] = Field(description="what is done, in this order")

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, plain: Any) -> Any:
        return with_short_forms(plain) if isinstance(plain, Mapping) else plain

    @model_validator(mode="after")
    def _teacher_of_a_network(self) -> Self:
        if self.teacher is not None and "artifact" in (self.teacher.kind, self.model.kind):
            raise ValueError(NOT_TAUGHT)
        return self

    @field_validator("task", mode="before")
    @classmethod
    def _task_by_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @field_validator("target", mode="before")
    @classmethod
    def _target_by_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return Target.parse(value)
        except LilliputError as error:
            # What pydantic does not know would end the validation of everything else.
            raise ValueError(f"{error.thing}; {error.hint}") from error

    @field_validator("stages", mode="before")
    @classmethod
    def _plain_stages(cls, value: Any) -> Any:
        stages, mistakes = build_stages(value)
        if mistakes:
            raise ValueError("; ".join(str(located(m, Marked(), "stages")) for m in mistakes))
        return tuple(stages.values())

    @field_serializer("stages")
    def _stages_as_plain(self, stages: tuple[Stage, ...]) -> list[dict[str, Any]]:
        return [{stage.name: stage.model_dump(mode="json")} for stage in stages]

    @classmethod
    def read(cls, path: Path | str) -> Recipe:
        """The recipe in a file, with its paths made absolute; the model's files must be there.

        Raises:
            Mistakes: Everything that is wrong with it, each with its line.
            LilliputError: There is no such file, or it is no YAML.
        """
        path = Path(path)
        if not path.is_file():
            raise LilliputError(f"no recipe at {str(path)!r}", hint="check the path")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise LilliputError("a recipe is UTF-8 text, and this is not", at=str(path)) from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path | str | None = None) -> Recipe:
        """The recipe in a text.

        Args:
            text: YAML.
            path: The file it comes from: named in errors, and its folder is where relative paths
                begin. Without it, paths are left as they are and files are not looked for.

        Raises:
            Mistakes: Everything that is wrong with it, each with its line.
            LilliputError: It is no YAML.
        """
        at = "recipe" if path is None else str(path)
        marked = read_marked(text, at=at)
        if not isinstance(marked.value, dict):
            raise LilliputError(
                "a recipe is a mapping with model, data, task and stages",
                at=at,
                hint="`lilliput new` writes one to start from",
            )
        home = None if path is None else Path(path).resolve().parent
        recipe, mistakes = _build(cls, marked.value, home)
        mistakes += [(place, LilliputError(thing)) for place, thing in marked.errors]
        if recipe is None or mistakes:
            mistakes.sort(key=lambda mistake: marked.line(mistake[0]))
            raise Mistakes([located(mistake, marked, at) for mistake in mistakes])
        return recipe

    def placed(self, home: Path) -> Recipe:
        """The recipe with its relative paths, which begin at `home`, made absolute."""
        plain = {
            "model": self.model.model_dump(mode="json"),
            "data": self.data.model_dump(mode="json"),
            "teacher": None if self.teacher is None else self.teacher.model_dump(mode="json"),
        }
        found = placed(plain, home.resolve())
        sections = {
            "model": ModelSection(**found["model"]),
            "data": DataSection(**found["data"]),
            "teacher": None if self.teacher is None else ModelSection(**found["teacher"]),
        }
        return self.model_copy(update=sections)

    def dump(self) -> str:
        """The recipe as commented YAML; `parse` makes an equal one of it."""
        return recipe_text(self, self.stages)


def _build(
    model: type[Recipe], plain: dict[str, Any], home: Path | None
) -> tuple[Recipe | None, list[Mistake]]:
    """The recipe of plain values, and all that is wrong with them."""
    mistakes: list[Mistake] = []
    if home is not None:
        plain = placed(plain, home)
        mistakes += missing_files(plain) + missing_data(plain)
    stages: dict[int, Stage] = {}
    if "stages" in plain:
        stages, wrong = build_stages(plain["stages"])
        mistakes += [(("stages", *place), error) for place, error in wrong]
        plain = {**plain, "stages": ()}
    recipe, wrong = validated(model, plain)
    mistakes += wrong
    sections = with_short_forms(plain)
    mistakes += _task_mistakes(sections.get("task")) + _target_mistakes(sections.get("target"))
    start, found = validated(ModelSection, sections.get("model"))
    if start is not None and not found:
        chain = check_chain(stages, start.kind) + (check_fixed(stages) if start.fixed else [])
        mistakes += [(("stages", *place), error) for place, error in chain]
    if recipe is not None:
        recipe = recipe.model_copy(update={"stages": tuple(stages.values())})
    return recipe, mistakes


def _task_mistakes(section: Any) -> list[Mistake]:
    """An unknown task or settings that it does not have."""
    from lilliput.tasks.base import TASKS

    settings = {"name": section} if isinstance(section, str) else section
    if not isinstance(settings, Mapping) or not isinstance(settings.get("name"), str):
        return []
    name = settings["name"]
    if name not in TASKS:
        hint = nearest(name, TASKS)
        return [(("task", "name"), LilliputError(f"no task {name!r}", hint=hint))]
    return _setting_mistakes(TASKS[name], {k: v for k, v in settings.items() if k != "name"})


def _setting_mistakes(task: Any, settings: Mapping[str, Any]) -> list[Mistake]:
    known = [name for name in inspect.signature(task).parameters if name != "name"]
    unknown = [name for name in settings if name not in known]
    if unknown:
        said = "this task has no such setting"
        return [(("task", n), LilliputError(said, hint=nearest(n, known))) for n in unknown]
    try:
        task(**settings)
    except (LilliputError, ValueError, TypeError) as error:
        hint = error.hint if isinstance(error, LilliputError) else None
        thing = error.thing if isinstance(error, LilliputError) else str(error)
        return [(("task",), LilliputError(thing, hint=hint))]
    return []


def _target_mistakes(section: Any) -> list[Mistake]:
    """An unknown runtime, or a precision or device that it does not have."""
    from lilliput.runtimes.base import RUNTIMES
    from lilliput.runtimes.opening import check_target

    if isinstance(section, str):
        if not section.partition(":")[0]:
            return []  # said already
        section = Target.parse(section)
    target, found = validated(Target, {} if section is None else section)
    runtime = section.get("runtime") if isinstance(section, Mapping) else None
    name = runtime if target is None else target.runtime
    if isinstance(name, str) and name not in RUNTIMES:
        thing = f"no runtime {name!r}"
        return [(("target", "runtime"), LilliputError(thing, hint=nearest(name, RUNTIMES)))]
    if target is None or found:
        return []  # said already
    try:
        check_target(RUNTIMES[target.runtime], target)
    except LilliputError as error:
        return [(("target",), error)]
    return []

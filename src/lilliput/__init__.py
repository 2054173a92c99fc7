"""From a trained network to a measured Pareto front of deployable files.

The public names are loaded when they are first used, so that importing this costs next to nothing
and needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lilliput.artifact import Artifact
    from lilliput.budget import Budget
    from lilliput.candidate import Candidate
    from lilliput.data.dataset import Dataset
    from lilliput.errors import LilliputError
    from lilliput.measurement import Measurement
    from lilliput.models.store import load
    from lilliput.network import Network
    from lilliput.preprocessing import Preprocessing
    from lilliput.prune.call import channel_rule
    from lilliput.recipe import Recipe
    from lilliput.runs.result import RunResult
    from lilliput.target import Target
    from lilliput.verbs.check import check
    from lilliput.verbs.compress import compress
    from lilliput.verbs.doctor import doctor
    from lilliput.verbs.evaluate import evaluate
    from lilliput.verbs.explain import explain
    from lilliput.verbs.inspect import inspect
    from lilliput.verbs.list import list  # noqa: A004  # the verb's name
    from lilliput.verbs.measure import measure
    from lilliput.verbs.new import new
    from lilliput.verbs.pack import pack
    from lilliput.verbs.report import report
    from lilliput.verbs.resume import resume
    from lilliput.verbs.run import run
    from lilliput.verbs.schema import schema
    from lilliput.verbs.sensitivity import sensitivity
    from lilliput.verbs.unpack import unpack

VERBS = (
    *("compress", "run", "resume", "check", "inspect", "measure"),
    *("evaluate", "explain", "sensitivity", "pack", "unpack"),
    *("report", "list", "new", "schema", "doctor"),
)
_HOMES = {
    **{verb: f"lilliput.verbs.{verb}" for verb in VERBS},
    "Artifact": "lilliput.artifact",
    "Budget": "lilliput.budget",
    "Candidate": "lilliput.candidate",
    "Dataset": "lilliput.data.dataset",
    "LilliputError": "lilliput.errors",
    "Measurement": "lilliput.measurement",
    "Network": "lilliput.network",
    "Preprocessing": "lilliput.preprocessing",
    "Recipe": "lilliput.recipe",
    "RunResult": "lilliput.runs.result",
    "Target": "lilliput.target",
    "channel_rule": "lilliput.prune.call",
    "load": "lilliput.models.store",
}

__all__ = [  # noqa: RUF022  # verbs in the order of a day's work, then nouns
    "compress",
    "run",
    "resume",
    "check",
    "inspect",
    "measure",
    "evaluate",
    "explain",
    "sensitivity",
    "pack",
    "unpack",
    "report",
    "list",
    "new",
    "schema",
    "doctor",
    "load",
    "channel_rule",
    "Artifact",
    "Budget",
    "Candidate",
    "Dataset",
    "LilliputError",
    "Measurement",
    "Network",
    "Preprocessing",
    "Recipe",
    "RunResult",
    "Target",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("lilliput")
    if name not in _HOMES:
        raise AttributeError(f"module 'lilliput' has no attribute {name!r}")
    try:
        found = getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        from lilliput.errors import missing_part

        missing = missing_part(f"lilliput.{name}", error)
        if missing is None:
            raise
        raise missing from error
    globals()[name] = found
    return found


def __dir__() -> tuple[str, ...]:
    return (*sorted(__all__), "__version__")

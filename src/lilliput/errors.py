"""Errors that a person can act on: each names the thing, the place and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class LilliputError(Exception):
    """A mistake that the user can mend.

    Args:
        thing: What is wrong, in one sentence, with the offending value in it.
        at: Where: a file and line, a recipe field, a layer's path.
        hint: The way out: a command, a setting, a nearest name.
    """

    exit_code = 2

    def __init__(self, thing: str, *, at: str | None = None, hint: str | None = None) -> None:
        self.thing, self.at, self.hint = thing, at, hint
        super().__init__(thing)

    def __str__(self) -> str:
        place = f"{self.at}: " if self.at else ""
        way_out = f"\n  → {self.hint}" if self.hint else ""
        return f"{place}{self.thing}{way_out}"


class Refused(LilliputError):
    """Something cannot take what it was given, and says so before anything is spent."""


class Mistakes(LilliputError):
    """Several mistakes at once, so that nobody mends them one run at a time."""

    def __init__(self, errors: Sequence[LilliputError], *, at: str | None = None) -> None:
        self.errors = tuple(errors)
        listing = "\n".join(f"  {n}. {error}" for n, error in enumerate(self.errors, 1))
        plural = "mistake" if len(self.errors) == 1 else "mistakes"
        super().__init__(f"{len(self.errors)} {plural}\n{listing}", at=at)


class NotThere(LilliputError):
    """The recipe asks for what the run does not hold: it ends, to go on when that is mended."""


class VerificationFailed(LilliputError):
    """A file or a cut network does not compute what it should; nothing is delivered from it."""

    exit_code = 4


class CannotWrite(LilliputError):
    """The disk is full, broken or read-only. It ends a run, which can be gone on with later."""

    exit_code = 1


class Missing(LilliputError):
    """An optional part is not installed; the hint is the exact command that installs it."""

    exit_code = 5


def missing_part(what: str, error: ModuleNotFoundError) -> Missing | None:
    """What to install when `what` needs a package of the workshop; None if it is another's."""
    needed = (error.name or "").partition(".")[0]
    if needed not in ("torch", "safetensors", "lightning_fabric"):
        return None
    return Missing(
        f"{what} needs {needed}, which is not installed", hint='pip install "lilliput[train]"'
    )


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """A phrase with the names closest to `name`, for a hint: "did you mean 'conv1'?"."""
    choices = list(known)
    close = difflib.get_close_matches(name, choices, n=count, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(c) for c in close) + "?"
    shown = ", ".join(sorted(choices)[:12])
    return f"known: {shown}" if shown else "nothing is known here"

"""What a finished run leaves for its reader: the recommended file in its parts, and samples.

Neither ranks anything. What cannot be had of a file is left out, with a line that says why; it
never costs the run its front.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from lilliput.artifact import Artifact
from lilliput.atomic import write_atomically
from lilliput.candidate import Candidate
from lilliput.context import Context
from lilliput.data.dataset import Array, Split
from lilliput.errors import CannotWrite, LilliputError
from lilliput.meter.accuracy import answers_of
from lilliput.meter.anatomy import anatomy
from lilliput.meter.bfloat16 import as_meant
from lilliput.preprocessing import IDENTITY
from lilliput.runtimes.opening import open_session

LOOKED_THROUGH = 256
"""Examples that are searched for those on which the two files differ."""

SHOWN, SHOWN_PICTURES = 12, 3
"""Examples that are kept: with words as answers, and with pictures."""

MOST_PIXELS = 160
"""Side of a picture that is kept: the middle of larger ones, so that a report stays small."""


def note_exhibits(best: Candidate, reference: Candidate, context: Context) -> None:
    """Journal the parts of the recommended file, and what it makes of a few examples."""
    file, original = best.the_artifact(), reference.the_artifact()

    def parts() -> dict[str, Any]:
        found = anatomy(file.path, as_meant(file.metadata, context.target))
        return {"anatomy": found.model_dump(mode="json"), "of": best.id}

    def samples() -> dict[str, Any]:
        return {"samples": _samples(file, original, context), "of": best.id}

    _unless_impossible(f"anatomy of {best.id}", parts, context)
    if context.data.layout == "image" and context.root is not None:
        _unless_impossible(f"samples of {best.id}", samples, context)


def _unless_impossible(key: str, work: Callable[[], dict[str, Any]], context: Context) -> None:
    try:
        context.journal.once(key, work)
    except CannotWrite:
        raise
    except (LilliputError, RuntimeError, ValueError, TypeError, OSError) as error:
        context.progress.say(f"the report will be without the {key}: {error}")


def _samples(file: Artifact, original: Artifact, context: Context) -> dict[str, Any]:
    """Examples with what both files make of them; pictures are written to the run's folder."""
    name = "test" if len(context.data.test) else "validation"
    split = context.data.split(name)
    pictures = _is_picture(_answers(original, split.head(1), context)[0])
    looked_at = split.take(_spread(len(split), SHOWN_PICTURES if pictures else LOOKED_THROUGH))
    ours, theirs = (_answers(each, looked_at, context) for each in (file, original))
    differing = [n for n, pair in enumerate(zip(ours, theirs, strict=True)) if _differ(*pair)]
    chosen = range(len(looked_at)) if pictures else _chosen(differing, len(looked_at))
    keep = _Keeper(context)
    examples = []
    for number, at in enumerate(chosen):
        given = np.asarray(looked_at.inputs[at])
        example = {"input": keep(given, f"{number}-input", _times_larger(ours[at], given))}
        answers = {"original": theirs[at], "recommended": ours[at]}
        if looked_at.targets is not None:
            answers["truth"] = looked_at.targets[at]
        example |= {role: keep(answer, f"{number}-{role}") for role, answer in answers.items()}
        examples.append(example)
    counts = {} if pictures else {"looked_through": len(looked_at), "differing": len(differing)}
    return {"split": name, "examples": examples, **counts}


def _answers(file: Artifact, split: Split, context: Context) -> list[Any]:
    """What the file makes of every example, in the form of the truth."""
    how, layout = file.metadata.preprocessing or IDENTITY, context.data.layout
    with closing(open_session(file.path, as_meant(file.metadata, context.target))) as session:
        return answers_of(session, context.task, split, how, layout=layout)


def _chosen(differing: Sequence[int], count: int) -> list[int]:
    """Some on which the files differ, the rest evenly from all."""
    some = list(differing[: SHOWN // 2])
    return some + [n for n in _spread(count, SHOWN) if n not in some][: SHOWN - len(some)]


def _spread(count: int, wanted: int) -> list[int]:
    return sorted({int(n) for n in np.linspace(0, count - 1, min(count, wanted))})


def _differ(ours: Any, theirs: Any) -> bool:
    return not np.array_equal(np.asarray(ours), np.asarray(theirs))


def _is_picture(answer: Any) -> bool:
    values = np.asarray(answer)
    return values.dtype == np.uint8 and values.ndim == 3


class _Keeper:
    """Turns answers into what a page shows: a picture's file, or a few words."""

    def __init__(self, context: Context) -> None:
        assert context.root is not None
        self._root, self._classes = context.root, context.data.classes

    def __call__(self, answer: Any, name: str, ratio: int = 1) -> dict[str, str]:
        if _is_picture(answer):
            path = Path("samples") / f"{name}.png"
            side = max(MOST_PIXELS // ratio, 1)
            write_atomically(self._root / path, _png(_middle(np.asarray(answer), side)))
            return {"picture": path.as_posix()}
        if np.ndim(answer) == 0 and 0 <= int(answer) < len(self._classes):
            return {"text": self._classes[int(answer)]}
        return {"text": str(answer)}


def _times_larger(answer: Any, given: Array) -> int:
    """How many times larger than the input the answer is; 1 where it is no picture."""
    return max(1, np.shape(answer)[0] // given.shape[0]) if _is_picture(answer) else 1


def _middle(picture: Array, side: int) -> Array:
    height, width = picture.shape[:2]
    top, left = max(height - side, 0) // 2, max(width - side, 0) // 2
    return picture[top : top + side, left : left + side]


def _png(picture: Array) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    pixels = picture[..., 0] if picture.shape[-1] == 1 else picture
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", optimize=True)
    return stream.getvalue()

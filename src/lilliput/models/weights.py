"""Weights from files that cannot run code, fitted to a module or refused with all the reasons."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from lilliput.errors import LilliputError, Mistakes, Refused, nearest

State = dict[str, Tensor]

WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "net", "network", "params_ema", "params"),
    *("ema", "weights", "module", "generator"),
)
"""Keys under which training scripts put the weights beside epochs and optimizers, best first."""

TORCH_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".tar")
SHOWN = 12


def read_weights(path: Path) -> State:
    """{name: tensor} from a `.safetensors` file or a torch state dict; no code of the file runs.

    Raises:
        LilliputError: no such file, or nothing in it that looks like weights.
        Refused: a pickle that needs more than tensors, with the way to convert it; a suffix that
            holds no weights; weights that are not finite.
    """
    if not path.is_file():
        raise LilliputError(f"no weights at {str(path)!r}", hint="check the path")
    if path.suffix == ".safetensors":
        state = _read_safetensors(path)
    elif path.suffix in TORCH_SUFFIXES:
        state = _innermost(_read_torch(path), path)
    else:
        raise Refused(
            f"{path.name!r} is no weights file",
            hint=f"give .safetensors, or a state dict in {', '.join(TORCH_SUFFIXES)}",
        )
    _refuse_nan(state, path)
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor], at: str) -> tuple[str, ...]:
    """Put the weights into the module, in place; what had to be adapted comes back as sentences.

    Prefixes that wrappers left in the names go; other precisions are cast to the module's own;
    counters of batch-norm that the file lacks stay as built.

    Raises:
        Mistakes: every missing, unexpected and misshapen tensor at once, with the nearest names.
    """
    own = module.state_dict(keep_vars=True)
    fitted, notes = _renamed(state, set(own))
    mistakes = list(_mismatches(fitted, own))
    if mistakes:
        extra = len(mistakes) - SHOWN
        if extra > 0:
            mistakes = [*mistakes[:SHOWN], LilliputError(f"... and {extra} more of the kind")]
        raise Mistakes(mistakes, at=at)
    casts = {
        f"{given.dtype}→{own[name].dtype}".replace("torch.", "")
        for name, given in fitted.items()
        if name in own and given.dtype != own[name].dtype
    }
    if casts:
        notes = (*notes, f"weights were cast: {', '.join(sorted(casts))}")
    module.load_state_dict({k: v for k, v in fitted.items() if k in own}, strict=False)
    return notes


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(f"{str(path)!r} is not a safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> Refused:
    if "TorchScript" in reason:
        return Refused(
            f"{str(path)!r} is a TorchScript program, not a state dict",
            hint="save `module.state_dict()` with safetensors instead",
        )
    named = re.search(r"GLOBAL ([\w.]+)", reason)
    if "weights_only" not in reason.lower() and "weights only" not in reason.lower():
        return Refused(f"{str(path)!r} is not a torch file ({reason.splitlines()[0][:120]})")
    what = repr(named[1]) if named else "an object"
    new = path.with_suffix(".safetensors").name
    return Refused(
        f"{str(path)!r} is a pickle that would run code to make {what}; it was not opened",
        hint='where you trust the file, convert it once: python -c "import torch; from '
        f"safetensors.torch import save_model; save_model(torch.load('{path.name}', "
        f"weights_only=False), '{new}')\"  (save_file, if it holds a dict of tensors)",
    )


def _innermost(thing: Any, path: Path) -> State:
    """The mapping of names to tensors inside whatever the training script saved around it."""
    while isinstance(thing, Mapping):
        tensors = {str(k): v for k, v in thing.items() if isinstance(v, Tensor)}
        inner = {str(k): v for k, v in thing.items() if isinstance(v, Mapping) and _holds(v)}
        named = next((inner[key] for key in WRAPPERS if key in inner), None)
        if named is None and len(inner) == 1 and not tensors:
            named = next(iter(inner.values()))
        if named is None:
            if tensors:
                return {name: tensor.detach() for name, tensor in tensors.items()}
            break
        thing = named
    found = f"keys {sorted(map(str, thing))[:8]}" if isinstance(thing, Mapping) else "no mapping"
    raise LilliputError(
        f"no state dict in {str(path)!r}: {found}",
        hint="save `module.state_dict()` alone, best as .safetensors",
    )


def _holds(thing: Any) -> bool:
    """Whether there are named tensors in it, at any depth. Optimizers number theirs."""
    if not isinstance(thing, Mapping):
        return False
    return any(
        (isinstance(value, Tensor) and isinstance(key, str)) or _holds(value)
        for key, value in thing.items()
        if key != "optimizer"
    )


def _refuse_nan(state: State, path: Path) -> None:
    broken = [n for n, t in state.items() if t.is_floating_point() and not torch.isfinite(t).all()]
    if broken:
        more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise Refused(
            f"weights that are not finite: {', '.join(broken[:5])}{more}",
            at=str(path),
            hint="the training diverged; give an earlier checkpoint",
        )


def _renamed(state: Mapping[str, Tensor], own: set[str]) -> tuple[State, tuple[str, ...]]:
    """The state under the names that fit the module best, and what was taken off."""

    def plain(name: str) -> str:
        return name

    def unwrapped(name: str) -> str:
        parts = name.split(".")
        return ".".join(p for p in parts if p not in ("_orig_mod", "module"))

    choices: list[tuple[str, Callable[[str], str]]] = [("", plain), ("wrappers'", unwrapped)]
    first = {unwrapped(name).partition(".")[0] for name in state}
    if len(first) == 1:
        prefix = f"{first.pop()}."
        choices.append((repr(prefix), lambda name: unwrapped(name).removeprefix(prefix)))
    scores = [len({rename(name) for name in state} & own) for _, rename in choices]
    label, rename = choices[scores.index(max(scores))]
    note = (f"the {label} prefix of the weights' names was taken off",) if label else ()
    return {rename(name): tensor for name, tensor in state.items()}, note


def _mismatches(state: State, own: Mapping[str, Tensor]) -> Iterator[LilliputError]:
    known = set(state)
    for name, tensor in own.items():
        if name in state:
            if not is_lazy(tensor) and state[name].shape != tensor.shape:
                theirs, ours = tuple(state[name].shape), tuple(tensor.shape)
                yield LilliputError(f"{name!r} has shape {theirs} in the file, {ours} in the model")
        elif not _may_lack(name, own, known):
            unclaimed = known - set(own)
            yield LilliputError(
                f"{name!r} is missing from the file",
                hint=f"the file has others: {nearest(name, unclaimed)}" if unclaimed else None,
            )
    for name in state:
        if name not in own and not name.endswith("num_batches_tracked"):
            missing = set(own) - known
            yield LilliputError(
                f"{name!r} in the file belongs to no layer of the model",
                hint=nearest(name, missing) if missing else "is it the weights of a larger model?",
            )


def _may_lack(name: str, own: Mapping[str, Tensor], known: set[str]) -> bool:
    """Counters, and second names of a tensor that the file holds under its first."""
    if name.endswith("num_batches_tracked"):
        return True
    return any(own[other] is own[name] for other in own.keys() & known)

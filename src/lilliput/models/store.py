"""Networks on disk without code: plain weights, and in the header all that rebuilds the rest.

The file is a `.safetensors` that any tool opens. A pruned network's widths no longer match its
class; its changes lie in the header and are replayed on what the class builds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.atomic import write_atomically
from lilliput.errors import LilliputError, Refused
from lilliput.models.weights import load_weights, read_weights
from lilliput.network import Network, unwrap, unwrap_within
from lilliput.noun import Noun
from lilliput.preprocessing import Preprocessing
from lilliput.prune.edits import replay

HEADER_KEY = "lilliput"
HEADER_LIMIT = 100_000_000
"""Bytes of header that safetensors itself accepts."""

FORMAT = 1


class Header(Noun):
    """What lies beside the weights. `aliases` maps a tensor's further names to its stored one."""

    format: int = FORMAT
    name: str = "network"
    inputs: tuple[TensorSpec, ...] = ()
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    edits: tuple[dict[str, Any], ...] = ()
    aliases: dict[str, str] = Field(default_factory=dict)
    held: dict[str, str] = Field(default_factory=dict)


def save_network(network: Network, path: Path | str) -> Path:
    """Write weights and header in one `.safetensors`, atomically; equal networks, equal bytes.

    Raises:
        LilliputError: another suffix.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise LilliputError(f"a saved network ends in .safetensors, not {path.name!r}")
    stored, aliases = _without_aliases(network.module)
    header = Header(
        name=network.name,
        inputs=network.inputs,
        preprocessing=network.preprocessing,
        edits=tuple(dict(edit) for edit in network.edits),
        aliases=aliases,
        held=dict(network.held),
    )
    text = json.dumps(header.model_dump(mode="json"), separators=(",", ":"), sort_keys=True)
    write_atomically(path, save(stored, metadata={HEADER_KEY: text}))
    return path


def load_saved(path: Path | str, factory_module: nn.Module) -> Network:
    """The network in the file, on a copy of what its class builds; eval mode.

    Args:
        path: Written by `save_network`.
        factory_module: Fresh from the user's class or function, before any change; left as it is.

    Raises:
        LilliputError: no such file, or not one of ours.
        Mistakes: it belongs to another class; all differences at once.
    """
    path = Path(path)
    header = read_header(path)
    module = replay(factory_module, header.edits)
    state = read_weights(path)
    state |= {name: state[stored] for name, stored in header.aliases.items() if stored in state}
    _untie_types(module, state)
    load_weights(module, state, str(path))
    return Network(
        module.eval(),
        header.inputs,
        header.name,
        header.preprocessing,
        tuple(header.edits),
        held=header.held,
    )


def load(file: Path | str, model_fn: Callable[[], nn.Module] | nn.Module) -> Network:
    """A saved network from its file and the function that builds its class; `.module` runs it.

    >>> network = lilliput.load("best.safetensors", build)  # doctest: +SKIP
    """
    built = model_fn if isinstance(model_fn, nn.Module) else model_fn()
    bare, _ = unwrap(built)
    unwrap_within(bare)
    return load_saved(file, bare)


def is_saved(path: Path | str) -> bool:
    """Whether the file is one that `save_network` wrote."""
    path = Path(path)
    return path.suffix == ".safetensors" and path.is_file() and HEADER_KEY in _metadata(path)


def read_header(path: Path) -> Header:
    """The header of a saved network, without reading its weights.

    Raises:
        LilliputError: no such file, or weights that another tool wrote.
        Refused: a newer format, or a damaged header.
    """
    if not path.is_file():
        raise LilliputError(f"no file at {str(path)!r}", hint="check the path")
    text = _metadata(path).get(HEADER_KEY)
    if text is None:
        raise LilliputError(
            f"{str(path)!r} holds weights alone, not a saved network",
            hint="load it with load_network(spec, weights=...)",
        )
    try:
        raw = json.loads(text)
        if int(raw.get("format", 0)) > FORMAT:
            raise Refused(
                f"{str(path)!r} has format {raw['format']}, and this version reads {FORMAT}",
                hint='pip install --upgrade "lilliput[train]"',
            )
        return Header.model_validate(raw)
    except (ValueError, ValidationError, AttributeError, TypeError) as error:
        raise Refused(f"{str(path)!r} has a damaged header") from error


def _metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file; bounded by the length that the file declares."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(HEADER_LIMIT, path.stat().st_size):
            raise Refused(f"{str(path)!r} is not a safetensors file")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise Refused(f"{str(path)!r} is not a safetensors file") from error
    found = header.get("__metadata__", {}) if isinstance(header, dict) else {}
    return found if isinstance(found, dict) else {}


def _without_aliases(module: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Each tensor once, contiguous and its own; the further names of those that have several."""
    stored: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in module.state_dict().items():
        if not isinstance(tensor, Tensor):
            continue
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            aliases[name] = first[place]
            continue
        first[place] = name
        stored[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return stored, aliases


def _untie_types(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the module the precision of the file, so that loading changes no bit."""
    kinds = {t.dtype for t in state.values() if t.is_floating_point()}
    if len(kinds) == 1:
        module.to(kinds.pop())

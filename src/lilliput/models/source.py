"""A model from where the user keeps it: code and weights, an exported program, an ONNX file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lilliput.artifact import Artifact, TensorSpec
from lilliput.data.dataset import Dataset
from lilliput.errors import LilliputError, Refused
from lilliput.models.factory import build_module
from lilliput.models.inputs import channels_of, inputs_from_data, prove_inputs
from lilliput.models.program import open_program
from lilliput.models.store import is_saved, load_saved
from lilliput.models.weights import load_weights, read_weights
from lilliput.network import Network, unwrap, unwrap_within
from lilliput.preprocessing import IDENTITY, Preprocessing
from lilliput.runtimes.reference import completed

if TYPE_CHECKING:
    from lilliput.tasks.base import Task

PLAIN_NAMES = ("build", "make", "model", "net", "network", "create", "get_model", "main")


def load_model(
    reference: str,
    *,
    weights: Path | str | None = None,
    inputs: tuple[TensorSpec, ...] | None = None,
    preprocessing: Preprocessing | None = None,
    task: Task | None = None,
    data: Dataset | None = None,
) -> Network | Artifact:
    """What a recipe's model is: a torch network, or the ONNX file itself.

    Raises:
        LilliputError, Refused: as `load_network`; or the ONNX file cannot be read safely.
    """
    if reference.endswith(".onnx"):
        if weights is not None:
            raise Refused(f"{reference!r} holds its weights; leave `weights` out")
        return completed(Artifact.of(reference), preprocessing, data)
    return load_network(
        reference,
        weights=weights,
        inputs=inputs,
        preprocessing=preprocessing,
        task=task,
        data=data,
    )


def load_network(
    spec: str,
    *,
    weights: Path | str | None = None,
    inputs: tuple[TensorSpec, ...] | None = None,
    preprocessing: Preprocessing | None = None,
    task: Task | None = None,
    data: Dataset | None = None,
) -> Network:
    """Build or open the model, load its weights, prove that it runs.

    Args:
        spec: `file.py:function`, `package.module:function`, or a `.pt2` of `torch.export`.
        weights: `.safetensors` (also one that lilliput saved: its cuts are replayed), or a state
            dict in a torch file, which is never unpickled beyond tensors.
        inputs: What it takes; left out, read off the first example of `data`.
        preprocessing: Left out, pictures are scaled to 0..1.
        task: Makes network inputs of `data`; left out, pictures are taken as they come.

    Raises:
        LilliputError, Refused, Mistakes: naming what is wrong and the way out.
    """
    if spec.endswith(".onnx"):
        raise Refused(
            f"{spec!r} is a file, and this needs a torch network",
            hint="steps after `export` (quantize, measure, evaluate) take ONNX files as they are",
        )
    if spec.endswith(".pt2"):
        if weights is not None:
            raise Refused(f"{spec!r} holds its weights; leave the weights file out")
        return open_program(Path(spec), preprocessing=preprocessing or _preprocessing(data))
    module = build_module(spec)
    return network_of(
        module,
        weights=weights,
        inputs=inputs,
        preprocessing=preprocessing,
        task=task,
        data=data,
        name=_name(spec),
    )


def network_of(
    module: nn.Module,
    *,
    weights: Path | str | None = None,
    inputs: Sequence[TensorSpec] | None = None,
    preprocessing: Preprocessing | None = None,
    task: Task | None = None,
    data: Dataset | None = None,
    name: str = "network",
) -> Network:
    """A network around a copy of a module that is at hand; arguments as for `load_network`.

    DataParallel, DistributedDataParallel and `torch.compile` wrappers come off, inside too, and are
    named in `notes`. The module itself is never changed.
    """
    weights = None if weights is None else Path(weights)
    bare, wrappers = unwrap(module)
    own = _copied(bare).to("cpu").eval()
    notes = tuple(f"{wrapper} was taken off" for wrapper in (*wrappers, *unwrap_within(own)))
    edits: tuple[Any, ...] = ()
    held: Mapping[str, str] = {}
    if weights is not None and is_saved(weights):
        saved = load_saved(weights, own)
        own, edits, held = saved.module, saved.edits, saved.held
        inputs = inputs or saved.inputs
        preprocessing = preprocessing or saved.preprocessing
        notes += (f"saved changes replayed: {len(edits)}",) if edits else ()
    elif weights is not None:
        notes += load_weights(own, read_weights(weights), str(weights))
    if any(p.dtype in (torch.float16, torch.bfloat16) for p in own.parameters()):
        own = own.float()
        notes += ("half-precision weights are computed in float32",)
    preprocessing = preprocessing or _preprocessing(data)
    if not inputs and data is None:
        raise LilliputError(
            f"nothing says what shape {name!r} takes",
            hint="give --input-shape, e.g. 1x3x32x32, or data to read it from",
        )
    if not inputs and data is not None:
        inputs = inputs_from_data(data, preprocessing, task)
    proven = prove_inputs(own, tuple(inputs or ()))
    return Network(own, proven.inputs, name, preprocessing, edits, (*notes, *proven.notes), held)


def _copied(module: nn.Module) -> nn.Module:
    scripted = [p for p, part in module.named_modules() if isinstance(part, torch.jit.ScriptModule)]
    if scripted:
        where = repr(scripted[0]) if scripted[0] else "the whole model"
        raise Refused(
            f"{where} is TorchScript, which can be run and not changed",
            hint="build the network without `torch.jit`; its weights are the same",
        )
    try:
        return copy.deepcopy(module, _made_anew(module))
    except (RuntimeError, TypeError, ValueError) as error:
        raise LilliputError(
            f"the model cannot be copied: {error}",
            hint="does a module keep a computed tensor as an attribute? register it as a buffer",
        ) from error


def _made_anew(module: nn.Module) -> dict[int, Any]:
    """{id: copy} of weights that hooks compute before each run, which torch itself cannot copy.

    Those of `weight_norm`, `spectral_norm` and `prune` in torch.nn.utils.
    """
    found: dict[int, Any] = {}
    for part in module.modules():
        for hook in part._forward_pre_hooks.values():
            name = getattr(hook, "_tensor_name", getattr(hook, "name", None))
            value = vars(part).get(name) if isinstance(name, str) else None
            if isinstance(value, torch.Tensor):
                found[id(value)] = value.detach().clone()
    return found


def _preprocessing(data: Dataset | None) -> Preprocessing:
    """Pictures scaled to 0..1; nothing done to ready inputs, or where there is no data."""
    if data is None or data.layout != "image":
        return IDENTITY
    return Preprocessing(channels=channels_of(data))


def _name(spec: str) -> str:
    """The function's name, or the file's where the function's says nothing."""
    source, _, function = spec.rpartition(":")
    plain = function in PLAIN_NAMES
    return Path(source).stem.rpartition(".")[2] or function if plain else function

"""The recommended file from inside: its layers, their time, and the bill of its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lilliput.meter.anatomy import Anatomy, LayerShare, StoredTensor
from lilliput.reports.summary import Summary
from lilliput.units import format_bytes, format_count

LARGEST = 12
"""Tensors that are shown at once; the rest unfolds."""


def inside_of(summary: Summary) -> dict[str, Any] | None:
    """Tables of layers and of bytes with the share of each; None where nothing was noted."""
    found = summary.anatomy
    if found is None:
        return None
    bill = list(_bill(found))
    return {
        "file": found.file,
        "target": found.target,
        "advice": found.advice,
        "profiled": _micro(found.seconds) if found.seconds else "",
        "int8_share": f"{found.int8_share:.0%}",
        "sensitivity": bool(summary.sensitivity),
        "layers": [_layer(layer, found, summary.sensitivity) for layer in found.layers],
        "others": [_other(found, n) for n in range(len(found.others))],
        "bytes": format_bytes(found.bytes),
        "length": f"{found.bytes:,}",
        "bill": bill[:LARGEST],
        "rest": bill[LARGEST:],
    }


def _layer(layer: LayerShare, whole: Anatomy, sensitivity: Mapping[str, float]) -> dict[str, Any]:
    error, seconds = sensitivity.get(layer.name), layer.seconds
    return {
        "name": layer.name,
        "kind": f"{layer.kind}, {layer.inputs} → {layer.outputs}",
        "precision": layer.precision,
        "params": format_count(layer.params),
        "params_sort": layer.params,
        "macs": format_count(layer.macs),
        "macs_sort": layer.macs,
        "macs_width": _part(layer.macs, max(each.macs for each in whole.layers)),
        "time": "" if seconds is None else _micro(seconds),
        "time_sort": "" if seconds is None else seconds,
        "time_width": _part(seconds or 0.0, _longest(whole)),
        "sensitivity": "" if error is None else f"{error:.2%}",
        "error": "" if error is None else error,
    }


def _other(whole: Anatomy, at: int) -> dict[str, Any]:
    share = whole.others[at]
    return {
        "name": f"{share.op} ×{share.count}",
        "precision": share.precision,
        "time": _micro(share.seconds),
        "time_sort": share.seconds,
        "time_width": _part(share.seconds, _longest(whole)),
    }


def _longest(whole: Anatomy) -> float:
    layers = [layer.seconds or 0.0 for layer in whole.layers]
    return max([*layers, *(other.seconds for other in whole.others)], default=0.0)


def _bill(whole: Anatomy) -> Iterator[dict[str, Any]]:
    parts = [
        (t.name, f"{t.dtype}, {' × '.join(map(str, t.shape)) or 'scalar'}{_parts(t)}", t.bytes)
        for t in whole.tensors
    ]
    parts.append(("graph, names and metadata", "", whole.graph_bytes))
    largest = max(length for _, _, length in parts)
    for name, kind, length in sorted(parts, key=lambda part: -part[2]):
        yield {
            "name": name,
            "kind": kind,
            "bytes": f"{length:,}",
            "width": _part(length, largest),
            "percent": f"{_part(length, whole.bytes):.1%}",
        }


def _parts(tensor: StoredTensor) -> str:
    """What a packed tensor's bytes are spent on; the largest first."""
    parts = sorted(tensor.parts.items(), key=lambda part: -part[1])
    return "".join(f"; {part} {length:,}" for part, length in parts)


def _part(value: float, whole: float) -> float:
    """A share of the whole; bars are drawn against the largest of their column."""
    return value / whole if whole else 0.0


def _micro(seconds: float) -> str:
    micro = seconds * 1e6
    return f"{micro:.1f} µs" if micro < 1000 else f"{micro / 1000:.2f} ms"

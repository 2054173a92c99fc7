"""Constants that unfold themselves: a file holds the integers of packed kernels, not the weights.

int8 coefficients -> Cast -> (+ centres) -> inverse transform -> Mul(scale) -> weight of the layer.
All of it is constant and made of standard operators, so that a runtime computes it once, when it
loads the file, and then runs what it would run anyway.

The integers are (frequencies, outputs, inputs): our coder learns the size of each row by itself,
and a row is one frequency of all kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper
from torch import nn

from lilliput.data.dataset import Array
from lilliput.frequency.form import PackedForm, forms
from lilliput.frequency.transform import cosine_matrix
from lilliput.graph import Graph

LARGEST_ROW = 1 << 10
"""Inputs of a layer whose integers our coder sees as (frequency, output, input); see codec."""


def unfold(graph: Graph, module: nn.Module) -> list[str]:
    """Put the packed form of each layer in the place of its weight; in place.

    Batch norms may have been folded into the weights: that leaves one factor for each output
    channel. A weight that does not follow from the form up to such factors stays as it is.

    Args:
        graph: Tidied, its constants named by the torch modules' paths.
        module: Holds the forms.

    Returns:
        The layers whose weights now unfold.
    """
    done = []
    for path, form in forms(module).items():
        name = f"{path}.weight"
        stored = graph.constants.get(name)
        if stored is None:
            continue
        found = _fit(stored, form)
        if found is None:
            continue
        nodes = _Unfolding(graph, path, form).nodes(name, found)
        del graph.constants[name]
        graph.nodes[:0] = nodes
        graph.reindex()
        done.append(path)
    return done


@dataclass(frozen=True)
class _Fit:
    """How a stored weight follows from a form: its shape, factors (O,), whether it lies across."""

    shape: tuple[int, ...]
    factors: NDArray[np.float32]
    across: bool


def _fit(stored: Array, form: PackedForm) -> _Fit | None:
    _, outputs, inputs = form.residuals.shape
    plain = form.expanded(torch.Size((outputs, inputs, *form.sides))).numpy().reshape(outputs, -1)
    for across in (False, True):
        seen = stored.T if across else stored
        if seen.size != plain.size or seen.shape[0] != outputs or (across and stored.ndim != 2):
            continue
        flat = seen.reshape(outputs, -1).astype(np.float64)
        power = (plain.astype(np.float64) ** 2).sum(1)
        factors = np.where(power > 0, (flat * plain).sum(1) / np.where(power > 0, power, 1), 1)
        if np.allclose(factors, 1, rtol=1e-6):
            factors = np.ones_like(factors)
        if np.allclose(flat, factors[:, None] * plain, rtol=1e-4, atol=1e-7):
            return _Fit(stored.shape, factors.astype(np.float32), across)
    return None


class _Unfolding:
    """Nodes that compute one weight, and their constants."""

    def __init__(self, graph: Graph, path: str, form: PackedForm) -> None:
        self.graph, self.path, self.form = graph, path, form
        self.made: list[NodeProto] = []

    def nodes(self, name: str, fit: _Fit) -> list[NodeProto]:
        """All nodes, the last of which gives the value `name`."""
        frequencies, outputs, inputs = self.form.residuals.shape
        height, width = self.form.sides
        value = self._steps(frequencies, inputs)
        if frequencies > 1:
            value = self._spatial(value)
        unit = float(self.form.unit)
        if (fit.factors == 1).all():
            scale = np.array(unit, np.float32)
        else:
            scale = (unit * fit.factors).reshape(-1, *([1] * 3 if frequencies > 1 else [1]))
        value = self._node("Mul", [value, self._own("unit", scale.astype(np.float32))])
        flat = (outputs, inputs * height * width)
        if fit.across:
            value = self._reshaped(value, flat)
            value = self._node("Transpose", [value], perm=[1, 0])
        else:
            value = self._reshaped(value, fit.shape)
        self.made[-1].output[0] = name
        return self.made

    def _steps(self, frequencies: int, inputs: int) -> str:
        """Coefficients in steps: (O, I, h w) float, or (O, I) of kernels of one pixel."""
        whole = self.form.residuals.numpy()
        if frequencies == 1:
            return self._floats(self._own("q", whole[0]))
        if inputs <= LARGEST_ROW:
            value = self._floats(self._own("q", whole))
        else:
            value = self._floats(self._own("q", whole.reshape(-1, inputs)))
            value = self._reshaped(value, whole.shape)
        value = self._node("Transpose", [value], perm=[1, 2, 0])
        if not len(self.form.centres):
            return value
        ids = self._node("Cast", [self._own("ids", self.form.ids.numpy())], to=TensorProto.INT64)
        common = self._node("Gather", [self._centres(), ids], axis=0)
        return self._node("Add", [value, self._floats(common)])

    def _centres(self) -> str:
        """The centres' numbers at this layer's frequencies, (K, h w) int8."""
        whole, places = self.form.centres.numpy(), self.form.places.numpy()
        table = self._shared("centres", whole)
        if len(places) == whole.shape[1]:
            return table
        return self._node("Gather", [table, self._own("places", places)], axis=1)

    def _spatial(self, value: str) -> str:
        """(O, I, h w) coefficients to (O, I, h, w) kernels."""
        _, outputs, inputs = self.form.residuals.shape
        height, width = self.form.sides
        if self.form.kind == "svd":
            basis = self._own("basis", self.form.basis.numpy())
            value = self._node("MatMul", [value, basis])
        value = self._reshaped(value, (outputs, inputs, height, width))
        if self.form.kind == "dct":
            left, right = (cosine_matrix(side).astype(np.float32) for side in (height, width))
            value = self._node("MatMul", [value, self._shared(f"dct{width}", right)])
            value = self._node("MatMul", [self._shared(f"idct{height}", left.T), value])
        return value

    def _floats(self, value: str) -> str:
        return self._node("Cast", [value], to=TensorProto.FLOAT)

    def _reshaped(self, value: str, shape: tuple[int, ...]) -> str:
        sizes = self._shared("x".join(map(str, shape)), np.array(shape, np.int64))
        return self._node("Reshape", [value, sizes])

    def _own(self, role: str, value: Array) -> str:
        name = f"{self.path}.{role}"
        self.graph.constants[name] = np.asarray(value, order="C")
        return name

    def _shared(self, name: str, value: Array) -> str:
        """A constant that layers have in common, once in the file."""
        number, free = 0, name
        while free in self.graph.constants:
            if np.array_equal(self.graph.constants[free], value):
                return free
            number += 1
            free = f"{name}_{number}"
        self.graph.constants[free] = np.ascontiguousarray(value)
        return free

    def _node(self, kind: str, inputs: list[str], **settings: object) -> str:
        number = len(self.made)
        output = f"{self.path}.u{number}"
        node = helper.make_node(kind, inputs, [output], name=f"{self.path}/u{number}", **settings)
        self.made.append(node)
        return output

"""Awkward constructs: each file runs and equals torch, whatever the exporters made of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.artifact import TensorSpec
from lilliput.export.onnx_file import export_network
from lilliput.network import Network, flat_outputs

Forward = Callable[..., object]


class Made(nn.Module):
    """Layers by name and a forward written as a function of (self, inputs)."""

    def __init__(self, forward: Forward, **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> object:
        return self.run(self, *inputs)


def image(channels: int = 3, size: int | None = 8, *, sample: int = 8) -> TensorSpec:
    return TensorSpec(
        name="x", shape=(None, channels, size, size), sample=(1, channels, sample, sample)
    )


def conv(i: int, o: int, **settings: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 3, padding=1, **settings)


def normed(layer: nn.Module, width: int) -> nn.Sequential:
    norm = nn.BatchNorm2d(width)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 1.5)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_()
    return nn.Sequential(layer, norm)


def shuffled(net: nn.Module, x: Tensor) -> Tensor:
    b, _, h, w = x.shape
    x = net.a(x).view(b, 2, 4, h, w).transpose(1, 2).reshape(b, -1, h, w)
    return net.b(x)


def shared_block(net: nn.Module, x: Tensor) -> Tensor:
    x = net.head(x)
    for _ in range(3):
        x = F.relu(net.block(x)) + x
    return x


@torch.jit.script
def branch(x: Tensor) -> Tensor:
    return x * 2 if bool(x.sum() > 0) else x - 1


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[TensorSpec, ...], dict[str, int]]] = {
    "bn folds into conv": (lambda: normed(conv(3, 4), 4), (image(),), {"BatchNormalization": 0}),
    "bn folds into grouped transposed conv": (
        lambda: normed(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), 6),
        (image(4),),
        {"BatchNormalization": 0},
    ),
    "bn folds into linear": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.BatchNorm1d(5)).eval(),
        (image(),),
        {"BatchNormalization": 0},
    ),
    "bn without a convolution stays": (
        lambda: nn.Sequential(conv(3, 4), nn.GELU(), nn.BatchNorm2d(4)),
        (image(),),
        {"BatchNormalization": 1},
    ),
    "bn folds forward into what reads it": (
        lambda: nn.Sequential(
            normed(nn.GELU(), 3),
            nn.Conv2d(3, 4, 1),
            normed(nn.GELU(), 4),
            nn.Conv2d(4, 6, 3, groups=2, bias=False),
            normed(nn.GELU(), 6),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.Flatten(),
            nn.ReLU(),
            nn.BatchNorm1d(96),
            nn.Linear(96, 3),
        ),
        (image(),),
        {"BatchNormalization": 0, "Conv": 3},
    ),
    "bn before padding stays": (
        lambda: nn.Sequential(normed(nn.GELU(), 3), conv(3, 4)),
        (image(),),
        {"BatchNormalization": 1},
    ),
    "one block used three times": (
        lambda: Made(shared_block, head=conv(3, 4), block=normed(conv(4, 4), 4)),
        (image(),),
        {"BatchNormalization": 0, "Conv": 4},
    ),
    "one conv, two norms": (
        lambda: Made(
            lambda n, x: n.p(n.c(x)) + n.q(n.c(-x)),
            c=conv(3, 4),
            p=normed(nn.Identity(), 4),
            q=normed(nn.Identity(), 4),
        ),
        (image(),),
        {"BatchNormalization": 0, "Conv": 2},
    ),
    "batch kept by view": (
        lambda: Made(lambda n, x: n.fc(x.view(x.size(0), -1)), fc=nn.Linear(192, 3)),
        (image(),),
        {"Shape": 0, "Reshape": 1, "Gemm": 1},
    ),
    "channel shuffle": (
        lambda: Made(shuffled, a=conv(3, 8), b=conv(8, 2)),
        (image(),),
        {"Shape": 0, "Constant": 0},
    ),
    "channel shuffle at any size": (
        lambda: Made(shuffled, a=conv(3, 8), b=conv(8, 2)),
        (image(size=None),),
        {},
    ),
    "pixel shuffle at any size": (
        lambda: nn.Sequential(conv(1, 4), nn.PixelShuffle(2)),
        (image(1, None),),
        {"DepthToSpace": 1},
    ),
    "option-A shortcut": (
        lambda: Made(
            lambda n, x: F.relu(n.c(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))),
            c=conv(4, 6, stride=2),
        ),
        (image(4),),
        {"Slice": 0, "Pad": 0, "Conv": 2, "Transpose": 0},
    ),
    "strided slice without padding": (
        lambda: Made(lambda n, x: n.c(x[:, :, ::2, ::2]), c=conv(3, 4)),
        (image(),),
        {"Slice": 1, "Conv": 1},
    ),
    "padding that is no shortcut": (
        lambda: Made(
            lambda n, x: F.pad(n.c(x)[:, :, ::2, 1::2], (0, 1, 0, 0, 1, 1), value=2.0), c=conv(3, 4)
        ),
        (image(),),
        {"Slice": 1, "Pad": 1, "Conv": 1},
    ),
    "same padding at stride 2": (
        lambda: Made(
            lambda n, x: n.b(F.pad(F.relu(n.a(F.pad(x, (0, 1, 0, 1)))), (1, 2, 0, 1))),
            a=nn.Conv2d(3, 4, 3, stride=2),
            b=conv(4, 4, stride=2),
        ),
        (image(),),
        {"Pad": 0, "Conv": 2},
    ),
    "padding that others read": (
        lambda: Made(lambda n, x: (lambda y: n.c(y) + y)(F.pad(x, (1, 1, 1, 1))), c=conv(3, 3)),
        (image(),),
        {"Pad": 1},
    ),
    "squeeze-excite": (
        lambda: Made(
            lambda n, x: n.c(x) * torch.sigmoid(n.g(n.c(x).mean((2, 3), keepdim=True))),
            c=conv(3, 4),
            g=nn.Conv2d(4, 4, 1),
        ),
        (image(),),
        {},
    ),
    "expand before arithmetic": (
        lambda: Made(
            lambda n, x: n.c(x) * n.c(x).mean((2, 3)).view(-1, 4, 1, 1).expand_as(n.c(x)),
            c=conv(3, 4),
        ),
        (image(),),
        {"Expand": 0, "Shape": 0},
    ),
    "resize to the size of another": (
        lambda: Made(
            lambda n, x: F.interpolate(n.down(x), size=x.shape[2:], mode="nearest") + x,
            down=conv(3, 3, stride=2),
        ),
        (image(),),
        {"Resize": 1, "Shape": 0, "Concat": 0},
    ),
    "attention": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        (TensorSpec(name="tokens", shape=(None, 4, 8)),),
        {},
    ),
    "layer norm": (lambda: nn.LayerNorm(8), (TensorSpec(name="v", shape=(None, 4, 8)),), {}),
    "instance norm": (
        lambda: nn.Sequential(conv(3, 4), nn.InstanceNorm2d(4, affine=True)),
        (image(size=None),),
        {"InstanceNormalization": 1},
    ),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)),
        (image(),),
        {"Conv": 1, "Div": 0, "Mul": 0},
    ),
    "chunk and split": (
        lambda: Made(
            lambda n, x: torch.cat([*n.c(x).chunk(2, 1), n.c(x).split([1, 3], 1)[1]], 1),
            c=conv(3, 4),
        ),
        (image(),),
        {},
    ),
    "upsample at any size": (
        lambda: nn.Sequential(conv(3, 4), nn.Upsample(scale_factor=2, mode="bilinear")),
        (image(size=None),),
        {},
    ),
    "integer inputs": (
        lambda: nn.Sequential(nn.Embedding(5, 6), nn.Flatten(), nn.Linear(18, 2)),
        (TensorSpec(name="ids", shape=(None, 3), dtype="int64"),),
        {"Gather": 1},
    ),
    "recurrent": (
        lambda: Made(lambda n, x: n.r(x)[0][:, -1], r=nn.GRU(3, 4, batch_first=True)),
        (TensorSpec(name="sequence", shape=(None, 5, 3)),),
        {},
    ),
    "a scripted branch keeps its graphs": (
        lambda: Made(lambda n, x: branch(n.c(x)) + 1, c=normed(conv(3, 4), 4)),
        (image(),),
        {"If": 1},
    ),
    "an input that goes straight out": (
        lambda: Made(lambda n, x: {"same": n.i(x), "twice": n.c(x)}, c=conv(3, 4), i=nn.Identity()),
        (image(),),
        {},
    ),
    "fixed batch": (
        lambda: Made(lambda n, x: n.c(x).view(1, -1), c=conv(3, 4)),
        (TensorSpec(name="x", shape=(1, 3, 8, 8)),),
        {},
    ),
}


def counts(model: onnx.ModelProto) -> dict[str, int]:
    found: dict[str, int] = {}
    for node in model.graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_file_computes_what_torch_computes(case: str, tmp_path: Path) -> None:
    """users-ask 22, 23: verified by running, batch 1 and 7, nothing left that can be computed."""
    build, specs, expected = CASES[case]
    torch.manual_seed(3)
    network = Network(build().eval(), specs, name="net")
    artifact = export_network(network, tmp_path / "net.onnx")
    model = onnx.load(artifact.path)
    found = counts(model)
    assert {op: found.get(op, 0) for op in expected} == expected
    if "If" not in found and "straight" not in case:
        assert not {"Constant", "Identity", "Dropout"} & set(found)
    session = ort.InferenceSession(str(artifact.path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == [s.name for s in specs]
    fixed = specs[0].shape[0] is not None
    for batch in (1,) if fixed else (1, 7):
        inputs = network.example(batch, seed=11)
        with torch.no_grad():
            wanted = flat_outputs(network.module(*inputs))
        got = session.run(None, {s.name: x.numpy() for s, x in zip(specs, inputs, strict=True)})
        for ours, theirs in zip(got, wanted, strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4 * scale, rtol=0)

"""One exporter for all: verified or nothing, deterministic, silent, names and metadata kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lilliput.artifact import ArtifactMetadata, TensorSpec, read_metadata
from lilliput.data.dataset import Dataset, Split
from lilliput.errors import LilliputError, Refused, VerificationFailed
from lilliput.export import onnx_file
from lilliput.export.onnx_file import export_network
from lilliput.export.trace import CannotExportError, convert
from lilliput.network import Network
from lilliput.preprocessing import Preprocessing
from lilliput.reports.snippet import loading_code
from lilliput.steps.export import Export
from lilliput.testing import tiny_context

PICTURE = TensorSpec(name="x", shape=(None, 3, 8, 8))


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4))
        self.towers = nn.ModuleDict({"left": nn.Conv2d(4, 4, 1), "right": nn.Conv2d(4, 4, 1)})
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = self.towers["left"](x) + self.towers["right"](x)
        return self.head(x.mean((2, 3)))


def small() -> Network:
    torch.manual_seed(0)
    return Network(Small().eval(), (PICTURE,), name="small")


class Wrap(nn.Module):
    def __init__(self, forward: Callable[..., object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.run = forward

    def forward(self, *inputs: Tensor) -> object:
        return self.run(*inputs)


def network(forward: Callable[..., object], *specs: TensorSpec) -> Network:
    return Network(Wrap(forward).eval(), specs or (PICTURE,), name="odd")


def run(path: Path, **feeds: np.ndarray) -> list[np.ndarray]:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)


FREE = TensorSpec(name="x", shape=(None, 3, None, None), sample=(1, 3, 8, 8))


def upper_half(x: Tensor) -> Tensor:
    """Tracing turns the height into a number; torch.export keeps it symbolic."""
    return x[:, :, : math.ceil(x.shape[2] / 2)] * 2


def test_names_are_module_paths_and_the_rest_is_short(tmp_path: Path) -> None:
    """users-ask 25: names are the torch module paths."""
    model = onnx.load(export_network(small(), tmp_path / "a.onnx").path)
    assert [node.name for node in model.graph.node] == [
        "stem.0",
        "Relu",
        "towers.left",
        "towers.right",
        "Add",
        "ReduceMean",
        "head",
    ]
    weights = [t.name for t in model.graph.initializer]
    assert weights[:4] == ["stem.0.weight", "stem.0.bias", "towers.left.weight", "towers.left.bias"]
    assert {o for node in model.graph.node[:-1] for o in node.output} == {f"t{n}" for n in range(6)}
    assert not model.graph.value_info
    assert model.producer_name == "lilliput"


def test_equal_networks_give_equal_bytes(tmp_path: Path) -> None:
    """users-ask 34: same network, same hash; another weight, another hash."""
    net = small()
    first = export_network(net, tmp_path / "a.onnx")
    second = export_network(net.copy(), tmp_path / "b.onnx")
    assert first.sha256 == second.sha256
    other = net.copy()
    with torch.no_grad():
        other.module.head.bias += 1.0
    assert export_network(other, tmp_path / "c.onnx").sha256 != first.sha256


def test_the_network_stays_as_it_was(tmp_path: Path) -> None:
    net = small()
    net.module.train()
    before = copy.deepcopy(net.module.state_dict())
    export_network(net, tmp_path / "a.onnx")
    assert net.module.training
    assert all(torch.equal(before[k], v) for k, v in net.module.state_dict().items())


@pytest.mark.slow
def test_nothing_is_printed_even_when_exporters_fail(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn
) -> None:
    export_network(small(), tmp_path / "a.onnx")
    export_network(network(upper_half, FREE), tmp_path / "b.onnx")
    with pytest.raises(VerificationFailed, match="special_bessel_j0"):
        export_network(network(torch.special.bessel_j0), tmp_path / "c.onnx")
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


def test_metadata_travels_inside(tmp_path: Path) -> None:
    net = small()
    recipe = [{"prune_channels": {"ratio": 0.5}}]
    given = ArtifactMetadata(recipe=recipe, isa=("avx2",), task={"name": "classification"})
    artifact = export_network(net, tmp_path / "a.onnx", metadata=given)
    inside = read_metadata(artifact.path)
    assert inside == artifact.metadata
    assert inside.recipe == recipe
    assert inside.inputs == net.inputs
    assert inside.preprocessing is None, "ready inputs, for all that was said"
    assert inside.version
    plain = export_network(net, tmp_path / "c.onnx")
    assert read_metadata(plain.path).preprocessing == net.preprocessing
    own = Preprocessing(scale=1.0, channels=1)
    kept = export_network(net, tmp_path / "b.onnx", metadata=ArtifactMetadata(preprocessing=own))
    assert kept.metadata.preprocessing == own


def test_two_inputs_and_a_dictionary_keep_their_names(tmp_path: Path) -> None:
    specs = (TensorSpec(name="left", shape=(None, 3)), TensorSpec(name="right", shape=(None, 3)))
    net = network(lambda a, b: {"sum": a + b, "parts": [a * 2, b]}, *specs)
    path = export_network(net, tmp_path / "a.onnx").path
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["sum", "parts_0", "parts_1"]
    assert [o.shape for o in session.get_outputs()] == [["batch", 3]] * 3
    a, b = np.ones((7, 3), np.float32), np.full((7, 3), 2, np.float32)
    total, doubled, same = run(path, left=a, right=b)
    assert (total == 3).all()
    assert (doubled == 2).all()
    assert (same == 2).all()


def test_an_input_that_the_network_ignores_stays_an_input(tmp_path: Path) -> None:
    specs = (TensorSpec(name="unused", shape=(None, 2)), TensorSpec(name="used", shape=(None, 3)))
    path = export_network(network(lambda a, b: b * 2, *specs), tmp_path / "a.onnx").path
    model = onnx.load(path)
    assert [i.name for i in model.graph.input] == ["unused", "used"]
    zeros = np.zeros((4, 2), np.float32)
    assert run(path, unused=zeros, used=np.ones((4, 3), np.float32))[0].shape == (4, 3)


def test_a_parameter_may_be_an_output(tmp_path: Path) -> None:
    class Scaled(Small):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return super().forward(x), self.scale

    file = export_network(Network(Scaled().eval(), (PICTURE,), name="scaled"), tmp_path / "s.onnx")
    assert len(onnx.load(file.path).graph.output) == 2


@pytest.mark.parametrize("shape", [(4,), (1, 6, 1, 1)])
def test_one_channel_that_is_spread_over_many_is_no_bias(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 1, 1) if len(shape) == 4 else nn.Linear(8, 1)
            self.shift = nn.Parameter(torch.randn(shape))

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) + self.shift

    network = Network(Spread().eval(), (PICTURE,), name="spread")
    assert export_network(network, tmp_path / "s.onnx").bytes


def test_an_output_named_like_an_input_is_renamed(tmp_path: Path) -> None:
    path = export_network(network(lambda x: {"x": x + 1, "same": x}), tmp_path / "a.onnx").path
    assert [o.name for o in onnx.load(path).graph.output] == ["x_out", "same"]


def test_free_height_and_width_are_free_in_the_file(tmp_path: Path) -> None:
    net = network(lambda x: F.interpolate(x, scale_factor=2.0) * 3, FREE)
    path = export_network(net, tmp_path / "a.onnx").path
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "x_height", "x_width"]
    assert run(path, x=np.ones((1, 3, 5, 9), np.float32))[0].shape == (1, 3, 10, 18)


def grid(x: Tensor) -> Tensor:
    places = torch.linspace(-1, 1, 4)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    flow = torch.stack([columns, rows], -1)[None].expand(x.shape[0], -1, -1, -1)
    return F.grid_sample(x, flow, align_corners=True)


def test_the_lowest_opset_that_serves(tmp_path: Path) -> None:
    """users-ask 23: 13 unless an operator needs more, and then it is said."""
    plain = export_network(small(), tmp_path / "a.onnx")
    assert plain.facts["opset"] == 13
    assert "opset_reason" not in plain.facts
    sampled = export_network(network(grid), tmp_path / "b.onnx")
    assert sampled.facts["opset"] == 16
    assert sampled.facts["opset_reason"] == "an operator of the network needs it"
    assert onnx.load(sampled.path).opset_import[0].version == 16


def test_an_opset_that_was_asked_for_is_kept_or_refused(tmp_path: Path) -> None:
    """users-ask 23: the conflict names both numbers."""
    asked = export_network(small(), tmp_path / "a.onnx", opset=17)
    assert onnx.load(asked.path).opset_import[0].version == 17
    with pytest.raises(Refused, match=r"needs opset 16, and opset 13 was asked for.*grid_sampler"):
        export_network(network(grid), tmp_path / "b.onnx", opset=13)
    with pytest.raises(LilliputError, match=r"opset 9 cannot be written\n.*from 11 to 23"):
        export_network(small(), tmp_path / "c.onnx", opset=9)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_what_tracing_freezes_goes_to_the_second_exporter(tmp_path: Path) -> None:
    """users-ask 22: both exporters tried, the verified one kept."""

    artifact = export_network(network(upper_half, FREE), tmp_path / "a.onnx")
    assert artifact.facts["exporter"] == "dynamo"
    assert artifact.facts["opset"] == 18
    assert artifact.facts["opset_reason"] == "the lowest that this exporter writes"
    assert "torchscript exporter" in artifact.facts["rejected"][0]
    x = np.ones((7, 3, 5, 4), np.float32)
    assert run(artifact.path, x=x)[0].shape == (7, 3, 3, 4)


def test_names_and_folding_are_the_same_from_the_second_exporter(tmp_path: Path) -> None:
    """users-ask 22: the export matrix, dynamo on and off."""
    net = small()
    first = onnx.load(export_network(net, tmp_path / "a.onnx").path)
    probes, names = onnx_file.make_probes(net, net.module)
    raw = convert(net.module, probes[0].inputs, net.inputs, names, "dynamo", 18)
    second = onnx_file._tidy(raw, net, net.module, probes, names)
    assert [n.name for n in second.graph.node] == [n.name for n in first.graph.node]
    assert onnx_file.deviation(second.SerializeToString(), probes, names).relative < 1e-5


def test_a_branch_on_values_is_not_delivered(tmp_path: Path) -> None:
    def branching(x: Tensor) -> Tensor:
        return x * 2 if x[0, 0, 0, 0] > float(x[0, 0, 0, 1]) else x - 5

    net = network(branching, TensorSpec(name="x", shape=(None, 3, 4, 4)))
    with pytest.raises(VerificationFailed, match=r"(?s)exported faithfully:.*torchscript.*dynamo"):
        export_network(net, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_a_file_that_deviates_is_not_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """users-ask 10: a mis-scaled export is caught by comparing file and network."""

    def misscaled(*settings: object) -> onnx.ModelProto:
        model = convert(*settings)  # type: ignore[arg-type]
        for tensor in model.graph.initializer:
            if tensor.name.endswith("head.weight"):
                values = onnx.numpy_helper.to_array(tensor) * 1.01
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
        return model

    monkeypatch.setattr(onnx_file, "convert", misscaled)
    with pytest.raises(VerificationFailed, match=r"'output' deviates from torch by .*batch 2"):
        export_network(small(), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_real_inputs_and_the_tasks_own_measure_are_recorded(tmp_path: Path) -> None:
    class Counting:
        def agreement(self, ours: np.ndarray, reference: np.ndarray) -> tuple[str, float]:
            same = ours.argmax(1) == reference.argmax(1)
            return "top-1 agreement, %", 100.0 * float(same.mean())

    real = np.random.default_rng(0).normal(size=(9, 3, 8, 8)).astype(np.float32)
    artifact = export_network(small(), tmp_path / "a.onnx", probe=[real], task=Counting())  # type: ignore[arg-type]
    assert artifact.facts["agreement"] == {"measure": "top-1 agreement, %", "value": 100.0}
    assert 0 <= artifact.facts["max_rel_error"] < 1e-5


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "gives two answers to one input"),
        (lambda x: x / 0.0, "gives values that are not finite"),
        (lambda x: "text", "gives no tensor"),
        (lambda x: x.view(2, -1) if x.shape[0] == 2 else x.view(2, 3, 3), "does not run on random"),
    ],
)
def test_networks_that_no_file_can_hold_are_refused(
    forward: Callable[..., object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(LilliputError, match=message):
        export_network(network(forward), tmp_path / "a.onnx")


def test_a_network_that_cannot_be_copied_says_so(tmp_path: Path) -> None:
    net = small()
    net.module.cache = net.module.head.weight * 2  # type: ignore[assignment]
    with pytest.raises(LilliputError, match=r"cannot be copied.*\n.*register it as a buffer"):
        export_network(net, tmp_path / "a.onnx")


def test_the_high_opsets_belong_to_the_second_exporter() -> None:
    net = small()
    probes, names = onnx_file.make_probes(net, net.module)
    with pytest.raises(CannotExportError, match="writes opset 20 at most"):
        onnx_file._converted(net, net.module, probes[0], names, "torchscript", 21)


def test_a_search_loop_can_afford_it(tmp_path: Path) -> None:
    """Processor time, because other tests may share the cores; the claim measures wall time."""
    net = small()
    export_network(net, tmp_path / "a.onnx")
    start = time.process_time()
    export_network(net, tmp_path / "a.onnx")
    assert time.process_time() - start < 0.3


@pytest.mark.parametrize(("layout", "said"), [("image", True), ("tensor", False)])
def test_files_fed_with_ready_inputs_tell_of_no_pictures(
    tmp_path: Path, layout: str, said: bool
) -> None:
    """Their report's code would make inputs of bytes that nobody has."""
    context = tiny_context(tmp_path)
    if layout == "tensor":
        ready = Split(np.random.default_rng(0).random((8, 3, 8, 8), np.float32))
        context = replace(context, data=Dataset("ready", validation=ready, layout=layout))
    file = Export().apply(context.original, context).the_artifact()
    assert (read_metadata(file.path).preprocessing is not None) == said
    assert ("pictures" in loading_code(file.path, file)) == said

"""The packed form: what it holds, what follows from it, and what survives a file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from lilliput.artifact import TensorSpec
from lilliput.candidate import Candidate
from lilliput.codec.container import decode, encode
from lilliput.distill.coefficients import Coefficients
from lilliput.distill.companions import Companion
from lilliput.distill.loop import Schedule, train
from lilliput.distill.losses import Truth
from lilliput.distill.sources import Examples
from lilliput.errors import LilliputError, Refused
from lilliput.export.onnx_file import export_network
from lilliput.frequency.bases import basis_of
from lilliput.frequency.form import ATTRIBUTE, PackedForm, form_of, forms
from lilliput.frequency.packing import (
    Settings,
    attach,
    kernels_of,
    packed_forms,
    shrunk_further,
)
from lilliput.frequency.transform import inverse
from lilliput.frequency.work import work_of
from lilliput.meter.cost import file_cost
from lilliput.models.store import load_saved, save_network
from lilliput.network import Network
from lilliput.prune.edits import pack_edit, replay
from lilliput.steps.pack_dct import PackDct
from lilliput.steps.quantize import Quantize
from lilliput.testing.tiny import tiny_context


def small() -> nn.Module:
    """5×5 and 3×3 kernels, a batch norm, a pointwise and a depthwise layer, a flattened map."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 8, 1),
        nn.ReLU(),
        nn.Conv2d(8, 10, 3, stride=2),
        nn.Flatten(),
        nn.Linear(10, 7),
        nn.Linear(7, 4),
    ).eval()


SPEC = (TensorSpec(name="x", shape=(None, 3, 8, 8)),)


def network(module=None, spec=SPEC) -> Network:
    module = module or small()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-1, 1)
            part.running_var.uniform_(0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
    return Network(module, spec, "small")


def lenet_like() -> Network:
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 5), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.Flatten(), nn.Linear(48, 6)
    )
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, 1, 12, 12)),), "lenet like")


def packed(given: Network, threshold=0.0, **settings) -> Network:
    layers = kernels_of(given, settings.get("basis", "dct"))
    thresholds = {layer.path: threshold for layer in layers}
    made = packed_forms(layers, Settings(**settings), thresholds, np.random.default_rng(0))
    given = given.copy()
    for path, form in made.items():
        attach(given.module.get_submodule(path), form)
    edits = tuple(pack_edit(path, form) for path, form in made.items())
    return replace(given, edits=edits)


def outputs(given: Network):
    with torch.no_grad():
        return given.module(*given.example(4))


@pytest.mark.parametrize("basis", ["dct", "svd", "identity"])
@pytest.mark.parametrize(
    "centres", [{}, {"centres": 5}, {"centres": 5, "tables": "shared"}], ids=str
)
def test_a_fine_grid_without_a_threshold_changes_nothing(basis, centres):
    given = lenet_like()
    made = packed(given, basis=basis, step=1 / 30, **centres)
    assert set(forms(made.module)) == {"0", "2", "4"}
    for path, form in forms(made.module).items():
        old, new = (n.module.get_submodule(path).weight for n in (given, made))
        pixels = form.sides[0] * form.sides[1]
        farthest = (old - new).reshape(-1, pixels).square().sum(1).sqrt().max()
        assert farthest <= pixels**0.5 * float(form.unit) / 2 + 1e-6


@pytest.mark.parametrize("basis", ["dct", "identity"])
@pytest.mark.parametrize(("centres", "made_of"), [(0, 0), (1, 0), (5, 5)])
def test_whole_coefficients_leave_the_network_as_it_was(basis, centres, made_of):
    """Whatever rounding does to a centre is in the residuals."""
    layer = nn.Conv2d(3, 8, 3)
    whole = np.random.default_rng(0).integers(-20, 21, (8, 3, 9))
    pictures = basis_of(basis, np.zeros((1, 3, 3)))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(0.01 * inverse(whole, pictures, (3, 3))))
    given = Network(layer.eval(), (TensorSpec(name="x", shape=(None, 3, 8, 8)),))
    step = 0.01 / float(layer.weight.detach().double().numpy().std())
    (layered,) = kernels_of(given, basis)
    settings = Settings(basis, centres=centres, step=step)
    form = packed_forms([layered], settings, {"": 0.0}, np.random.default_rng(0))[""]
    assert len(form.centres) == made_of
    steps = (form.residuals.float() + form.common()).permute(1, 2, 0)
    np.testing.assert_array_equal(steps.numpy(), whole)
    before = outputs(given)
    attach(layer, form)
    torch.testing.assert_close(outputs(given), before, atol=1e-5, rtol=0)


def test_squared_error_in_frequency_is_that_in_space():
    given = lenet_like()
    made = packed(given, threshold=0.8)
    for path, form in forms(made.module).items():
        layer, old = made.module.get_submodule(path), given.module.get_submodule(path)
        spatial = (layer.weight - old.weight).square().sum()
        steps = form.residuals_of(old.weight) + form.common()
        whole = form.residuals.float() + form.common()
        frequency = ((steps - whole) * form.unit).square().sum()
        torch.testing.assert_close(spatial, frequency, rtol=1e-4, atol=1e-6)


def test_layers_of_two_sizes_share_one_table_and_linear_ones_have_their_own():
    made = forms(packed(lenet_like(), centres=4, tables="shared").module)
    assert made["0"].centres is made["2"].centres
    assert made["4"].centres is not made["0"].centres
    assert made["0"].centres.shape == (4, 25)
    assert made["2"].places.tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    assert made["4"].sides == (2, 2)
    assert all(not form.centres[0].any() for form in made.values())
    layered = forms(packed(lenet_like(), centres=4, tables="layer").module)
    assert layered["2"].centres.shape == (4, 9)


def test_a_layer_of_larger_weights_gets_no_more_of_the_shared_centres():
    given = lenet_like()
    louder = given.copy()
    with torch.no_grad():
        louder.module[2].weight.mul_(64)
    ours, theirs = (
        forms(packed(n, threshold=0.5, centres=5, tables="shared").module) for n in (given, louder)
    )
    for path, form in ours.items():
        assert torch.equal(form.centres, theirs[path].centres)
        assert torch.equal(form.ids, theirs[path].ids)
        assert torch.equal(form.residuals, theirs[path].residuals)
        assert theirs[path].unit == form.unit * (64 if path == "2" else 1)


def test_kernels_of_one_pixel_share_nothing():
    made = forms(packed(network(), centres=5, tables="shared").module)
    assert made["0"].centres is made["6"].centres
    for path in ("4", "8", "9"):
        assert made[path].kind == "identity"
        assert len(made[path].centres) == made[path].ids.numel() == 0


def test_outputs_by_shared_centres_are_those_by_the_sum():
    """y from the common responses, added by centre, and from the residuals alone."""
    form = forms(packed(lenet_like(), centres=4, tables="layer").module)["2"]
    assert len(form.ids.unique()) > 2
    x = torch.randn(2, 8, 9, 9)
    pictures = form.basis.reshape(9, 1, 3, 3)
    responses = torch.nn.functional.conv2d(x.flatten(0, 1)[:, None], pictures)
    responses = responses.reshape(2, 8, 9, 7, 7) * form.unit
    common = torch.einsum("kf,ncfhw->nckhw", form.centres.float(), responses)
    chosen = torch.stack([common[:, c, form.ids[:, c].long()] for c in range(8)]).sum(0)
    own = torch.einsum("foc,ncfhw->nohw", form.residuals.float(), responses)
    plain = torch.nn.functional.conv2d(x, form.expanded(torch.Size((12, 8, 3, 3))))
    torch.testing.assert_close(chosen + own, plain, atol=1e-5, rtol=1e-5)


def test_kernels_are_found_where_a_map_was_flattened_and_tied_weights_left_alone():
    given = lenet_like()
    assert [(k.path, k.values.shape) for k in kernels_of(given, "dct")] == [
        ("0", (8, 1, 5, 5)),
        ("2", (12, 8, 3, 3)),
        ("4", (6, 12, 2, 2)),
    ]
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    module[1].weight = module[0].weight
    tied = Network(module, (TensorSpec(name="x", shape=(None, 4)),))
    assert kernels_of(tied, "dct") == []


EXPORTS = {
    "dct": {},
    "centres": {"centres": 3, "tables": "layer"},
    "shared": {"centres": 5, "tables": "shared"},
    "learned": {"basis": "svd", "centres": 3},
    "pixels": {"basis": "identity"},
    "all zero": {"threshold": 50.0},
    "dense": {"step": 0.05},
}


@pytest.mark.parametrize("name", EXPORTS)
def test_the_file_holds_integers_unfolds_and_comes_back_bit_for_bit(name, tmp_path):
    made = packed(network(), **EXPORTS[name])
    path = export_network(made, tmp_path / "packed.onnx").path
    model = onnx.load(path)
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for layer, form in forms(made.module).items():
        assert f"{layer}.weight" not in kept
        whole = form.residuals.numpy()
        np.testing.assert_array_equal(kept[f"{layer}.q"].reshape(whole.shape), whole)
        if form.ids.numel():
            np.testing.assert_array_equal(kept[f"{layer}.ids"], form.ids.numpy())
    content = path.read_bytes()
    assert decode(encode(content)[0], max_bytes=len(content)) == content
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (ours,) = session.run(None, {"x": made.example(4)[0].numpy()})
    np.testing.assert_allclose(ours, outputs(made).numpy(), atol=1e-5, rtol=1e-4)


def test_the_runtime_unfolds_once_when_it_loads(tmp_path):
    made = packed(network(), centres=3)
    path = export_network(made, tmp_path / "packed.onnx").path
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert left <= {"Conv", "FusedConv", "Relu", "Flatten", "Gemm", "Reshape"}


def test_batch_norms_are_folded_before_or_after_with_the_same_answers(tmp_path):
    """The file folds the norm into factors of the packed weight; torch runs it as a layer."""
    made = packed(network(), step=0.5, threshold=0.5)
    model = onnx.load(export_network(made, tmp_path / "packed.onnx").path)
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    units = {t.name: t.dims for t in model.graph.initializer if t.name.endswith(".unit")}
    assert list(units["0.unit"]) == [6, 1, 1, 1]
    assert list(units["6.unit"]) == []
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = 50 * made.example(16)[0]
    (folded,) = session.run(None, {"x": x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(folded, made.module(x).numpy(), atol=1e-5, rtol=1e-5)


def test_a_norm_may_be_folded_before_packing_where_its_factors_keep_the_grid():
    """Nothing is lost then: a layer has one step, and the factors are whole numbers of it."""
    layer, norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
    whole = np.random.default_rng(0).integers(-20, 21, (8, 3, 9))
    with torch.no_grad():
        layer.weight.copy_(
            torch.from_numpy(0.01 * inverse(whole, basis_of("dct", np.zeros((1, 3, 3))), (3, 3)))
        )
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.bias.normal_()
        factors = torch.tensor([1.0, -1, 2, -2, 3, -3, 4, 5])
        norm.weight.copy_(factors * (norm.running_var + norm.eps).sqrt())
    behind = nn.Sequential(layer, norm).eval()
    before = nn.Sequential(nn.utils.fuse_conv_bn_eval(layer, norm)).eval()
    answers = []
    for module in (behind, before):
        step = 0.01 / float(module[0].weight.detach().double().numpy().std())
        given = Network(module, (TensorSpec(name="x", shape=(None, 3, 8, 8)),))
        answers.append(outputs(packed(given, step=step)))
        torch.testing.assert_close(answers[-1], outputs(given), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(*answers, atol=1e-5, rtol=1e-5)


def test_one_kernel_and_negative_values_only(tmp_path):
    module = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Conv2d(1, 2, 3)).eval()
    with torch.no_grad():
        for layer in module:
            layer.weight.copy_(-layer.weight.abs() - 0.1)
    given = Network(module, (TensorSpec(name="x", shape=(None, 1, 8, 8)),))
    made = packed(given, basis="identity", centres=3)
    assert (forms(made.module)["1"].residuals < 0).all()
    path = export_network(made, tmp_path / "one.onnx").path
    assert decode(encode(path.read_bytes())[0], max_bytes=10**6) == path.read_bytes()


def away_from_zero(sign=None) -> Network:
    given = lenet_like()
    with torch.no_grad():
        for layer in (given.module[n] for n in (0, 2, 4)):
            size = layer.weight.abs() + layer.weight.abs().max()
            layer.weight.copy_(size * (layer.weight.sign() if sign is None else sign))
    return given


def one_kernel() -> Network:
    spec = (TensorSpec(name="x", shape=(None, 1, 40, 40)),)
    return Network(nn.Sequential(nn.Conv2d(1, 1, 17)).eval(), spec)


def pointwise() -> Network:
    return Network(nn.Sequential(nn.Conv2d(3, 100, 1)).eval(), SPEC)


ARCHIVES = {
    "no residual": (lenet_like, {"threshold": 50.0, "centres": 3}, lambda q: not q.any()),
    "all residuals": (away_from_zero, {"basis": "identity"}, lambda q: q.all()),
    "negative": (lambda: away_from_zero(-1), {"basis": "identity"}, lambda q: (q < 0).all()),
    "one kernel": (one_kernel, {}, lambda q: q.shape == (289, 1, 1)),
    "one pixel": (pointwise, {"threshold": 0.5}, lambda q: len(q) == 1),
    "three centres": (lenet_like, {"threshold": 0.5, "centres": 3}, lambda q: q.any()),
    "seven centres": (
        lenet_like,
        {"threshold": 0.5, "centres": 7, "tables": "shared"},
        lambda q: q.any(),
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_integers_assignments_and_centres_come_back_from_an_archive(name, tmp_path):
    given, settings, as_named = ARCHIVES[name]
    made = packed(given(), **settings)
    content = export_network(made, tmp_path / "packed.onnx").path.read_bytes()
    again = onnx.load_from_string(bytes(decode(encode(content)[0])))
    kept = {t.name: onnx.numpy_helper.to_array(t) for t in again.graph.initializer}
    tables = [value for found, value in kept.items() if found.startswith("centres")]
    for layer, form in forms(made.module).items():
        whole = form.residuals.numpy()
        assert as_named(whole)
        assert np.array_equal(kept[f"{layer}.q"].reshape(whole.shape), whole)
        assert kept[f"{layer}.q"].dtype == np.int8
        if form.ids.numel():
            assert np.array_equal(kept[f"{layer}.ids"], form.ids.numpy())
            assert any(np.array_equal(table, form.centres.numpy()) for table in tables)
    wanted = settings.get("centres", 0)
    assert max((len(f.centres) for f in forms(made.module).values()), default=0) == wanted


def test_a_weight_that_was_changed_afterwards_is_written_as_it_is(tmp_path):
    made = packed(network())
    with torch.no_grad():
        made.module[0].weight.add_(0.1)
    assert form_of(made.module[0]) is None
    model = onnx.load(export_network(made, tmp_path / "changed.onnx").path)
    names = {t.name for t in model.graph.initializer}
    assert "0.weight" in names
    assert "0.q" not in names


def test_a_saved_network_comes_back_with_its_forms(tmp_path):
    made = packed(network(), centres=3, tables="shared", basis="svd")
    again = load_saved(save_network(made, tmp_path / "n.safetensors"), small())
    assert torch.equal(outputs(again), outputs(made))
    ours, theirs = (export_network(n, tmp_path / "n.onnx").path.read_bytes() for n in (made, again))
    assert ours == theirs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "99"}, "no module '99'"),
        ({"basis": "wavelet"}, "malformed form of '0'"),
        ({"kernels": [6, 4]}, "malformed form of '0'"),
        ({"sides": 5}, "malformed form"),
        ({"centres": [-1, 2]}, "malformed form"),
        ({"centres": [10**9, 25]}, "malformed form of '0'"),
    ],
)
def test_damaged_edits_are_refused(change, message):
    edit = dict(packed(network()).edits[0]) | change
    with pytest.raises(LilliputError, match=message):
        replay(small(), [edit])


def test_further_shrinking_brings_nothing_back():
    form = PackedForm("dct", (2, 3), (3, 3))
    form.residuals[0, 0, 0], form.residuals[1, 0, 0] = 5, 1
    steps = torch.full((9, 2, 3), 3.4)
    shrunk_further(form, steps, 1.0, "soft")
    assert form.residuals.count_nonzero() == 2
    assert form.residuals[0, 0, 0] == 2
    shrunk_further(form, steps, 4.0, "hard")
    assert form.live == (0, 0)


def test_the_step_keeps_support_ids_and_grid_and_a_later_training_does_too(tmp_path):
    context = tiny_context(tmp_path)
    given = context.original.the_network()
    step = PackDct(rounds=2, epochs=2, centres=3, threshold=0.8, batch_size=32, learning_rate=0.05)
    start = PackDct(**(step.model_dump() | {"epochs": 0})).apply(
        Candidate("x", network=given), context
    )
    made = step.apply(Candidate("x", network=given), context).the_network()
    before = forms(start.the_network().module)
    for path, form in forms(made.module).items():
        assert torch.equal(form.ids, before[path].ids)
        assert torch.equal(form.centres, before[path].centres)
    assert any(
        not torch.equal(form.residuals, before[path].residuals)
        for path, form in forms(made.module).items()
    )
    assert made.held["stem.weight"] == "fixed"
    from lilliput.steps.finetune import Finetune

    later = Finetune(epochs=1, batch_size=32).apply(Candidate("y", network=made), context)
    module = later.the_network().module
    assert set(forms(module)) == set(forms(made.module))
    assert not torch.equal(module.classify.bias, made.module.classify.bias)


def test_a_coefficient_that_lives_gets_the_transform_of_the_weights_gradient():
    made = packed(lenet_like(), threshold=0.8)
    student = made.copy().module
    companion = Coefficients(tuple(forms(made.module)))
    companion.begin(student)
    for module in (made.module, student):
        module(*made.example(4)).square().sum().backward()
    for path, form in forms(made.module).items():
        gradient = made.module.get_submodule(path).weight.grad
        transformed = form.basis @ gradient.reshape(-1, len(form.basis)).t()
        live = form.residuals != 0
        expected = transformed.reshape(live.shape) * live
        found = student.get_submodule(path).parametrizations.weight.original.grad
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class Watching(Companion):
    """Looks after each step at the residuals that the student's weights have."""

    def __init__(self, path):
        self.path, self.seen = path, []

    def begin(self, student):
        self.layer = student.get_submodule(self.path)

    def stepped(self, share):
        form = getattr(self.layer, ATTRIBUTE)
        self.seen.append(form.residuals_of(self.layer.weight.detach()))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_zeros_and_the_grid_hold_after_every_step(tmp_path, optimizer):
    context = tiny_context(tmp_path)
    made = packed(context.original.the_network(), threshold=0.8, centres=3)
    path = "block1.conv1"
    before = forms(made.module)[path].residuals
    watching = Watching(path)
    trained = train(
        made,
        [Truth(context.task)],
        Examples(context.data, context.task, made.preprocessing, 32),
        Schedule(2, 0.05, optimizer, weight_decay=0.1),
        context,
        key="k",
        companions=[Coefficients(tuple(forms(made.module))), watching],
    )
    assert len(watching.seen) == 6
    for steps in watching.seen:
        torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
        assert not steps.round()[before == 0].any()
    after = forms(trained.module)[path].residuals
    assert torch.equal(after.float(), watching.seen[-1].round())
    assert not torch.equal(after, before)
    assert trained.module.state_dict().keys() == made.module.state_dict().keys()


def test_statistics_of_norms_are_measured_anew(tmp_path):
    context = tiny_context(tmp_path)
    kept, fresh = (
        PackDct(epochs=0, bn_images=images).apply(context.original, context).the_network().module
        for images in (0, 64)
    )
    assert not torch.equal(kept.bn.running_mean, fresh.bn.running_mean)
    assert torch.equal(kept.stem.weight, fresh.stem.weight)


def test_an_interrupted_training_ends_with_the_same_integers(tmp_path):
    whole = tiny_context(tmp_path / "a")
    step = PackDct(rounds=2, epochs=1, threshold=0.5, batch_size=32)
    given = Candidate("x", network=whole.original.the_network())
    expected = forms(step.apply(given, whole).the_network().module)
    folder = tmp_path / "b"
    folder.mkdir()
    again = tiny_context(folder, checkpoints=folder)
    for _ in range(2):  # the second time every training is found finished
        found = forms(step.apply(given, again).the_network().module)
        assert all(torch.equal(found[p].residuals, expected[p].residuals) for p in expected)


def test_what_cannot_be_packed_is_refused(tmp_path):
    context = tiny_context(tmp_path)
    plain = Network(
        nn.Sequential(nn.ReLU()), (TensorSpec(name="x", shape=(None, 3, 8, 8)),), "relu"
    )
    with pytest.raises(Refused, match="finds no convolution and no linear layer in 'relu'"):
        PackDct().requires(Candidate("r", network=plain), context)
    with pytest.raises(Refused, match=r"no layer of 'tiny' matches 'stm'(.|\n)*'stem'"):
        PackDct(thresholds={"stm": 1.0}).requires(context.original, context)
    assert ATTRIBUTE not in dict(context.original.the_network().module.stem.named_children())


def test_the_counter_sees_positions_maps_and_what_lives():
    made = packed(network(), threshold=0.5, centres=3, tables="layer")
    found = {work.name: work for work in work_of(made)}
    assert found["0"].positions == 16
    assert found["3"].maps == 6
    assert found["3"].inputs == 1
    assert found["4"].transform == "none"
    assert found["6"].residuals == int(forms(made.module)["6"].residuals.count_nonzero())
    spatial = 16 * 3 * 6 * 25 + 16 * 6 * 9 + 16 * 48 + 80 * 9 + 70 + 28
    assert sum(work.spatial for work in found.values()) == spatial


def test_what_is_computed_once_is_no_work_and_such_a_file_is_not_quantized_again(tmp_path):
    context = tiny_context(tmp_path)
    plain, small_file = (
        export_network(n, tmp_path / f"{name}.onnx")
        for name, n in (("plain", network()), ("packed", packed(network(), centres=3)))
    )
    costs = [file_cost(artifact.path) for artifact in (plain, small_file)]
    assert costs[0].macs == costs[1].macs
    assert costs[0].widths == costs[1].widths
    with pytest.raises(Refused, match=r"'packed.onnx' unfold from integers(.|\n)*leave out"):
        Quantize().requires(Candidate("q", artifact=small_file), context)
    Quantize().requires(Candidate("q", artifact=plain), context)


def test_a_step_too_small_for_eight_bits_is_refused_with_one_that_is_not() -> None:
    with pytest.raises(
        Refused, match=r"step of 0.005 .* layer '\S+': its largest .*\n.*`step: 0.0"
    ):
        packed(network(), step=0.005)


def test_with_a_centre_for_each_kernel_nothing_is_left(monkeypatch):
    """Identity 9 of the specification, on a packed layer. One more centre is zero for good."""
    monkeypatch.setattr("lilliput.frequency.packing.FEW_KERNELS", 0.5)
    form = forms(packed(lenet_like(), centres=9, tables="layer").module)["0"]
    assert len(form.centres) == 9
    assert len(form.ids.unique()) == form.ids.numel() == 8
    assert not form.residuals.any()


@pytest.mark.parametrize("values", [1 / 9, 0.1], ids=["blur", "tenths"])
def test_a_layer_of_one_value_keeps_it(values):
    blur = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False)
    nn.init.constant_(blur.weight, values)
    given = Network(nn.Sequential(blur, nn.Conv2d(3, 8, 3)).eval(), SPEC)
    kept = packed(given, centres=0, threshold=0, step=0.05).module[0].weight
    torch.testing.assert_close(kept, blur.weight, atol=0.03 * values, rtol=0)


def test_what_no_step_holds_is_to_be_left_as_it_is(tmp_path):
    nearly = nn.Conv2d(3, 8, 3)
    with torch.no_grad():
        nearly.weight.mul_(1e-3).add_(1)
    given = Network(nn.Sequential(nearly).eval(), SPEC)
    with pytest.raises(Refused, match=r"'0'.*\n.*leave it as it is: `exclude: \[0\]`"):
        packed(given, centres=0)

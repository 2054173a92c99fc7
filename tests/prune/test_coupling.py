"""Channels are coupled index by index; what no rule can know is proven or frozen."""

from __future__ import annotations

import copy
import time

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lilliput.artifact import TensorSpec
from lilliput.errors import LilliputError
from lilliput.network import Network
from lilliput.prune import analyse, cut, trial
from lilliput.prune.components import components
from lilliput.prune.slicing import slice_module
from lilliput.testing.zoo import shake, zoo


def network_of(module: nn.Module, *shape: int, name: str = "net") -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shake(module)
    return Network(module.eval(), (TensorSpec(name="x", shape=(None, *shape)),), name=name)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.pad = (outputs - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(x + y)


class ResNet20(nn.Module):
    """CIFAR ResNet-20 with zero-padded (option A) shortcuts."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = [16, 16, 32, 64]
        for stage in (1, 2, 3):
            blocks = [
                Block(
                    widths[stage - 1] if n == 0 else widths[stage],
                    widths[stage],
                    2 if n == 0 and stage > 1 else 1,
                )
                for n in range(3)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        x = F.avg_pool2d(x, x.size(3))
        return self.linear(x.view(x.size(0), -1))


@pytest.fixture(scope="module")
def resnet20() -> Network:
    return network_of(ResNet20(), 3, 32, 32, name="resnet20")


def indices(analysis, number, tensor, dim=0):
    slot = next(s for s in analysis.slots if (s.tensor, s.dim) == (tensor, dim))
    return np.flatnonzero(slot.classes == number).tolist()


def test_option_a_ties_channel_k_to_k_plus_8_and_k_plus_24(resnet20):
    analysis = analyse(resnet20)
    stream = next(group for group in analysis.prunable if group.name == "conv1")
    assert stream.width == 16
    for k, number in enumerate(stream.classes):
        assert indices(analysis, number, "conv1.weight") == [k]
        assert indices(analysis, number, "layer2.2.conv2.weight") == [k + 8]
        assert indices(analysis, number, "layer3.2.conv2.weight") == [k + 24]
        assert indices(analysis, number, "linear.weight", dim=1) == [k + 24]
    padded = next(group for group in analysis.frozen if group.name == "layer2.0.conv2")
    assert padded.width == 16
    assert padded.reasons == (
        "layer2.0 (constant_pad_nd): the code pads here by a fixed number of channels",
    )


def test_equal_index_coupling_would_be_wrong_where_ours_is_exact():
    network = zoo()["zero_padded_shortcut"]()
    analysis = analyse(network)
    stream = analysis.prunable[0]
    exact = cut(network, analysis, stream.classes[1:2])

    # the same channel of the first stage, coupled by equal index: shapes are just as right
    naive = copy.deepcopy(network.module)
    wrong = [
        (slot.tensor, slot.dim, slot.size, (1,))
        for slot, _ in analysis.removed(stream.classes[1:2])
    ]
    slice_module(naive, wrong)
    zeroed = copy.deepcopy(network.module)
    state = zeroed.state_dict(keep_vars=True)
    with torch.no_grad():
        for slot, gone in analysis.removed(stream.classes[1:2]):
            if "running" not in slot.tensor:
                state[slot.tensor].index_fill_(slot.dim, torch.from_numpy(gone), 0.0)
        x = network.example(3)[0]
        reference = zeroed(x)
        assert exact.module(x).shape == naive(x).shape
        assert torch.allclose(exact.module(x), reference, atol=1e-5)
        assert (naive(x) - reference).abs().max() > 1e-2 * reference.abs().max()


def test_multiply_adds_of_resnet20(resnet20):
    assert analyse(resnet20).macs() == 40_551_040


def test_analysis_and_cut_are_fast(resnet20):
    analyse(resnet20)
    began = time.process_time()
    analysis = analyse(resnet20)
    assert time.process_time() - began < 1.0  # 0.15 s on a quiet machine
    classes = [number for group in analysis.prunable for number in group.classes[::2]]
    began = time.process_time()
    cut(resnet20, analysis, classes, verify=False)
    assert time.process_time() - began < 0.6


class Deep(nn.Module):
    def __init__(self, layers: int):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
            )
            for _ in range(layers // 2)
        )
        self.last = nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + 0.1 * block(x)
        return self.last(x.mean((2, 3)))


def test_three_hundred_layers_are_analysed_in_seconds():  # users-ask 19
    began = time.process_time()
    analysis = analyse(network_of(Deep(300), 3, 8, 8))
    assert time.process_time() - began < 20
    assert len(analysis.prunable) == 151


class Between(nn.Module):
    """Two convolutions with something in between."""

    def __init__(self, function, after: int = 8, last: nn.Module | None = None):
        super().__init__()
        self.one, self.function = nn.Conv2d(3, 8, 3, padding=1), function
        self.two = nn.Conv2d(after, 4, 1) if last is None else last

    def forward(self, x):
        return self.two(self.function(self.one(x)))


CUT = {
    "mirror": lambda x: x.flip(1).flip(3),
    "flip": lambda x: x.flip(1),
    "stack_and_add": lambda x: torch.stack([x, x.relu()], 1).sum(1),
    "repeat_space": lambda x: x.repeat(1, 1, 2, 1),
    "roll_space": lambda x: x.roll(1, dims=3),
    "grid_sample": lambda x: F.grid_sample(
        x,
        F.affine_grid(torch.eye(2, 3).repeat(len(x), 1, 1), [len(x), 1, 4, 4], align_corners=True),
        align_corners=True,
    ),
    "interpolated": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "replication_pad": lambda x: F.pad(x, (1, 1, 1, 1), mode="replicate"),
    "space_pad": lambda x: F.pad(x, (1, 2)),
    "unfold_fold": lambda x: F.fold(F.unfold(x, 2, stride=2), x.shape[-2:], 2, stride=2),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.5),
    "where": lambda x: torch.where(x > 0, x, x.tanh()),
    "half_and_back": lambda x: x.to(torch.float64).float(),
    "log_softmax_space": lambda x: F.log_softmax(x.flatten(2), -1).unflatten(2, (8, 8)),
    "matmul_space": lambda x: x @ torch.ones(8, 8),
    "einsum_space": lambda x: torch.einsum("bchw,bchv->bchwv", x, x).sum(-1),
    "lp_pool": lambda x: F.lp_pool2d(x, 2, 2),
    "view_of_space": lambda x: x.view(x.shape[0], x.shape[1], 4, 16),
    "squeeze": lambda x: F.adaptive_avg_pool2d(x, 1).squeeze()[:, :, None, None],
    "constant_of_shape": lambda x: x + torch.ones(1, x.shape[1], 1, 1),
    "in_place": lambda x: x.mul_(2).add_(1).clamp_(-1, 1),
    "data": lambda x: x.detach().data,
    "transposed_matmul": lambda x: (
        torch.bmm(x.flatten(2).mT, x.flatten(2)).unsqueeze(1).expand(-1, 8, -1, -1)
    ),
    "std_space": lambda x: x.std((2, 3), keepdim=True) * x,
}
"""Functions that leave all eight channels free to go."""

FROZEN = {
    "roll": (lambda x: x.roll(1, dims=1), "it depends on the numbers of its indices"),
    "softmax": (lambda x: x.softmax(1), "it mixes all channels"),
    "cumsum": (lambda x: x.cumsum(1), "it mixes all channels"),
    "sort": (lambda x: x.sort(1).values, "it mixes all channels"),
    "normalize": (lambda x: F.normalize(x, dim=1), "it reduces over all channels"),
    "local_response_norm": (lambda x: F.local_response_norm(x, 3), "it slides along it"),
    "rms_norm": (lambda x: F.rms_norm(x, x.shape[1:]), "over all channels"),
    "layer_norm": (lambda x: F.layer_norm(x, x.shape[1:]), "over all channels"),
    "index_select": (lambda x: x.index_select(1, torch.arange(8)), "by their numbers"),
    "take": (lambda x: x[:, [3, 1, 2, 0, 4, 5, 6, 7]], "by their numbers"),
    "mask_of_channels": (lambda x: x[:, torch.ones(8).bool()], "by their numbers"),
    "cross": (lambda x: torch.cdist(x.flatten(2), x.flatten(2))[..., None], "no rule"),
    "constant": (lambda x: x * torch.arange(1.0, 9.0).view(1, 8, 1, 1), "a constant"),
    "fixed_expand": (lambda x: x + torch.ones(1, 1, 1, 1).expand(-1, 8, -1, -1), "a constant"),
    "cosine": (lambda x: x * F.cosine_similarity(x, x, dim=1)[:, None], "reduces over all"),
    "merged_twice": (
        lambda x: torch.bmm(x.flatten(2), x.flatten(2).mT).flatten(1)[:, :8, None, None],
        "two dimensions of channels are merged",
    ),
    "conv_over_channels": (
        lambda x: F.conv1d(x.mean((2, 3))[:, None], torch.ones(1, 1, 3), padding=1)[
            :, 0, :, None, None
        ],
        "a convolution runs along it",
    ),
}


@pytest.mark.parametrize("name", CUT)
def test_functions_that_channels_pass_through(name):
    network = network_of(Between(CUT[name]), 3, 8, 8)
    analysis = analyse(network)
    first = next(group for group in analysis.groups if group.name == "one")
    if name == "transposed_matmul":
        assert len(first.classes) == 8
        assert first.members[-1].tensor == "one.bias"
    else:
        assert len(first.classes) == 8, first
        assert {member.tensor for member in first.members} == {
            "one.weight",
            "one.bias",
            "two.weight",
        }
    cut(network, analysis, first.classes[::2])


@pytest.mark.parametrize("name", FROZEN)
def test_functions_that_hold_on_to_channels_say_so(name):
    function, reason = FROZEN[name]
    analysis = analyse(network_of(Between(function), 3, 8, 8))
    first = next(group for group in analysis.groups if group.name == "one")
    assert not first.classes
    assert reason in " ".join(first.reasons)


def test_a_plain_tensor_attribute_freezes_what_it_meets():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
            self.scale = torch.rand(8, 1, 1)

        def forward(self, x):
            return self.two(self.one(x) * self.scale)

    analysis = analyse(network_of(Scaled(), 3, 4, 4))
    group = next(group for group in analysis.groups if group.name == "one")
    assert group.reasons == ("the network itself (mul): it meets a constant tensor of the code",)


def test_what_never_runs_is_listed_and_left_alone():
    class Spare(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.spare = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Linear(5, 6)

        def forward(self, x):
            return self.two(self.one(x))

    network = network_of(Spare(), 3, 4, 4)
    analysis = analyse(network)
    assert analysis.unused == ("spare.weight", "spare.bias")
    assert analysis.params() == network.params
    smaller = cut(network, analysis, analysis.prunable[0].classes[:3])
    assert smaller.module.spare.weight.shape == (6, 5)


def test_work_done_outside_of_torch_is_found_by_trial():
    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            return self.two(torch.from_numpy(self.one(x).numpy().copy()))

    analysis = analyse(network_of(Outside(), 3, 4, 4))
    assert not analysis.prunable
    reasons = " ".join(reason for group in analysis.frozen for reason in group.reasons)
    assert "trial cut does not run" in reasons
    assert "meets a constant tensor" in reasons


class Pair(nn.Module):
    """Two branches of which either may shrink, but not both."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1)
        self.after, self.other = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        one, two = self.one(x), self.two(x)
        if one.shape[1] < 8 and two.shape[1] < 8:
            raise RuntimeError("one of us has to stay")
        return self.after(one) + self.other(two)


def test_groups_that_only_fail_together_are_not_both_free():
    network = network_of(Pair(), 3, 4, 4)
    analysis = analyse(network)
    assert [group.name for group in analysis.prunable] == ["one"]
    cut(network, analysis, analysis.prunable[0].classes[:5])


def test_slices_of_single_channels():
    class Slices(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 2, 1)
            self.one, self.two = nn.Conv2d(1, 4, 1), nn.Conv2d(1, 4, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.one(x[:, :1]) + self.two(x[:, 1:])

    assert not analyse(network_of(Slices(), 3, 4, 4)).prunable


def test_rounding_is_told_from_error_by_a_second_run_in_double(monkeypatch):
    wide = nn.Sequential(nn.Linear(9, 700), nn.Tanh(), nn.Linear(700, 900), nn.Tanh())
    network = network_of(nn.Sequential(wide, nn.Linear(900, 3)), 9)
    analysis = analyse(network)
    classes = [number for group in analysis.prunable for number in group.classes[::3]]
    bench = trial.Bench(network, analysis)
    single = bench.error(classes)
    assert 0 < single < 1e-5
    monkeypatch.setattr(trial, "TOLERANCE", single / 1e3)
    assert bench.error(classes) < 1e-12


def test_differences_that_cannot_be_compared_are_infinite():
    one = torch.ones(2)
    assert trial.difference([], []) == float("inf")
    assert trial.difference([one], [one, one]) == float("inf")
    assert trial.difference([one], [torch.ones(3)]) == float("inf")
    assert trial.difference([one * torch.nan], [one]) == float("inf")
    assert trial.difference([one], [one * 4]) == 0.75


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_an_exported_program_is_analysed_and_cut():
    network = zoo()["depthwise_separable"]()
    program = torch.export.export(network.module, network.example(2))
    exported = Network(
        program.module(), (TensorSpec(name="x", shape=(2, 3, 8, 8)),), name="exported"
    )
    analysis = analyse(exported)
    assert sum(len(g.classes) for g in analysis.prunable) == 20
    smaller = cut(exported, analysis, [n for g in analysis.prunable for n in g.classes[::2]])
    assert smaller.module.state_dict()["4.0.weight"].shape == (6, 4, 1, 1)


def test_a_network_that_does_not_run_is_told_with_its_shapes():
    network = network_of(nn.Conv2d(4, 2, 1), 3, 4, 4, name="lopsided")
    with pytest.raises(LilliputError, match=r"lopsided: the network does not run on .*2, 3, 4, 4"):
        analyse(network)


def test_training_flags_and_hooks_are_left_as_they_were():
    network = zoo()["multihead_attention"]()
    network.module.train()
    network.module.wide.eval()
    flags = {name: part.training for name, part in network.module.named_modules()}
    analyse(network)
    assert {name: part.training for name, part in network.module.named_modules()} == flags
    assert torch.backends.mha.get_fastpath_enabled()
    assert not torch.nn.modules.module._global_forward_hooks


def test_groups_print_their_layers_and_reasons():
    analysis = analyse(zoo()["group_norm"]())
    text = str(analysis)
    assert text.startswith("1 groups can be cut, 3 are frozen")
    assert "3: 6 of 6 channels can go\n    in 3, 5.linear" in text
    assert "0: 0 of 8 channels can go" in text
    assert "frozen, 1 (native_group_norm): it normalises over the channels of a group" in text
    group = next(group for group in analysis.groups if group.name == "3")
    assert str(group.members[0]) == "3.weight (dim 0)"
    flat = analyse(zoo()["flatten_linear"]())
    assert str(flat.prunable[0].members[-1]) == "4.weight (dim 1, 16 indices each)"


@pytest.mark.parametrize("seed", range(5))
def test_components_agree_with_a_walk(seed):
    rng = np.random.default_rng(seed)
    ties = [(rng.integers(0, 60, 5), rng.integers(0, 60, 5)) for _ in range(8)]
    labels = np.arange(60)
    for _ in range(60):
        for one, other in ties:
            for a, b in zip(one, other, strict=True):
                labels[[a, b]] = min(labels[a], labels[b])
    assert components(60, ties).tolist() == labels.tolist()
    assert components(3, []).tolist() == [0, 1, 2]

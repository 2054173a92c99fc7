"""How channels pass through operations that compute: convolutions, products, norms, reductions."""

from __future__ import annotations

import re
from math import prod

import numpy as np
from torch import Tensor

from lilliput.network import flat_outputs
from lilliput.prune.call import RULES, Call, Rule, channel_rule, replaced, without
from lilliput.prune.labels import SPACE, Dim, Labels, LayerNote, repeat, tile


@channel_rule("convolution", "_convolution", "convolution_overrideable")
def convolution(call: Call) -> list[Labels]:
    """(N, I, ...) with weight (O, I/g, ...), transposed (I, O/g, ...) → (N, O, ...)."""
    ledger, weight = call.ledger, call.args[1]
    x, w = call.first, call.labels(weight)
    groups, transposed = int(call.arg("groups", 1)), bool(call.arg("transposed", False))
    ledger.untrack(*w[2:])
    for dim in x[2:]:
        ledger.freeze(dim, "a convolution runs along it")
    per_channel = groups > 1 and groups == call.args[0].shape[1]
    if per_channel:
        outputs = _depthwise(call, x[1], w, groups, transposed=transposed)
    elif transposed:
        ledger.reads(w[0])
        ledger.tie(x[1], w[0])
        ledger.tie_blocks(w[0], groups)
        outputs = tile(w[1], groups)
    else:
        ledger.reads(w[1])
        inputs = ledger.tie_blocks(x[1], groups)
        ledger.tie(inputs, w[1])
        ledger.tie_blocks(w[0], groups)
        outputs = w[0]
    bias = call.arg("bias")
    if bias is not None:
        ledger.tie(call.labels(bias)[0], outputs)
    positions = prod(call.args[0].shape[2:] if transposed else call.out.shape[2:])
    constant = positions * prod(weight.shape[2:])
    pointwise = prod(weight.shape[2:]) == 1
    kind = "grouped" if groups > 1 else "conv1x1" if pointwise else "conv3x3"
    kind, apart = ("depthwise", 1) if per_channel else (kind, groups)
    ledger.cost(kind, (x[0], *w[:2]), (int(call.out.shape[0]), *weight.shape[:2]), constant)
    macs, name = ledger.costs[-1].macs, call.name_of(weight)
    ledger.layers.append(LayerNote(ledger.path, kind, macs, x[1], outputs, name, apart))
    return [(x[0], outputs, *[SPACE] * (call.out.dim() - 2))]


def _depthwise(call: Call, inputs: Dim, w: Labels, groups: int, *, transposed: bool) -> Dim:
    ledger, weight = call.ledger, call.args[1]
    if not transposed:
        ledger.tie(repeat(inputs, weight.shape[0] // groups), w[0])
        ledger.untrack(w[1])
        return w[0]
    ledger.tie(inputs, w[0])
    ledger.untrack(w[1])
    return repeat(w[0], weight.shape[1])


@channel_rule("mm", "bmm", "addmm", "baddbmm")
def product(call: Call) -> list[Labels]:
    """(..., M, K) @ (..., K, N) → (..., M, N), plus a bias that broadcasts.

    Summing over K is exact under a cut: a channel whose weights are zero adds nothing.
    """
    ledger = call.ledger
    biased = call.name in ("addmm", "baddbmm")
    left, right = call.args[1:3] if biased else call.args[:2]
    a, b = call.labels(left), call.labels(right)
    ledger.tie(a[-1], b[-2])
    if call.name_of(right) is not None:
        ledger.reads(b[-2])
    if len(a) == 3:
        ledger.doubt(b[-2])
        ledger.tie(a[0], b[0])
    out = (*a[:-1], b[-1])
    if biased:
        _tie_broadcast(call, call.args[0], out)
    ledger.cost("linear", (*a, b[-1]), (*map(int, left.shape), int(right.shape[-1])), 1)
    if len(a) == 2 and not isinstance(b[-1], str):
        macs, name = ledger.costs[-1].macs, call.name_of(right)
        ledger.layers.append(LayerNote(ledger.path, "linear", macs, a[-1], b[-1], name))
    return [out]


def _tie_broadcast(call: Call, tensor: Tensor, out: Labels) -> None:
    """Tie a tensor's dimensions to those it is broadcast against, from the right."""
    shape = tuple(call.out.shape)
    labels = call.labels(tensor)
    for back in range(1, len(labels) + 1):
        if tensor.shape[-back] == shape[-back]:
            call.ledger.tie(labels[-back], out[-back])


def pointwise(call: Call) -> list[Labels]:
    """Element by element with broadcasting: equal positions hold equal channels."""
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    shape = tuple(out.shape)
    result: list[Dim] = [SPACE] * len(shape)
    known = [False] * len(shape)
    for tensor in flat_outputs([call.args, call.kwargs]):
        labels = call.labels(tensor)
        for back in range(1, len(labels) + 1):
            place = len(shape) - back
            if place < 0 or tensor.shape[-back] != shape[place]:
                continue
            label = labels[-back]
            if known[place]:
                call.ledger.tie(result[place], label)
            if not known[place] or isinstance(result[place], str):
                result[place] = label
            known[place] = True
    return [tuple(result)]


for _name in (
    "hardswish", "hardswish_", "log_sigmoid_forward", "_prelu_kernel", "prelu", "rrelu", "copy_",
    "fill_", "zero_", "normal_", "uniform_", "bernoulli_", "clone", "_to_copy", "detach", "alias",
    "lift_fresh", "dropout", "native_dropout", "zeros_like", "ones_like", "empty_like", "full_like",
    "rand_like", "randn_like", "where", "masked_fill", "masked_fill_", "contiguous", "threshold",
    "relu6", "positive", "gelu", "silu", "mish", "detach_", "to", "_conj", "lerp", "addcmul",
    "addcdiv", "softplus", "hardsigmoid", "hardtanh", "elu", "leaky_relu", "celu", "lift",
):  # fmt: skip
    RULES[_name] = pointwise


@channel_rule("div", "div_")
def quotient(call: Call) -> list[Labels]:
    """Element by element; a mask leaves what is divided by as it is, for 0 / 0 is no number."""
    divisor = call.args[1]
    known = call.name_of(divisor) if isinstance(divisor, Tensor) else None
    if known is not None:
        call.ledger.kept_by_mask.add(known)
    return pointwise(call)


@channel_rule(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm", "batch_norm", "_batch_norm_with_update", "_batch_norm_no_update",
)  # fmt: skip
def batch_norm(call: Call) -> list[Labels]:
    """(N, C, ...) with vectors of C: every channel by itself."""
    x = call.first
    for dim in x[2:]:
        call.ledger.freeze(dim, "batch norm averages along it")
    for name in ("weight", "bias", "running_mean", "running_var"):
        tensor = call.arg(name)
        if tensor is None or not tensor.dim():
            continue
        call.ledger.tie(call.labels(tensor)[0], x[1])
        known = call.name_of(tensor)
        if known is not None and name.startswith("running"):
            call.ledger.kept_by_mask.add(known)
        if known is not None and name == "weight":
            call.ledger.norm_scales.add(known)
    return [x]


@channel_rule("native_layer_norm", "_fused_rms_norm", "rms_norm", "layer_norm")
def layer_norm(call: Call) -> list[Labels]:
    """Mean and variance run over the last dimensions: a channel less changes all others."""
    x = call.first
    count = len(call.arg("normalized_shape"))
    over = x[len(x) - count :]
    for dim in over:
        call.ledger.freeze(dim, "it normalises over all channels together")
    for name in ("weight", "bias"):
        tensor = call.arg(name)
        if tensor is not None:
            for dim, ours in zip(over, call.labels(tensor), strict=True):
                call.ledger.tie(dim, ours)
    return [x]


@channel_rule("native_group_norm")
def group_norm(call: Call) -> list[Labels]:
    """Per channel when there are as many groups as channels; otherwise channels mix."""
    x, channels = call.first, int(call.arg("C"))
    alone = int(call.arg("group")) == channels
    for dim in x[2:]:
        call.ledger.freeze(dim, "group norm averages along it")
    if not alone:
        call.ledger.freeze(x[1], "it normalises over the channels of a group together")
    for name in ("weight", "bias"):
        tensor = call.arg(name)
        if tensor is not None:
            call.ledger.tie(x[1], call.labels(tensor)[0])
    return [x]


@channel_rule("_weight_norm_interface", "_weight_norm")
def weight_norm(call: Call) -> list[Labels]:
    """w = g·v/‖v‖, the norm over all but one dimension: those may not shrink.

    A zeroed v would be 0/0; g alone silences a channel, so the mask leaves v as it is.
    """
    direction, gain = call.args[:2]
    v, g, kept = call.labels(direction), call.labels(gain), int(call.arg("dim", 0))
    call.ledger.tie(v[kept], g[kept])
    for place, dim in enumerate(v):
        if place != kept and (place < 2 or len(v) < 3):
            call.ledger.freeze(dim, "weight normalisation takes the norm over it")
    name = call.name_of(direction)
    if name is not None:
        call.ledger.kept_by_mask.add(name)
    return [v]


@channel_rule(
    "mean", "sum", "amax", "amin", "var", "std", "prod", "max", "min", "logsumexp", "norm",
    "linalg_vector_norm", "any", "all", "argmax", "argmin", "median", "var_mean", "std_mean",
    "nansum", "nanmean", "count_nonzero",
)  # fmt: skip
def reduction(call: Call) -> list[Labels]:
    """The reduced dimensions vanish; channels among them may not change in number."""
    x = call.first
    dims = call.arg("dim")
    dims = [dims] if isinstance(dims, int) else dims
    over = {d % len(x) for d in dims} if dims else set(range(len(x)))
    for place in over:
        if call.args[0].shape[place] > 1:
            call.ledger.freeze(x[place], "it reduces over all channels")
    if call.arg("keepdim", default=False):
        left = "it is what a reduction left"
        return [tuple(left if place in over else d for place, d in enumerate(x))] * 2
    return [without(x, *over)] * 2


@channel_rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax", "cumsum",
      "cumprod", "logcumsumexp", "sort", "topk", "cummax", "cummin", "_softmax.out")  # fmt: skip
def along(call: Call) -> list[Labels]:
    """Indices of one dimension meet each other without parameters."""
    x, place = call.dims_of("dim")
    if not x:
        return [x, x]
    call.ledger.freeze(x[place], "it mixes all channels of the dimension")
    out = replaced(x, place, "it was mixed along by " + call.name.strip("_"))
    return [out, out]


@channel_rule("glu")
def glu(call: Call) -> list[Labels]:
    """First half times the sigmoid of the second: the j-th of both go together."""
    x, place = call.dims_of("dim")
    call.ledger.doubt(x[place])
    return [replaced(x, place, call.ledger.tie_blocks(x[place], 2))]


@channel_rule(
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_cudnn_attention", "scaled_dot_product_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)  # fmt: skip
def attention(call: Call) -> list[Labels]:
    """softmax(q·kᵀ/√d)·v with (..., L, d), (..., S, d), (..., S, e) → (..., L, e)."""
    ledger = call.ledger
    q, k, v = (call.labels(tensor) for tensor in call.args[:3])
    for dim in (q[-1], k[-1]):
        ledger.freeze(dim, "attention divides by the square root of its width")
    for dim in (q[-2], k[-2], v[-2]):
        ledger.freeze(dim, "attention mixes along it")
    for one, other, third in zip(q[:-2], k[:-2], v[:-2], strict=True):
        ledger.tie(one, other)
        ledger.tie(one, third)
    queries, keys, values = call.args[:3]
    outer, pairs = q[:-2], int(queries.shape[-2]) * int(keys.shape[-2])
    for last, width in ((SPACE, int(queries.shape[-1])), (v[-1], int(values.shape[-1]))):
        ledger.cost("matmul", (*outer, last), (*map(int, queries.shape[:-2]), width), pairs)
    return [(*q[:-1], v[-1])]


@channel_rule("embedding")
def embedding(call: Call) -> list[Labels]:
    """Rows picked by index: (V, C) and (...) → (..., C)."""
    table = call.first
    call.ledger.freeze(table[0], "its rows are picked by index")
    name = call.name_of(call.args[0])
    call.ledger.layers.append(LayerNote(call.ledger.path, "embedding", 0, table[0], table[1], name))
    return [(*call.labels(call.args[1]), table[1])]


@channel_rule("as_strided", "as_strided_")
def restrided(call: Call) -> list[Labels] | None:
    """The same sizes with other strides, as pooling to one pixel gives those of channels-last."""
    x = call.first
    if [len(x), *call.out.shape] != [call.out.dim(), *map(int, call.args[1])]:
        return None
    for dim, size in zip(x, call.out.shape, strict=True):
        if not isinstance(dim, str) and dim.size != size:
            return None
        call.ledger.doubt(dim)
    return [x]


_SPATIAL = re.compile(r"(?:pool|upsample|_pad|unpool)[a-z_]*([123])d")


def spatial(call: Call) -> list[Labels]:
    """Pooling, upsampling, mirror padding: the last k dimensions are positions."""
    found = _SPATIAL.search(call.name)
    assert found is not None
    x, count = call.first, int(found[1])
    for dim in x[len(x) - count :]:
        call.ledger.freeze(dim, "it slides along it")
    for other in call.args[1:]:  # the places that an unpooling puts its values at
        if isinstance(other, Tensor) and other.dim() == len(x):
            for one, theirs in zip(x[: len(x) - count], call.labels(other), strict=False):
                call.ledger.tie(one, theirs)
    return [(*x[: len(x) - count], *[SPACE] * count)] * 2


def rule_for(name: str, *, is_pointwise: bool) -> Rule | None:
    """The rule of an operation by its ATen name; in-place forms share that of their twin."""
    found = RULES.get(name) or RULES.get(name.rstrip("_"))
    if found is not None:
        return found
    if is_pointwise:
        return pointwise
    return spatial if _SPATIAL.search(name) else None


@channel_rule("grid_sampler_2d", "grid_sampler_3d")
def grid_sample(call: Call) -> list[Labels]:
    """Positions are moved, channels are not."""
    x = call.first
    return [(x[0], x[1], *[SPACE] * (len(x) - 2))]


@channel_rule("im2col")
def im2col(call: Call) -> list[Labels]:
    """(N, C, H, W) → (N, C·kh·kw, L): the taps of a channel stay together."""
    x = call.first
    return [(x[0], repeat(x[-3], prod(call.arg("kernel_size"))), SPACE)]


@channel_rule("col2im")
def col2im(call: Call) -> list[Labels]:
    """(N, C·kh·kw, L) → (N, C, H, W)."""
    x, taps = call.first, prod(call.arg("kernel_size"))
    columns = x[-2]
    if isinstance(columns, str):
        return [(x[0], columns, SPACE, SPACE)]
    grid = columns.reshape(-1, taps)
    for column in np.moveaxis(grid, 1, 0)[1:]:
        call.ledger.tie(grid[:, 0], column)
    return [(x[0], grid[:, 0], SPACE, SPACE)]

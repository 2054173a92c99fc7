"""How channels pass through operations that only move numbers: views, cuts, joins, copies."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import prod

import numpy as np
from torch import Tensor

from lilliput.prune.call import Call, channel_rule, replaced, without
from lilliput.prune.labels import SPACE, Atoms, Dim, Labels, Ledger, tile

Block = tuple[range, range]


def view_blocks(before: tuple[int, ...], after: tuple[int, ...]) -> list[Block]:
    """Split a reshape into the smallest runs of dimensions with equal products.

    >>> view_blocks((2, 6, 4), (2, 24))
    [(range(0, 1), range(0, 1)), (range(1, 3), range(1, 2))]
    """
    blocks, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        start_i, start_j = i, j
        left_one = i < len(before) and before[i] == 1
        right_one = j < len(after) and after[j] == 1
        if left_one or right_one:
            i, j = i + left_one, j + right_one
            blocks.append((range(start_i, i), range(start_j, j)))
            continue
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                left, i = left * before[i], i + 1
            else:
                right, j = right * after[j], j + 1
        blocks.append((range(start_i, i), range(start_j, j)))
    return blocks


@channel_rule("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy", "_reshape_copy",
      "flatten", "unflatten")  # fmt: skip
def view(call: Call) -> list[Labels] | None:
    """Merged dimensions label every index by its channel; split ones tie what must stay equal."""
    before, after = tuple(call.args[0].shape), tuple(call.out.shape)
    if 0 in before:
        return None
    x, out = call.first, list[Dim]()
    for old, new in view_blocks(before, after):
        if len(old) == 1 and len(new) == 1:
            out.append(x[old[0]])
            continue
        merged = _merge(call.ledger, [x[d] for d in old], [before[d] for d in old])
        out += _split(call.ledger, merged, [after[d] for d in new])
    for label in out:
        call.ledger.doubt(label)
    return [tuple(out)]


def _merge(ledger: Ledger, dims: list[Dim], sizes: list[int]) -> Dim:
    """Labels of several dimensions flattened into one, row-major."""
    tracked = [n for n, dim in enumerate(dims) if not isinstance(dim, str) and sizes[n] > 1]
    if not tracked:
        return next((dim for dim in dims if isinstance(dim, str)), SPACE)
    if len(tracked) > 1:
        for n in tracked:
            ledger.freeze(dims[n], "two dimensions of channels are merged")
        return "two dimensions of channels were merged"
    place = tracked[0]
    atoms = dims[place]
    assert not isinstance(atoms, str)
    return np.tile(np.repeat(atoms, prod(sizes[place + 1 :])), prod(sizes[:place]))


def _split(ledger: Ledger, merged: Dim, sizes: list[int]) -> list[Dim]:
    """Labels of one dimension cut into factors: one factor carries the channels.

    The one along which alone the labels change, if there is one. Otherwise a factor is chosen
    (the largest first, the later of equals), and the indices that agree in it are tied: the j-th
    channel of every group.
    """
    if isinstance(merged, str):
        return [merged] * len(sizes)
    if not sizes:
        return []
    grid = merged.reshape(sizes)
    wide = [place for place, size in enumerate(sizes) if size > 1]
    if not wide:
        return [merged if n == 0 else SPACE for n in range(len(sizes))]
    rows = {place: np.moveaxis(grid, place, -1).reshape(-1, sizes[place]) for place in wide}
    for place in wide:
        if (rows[place] == rows[place][0]).all():
            return [rows[place][0] if n == place else SPACE for n in range(len(sizes))]
    order = sorted(wide, key=lambda place: (-sizes[place], -place))
    ledger.doubt(merged, readings=len(order))
    carrier = order[min(ledger.choice(), len(order) - 1)]
    for row in rows[carrier][1:]:
        ledger.tie(rows[carrier][0], row)
    fixed = "it is a fixed number of groups of channels"
    return [rows[carrier][0] if n == carrier else fixed for n in range(len(sizes))]


@channel_rule("permute", "permute_copy")
def permute(call: Call) -> list[Labels]:
    x = call.first
    return [tuple(x[d % len(x)] for d in call.arg("dims"))]


@channel_rule("transpose", "transpose_copy")
def transpose(call: Call) -> list[Labels]:
    x, count = list(call.first), len(call.first)
    if count:
        one, other = call.arg("dim0") % count, call.arg("dim1") % count
        x[one], x[other] = x[other], x[one]
    return [tuple(x)]


@channel_rule("t", "numpy_T", "t_copy")
def flip_matrix(call: Call) -> list[Labels]:
    return [call.first[::-1]]


@channel_rule("unsqueeze")
def unsqueeze(call: Call) -> list[Labels]:
    x = call.first
    place = int(call.arg("dim")) % (len(x) + 1)
    return [(*x[:place], SPACE, *x[place:])]


@channel_rule("squeeze")
def squeeze(call: Call) -> list[Labels] | None:
    """Without a dimension named, what vanishes depends on the widths: they may not come to 1."""
    x = call.first
    if len(x) == call.out.dim() and call.out is not call.args[0]:
        return [x]
    dims = call.arg("dim")
    if call.out is call.args[0]:
        return None
    if dims is None:
        gone = [d for d, size in enumerate(call.args[0].shape) if size == 1]
    else:
        dims = [dims] if isinstance(dims, int) else dims
        gone = [d % len(x) for d in dims if call.args[0].shape[d] == 1]
    return [without(x, *gone)]


@channel_rule("expand", "expand_copy")
def expand(call: Call) -> list[Labels]:
    """Copies along a dimension of 1 are as many as what they meet: fresh, doubtful labels."""
    x, source, shape = call.first, call.args[0], tuple(call.out.shape)
    out: list[Dim] = []
    for place, size in enumerate(shape):
        back = place - len(shape)
        if -back > len(x) or (source.shape[back] == 1 and size > 1):
            out.append(_made(call.ledger, size))
        else:
            out.append(x[back])
    return [tuple(out)]


def _made(ledger: Ledger, size: int) -> Dim:
    if size <= 1:
        return SPACE
    atoms = ledger.fresh(size)
    ledger.doubt(atoms)
    return atoms


@channel_rule("repeat")
def repeat(call: Call) -> list[Labels]:
    x, times = call.first, call.arg("repeats")
    out: list[Dim] = []
    for place, count in enumerate(times):
        back = place - len(times)
        if -back > len(x) or call.args[0].shape[back] == 1:
            out.append(_made(call.ledger, int(call.out.shape[place])))
        else:
            if count > 1:
                call.ledger.doubt(x[back])
            out.append(tile(x[back], count))
    return [tuple(out)]


@channel_rule("zeros", "ones", "empty", "full", "arange", "rand", "randn", "randint", "eye",
      "linspace", "new_zeros", "new_ones", "new_full", "new_empty", "scalar_tensor",
      "empty_strided", "new_empty_strided")  # fmt: skip
def factory(call: Call) -> list[Labels]:
    """A tensor made in the forward: its size is a constant or follows the input; trial tells."""
    return [tuple(_made(call.ledger, int(size)) for size in call.out.shape)]


@channel_rule("cat", "concat", "concatenate")
def cat(call: Call) -> list[Labels]:
    """The joined dimension is a row of pieces, each with its own channels."""
    ledger = call.ledger
    tensors = [t for t in call.args[0] if t.dim() > 1 or t.numel()]
    x = call.labels(tensors[0])
    place = int(call.arg("dim", 0)) % len(x)
    pieces: list[Dim] = []
    for tensor in tensors:
        labels = call.labels(tensor)
        for d in range(len(x)):
            if d != place:
                ledger.tie(x[d], labels[d])
        pieces.append(labels[place])
    return [replaced(x, place, _join(ledger, pieces, [int(t.shape[place]) for t in tensors]))]


def _join(ledger: Ledger, pieces: list[Dim], sizes: list[int]) -> Dim:
    """One row of labels; fixed pieces become frozen atoms, as long as some piece has channels."""
    if all(isinstance(piece, str) for piece in pieces):
        return pieces[0]
    atoms = [
        ledger.frozen(size, piece) if isinstance(piece, str) else piece
        for piece, size in zip(pieces, sizes, strict=True)
    ]
    return np.concatenate(atoms)


@channel_rule("stack")
def stack(call: Call) -> list[Labels]:
    tensors = call.args[0]
    x = call.labels(tensors[0])
    for tensor in tensors[1:]:
        for one, other in zip(x, call.labels(tensor), strict=True):
            call.ledger.tie(one, other)
    place = int(call.arg("dim", 0)) % (len(x) + 1)
    return [(*x[:place], SPACE, *x[place:])]


@channel_rule("slice")
def slice_(call: Call) -> list[Labels]:
    """A run of indices. Its bounds may be constants: channels before, in and after it differ.

    Second reading: the equal slices of one tensor are its halves (thirds, ...), and shrink alike.
    """
    x, place = call.dims_of("dim")
    dim, size = x[place], int(call.args[0].shape[place])
    if isinstance(dim, str):
        return [x]
    indices = range(size)[slice(call.arg("start"), call.arg("end"), call.arg("step", 1))]
    if len(indices) == size:
        return [x]
    piece = dim[indices.start : indices.stop : indices.step]
    call.ledger.doubt(dim[: indices.start], 0, readings=2)
    call.ledger.doubt(dim[indices.start : indices.stop], 1, readings=2)
    call.ledger.doubt(dim[indices.stop :], 2, readings=2)
    if call.ledger.choice() and size % len(indices) == 0:
        call.ledger.tie_blocks(dim, size // len(indices))
    return [replaced(x, place, piece)]


@channel_rule("select")
def select(call: Call) -> list[Labels]:
    """One index of a dimension, which vanishes: that channel is spoken of by its number."""
    x, place = call.dims_of("dim")
    dim = x[place]
    if not isinstance(dim, str):
        index = int(call.arg("index")) % len(dim)
        call.ledger.freeze(dim[index : index + 1], "it picks this channel by its number")
        call.ledger.doubt(dim[:index], 0)
        call.ledger.doubt(dim[index + 1 :], 2)
    return [without(x, place)]


@channel_rule("unbind", "unbind_copy")
def unbind(call: Call) -> list[Labels]:
    x, place = call.dims_of("dim")
    call.ledger.freeze(x[place], "it takes every channel apart")
    return [without(x, place)] * len(call.out)


@channel_rule("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes",
      "unsafe_chunk", "chunk", "split_copy", "split_with_sizes_copy")  # fmt: skip
def split(call: Call) -> list[Labels]:
    """Pieces in a row. Equal pieces are taken to shrink alike (chunk); a trial says if they do."""
    x, place = call.dims_of("dim")
    dim, ledger = x[place], call.ledger
    if isinstance(dim, str):
        return [x] * len(call.out)
    sizes = [int(piece.shape[place]) for piece in call.out]
    bounds = [0, *accumulate(sizes)]
    pieces = [dim[a:b] for a, b in pairwise(bounds)]
    first_of_size: dict[int, Atoms] = {}
    for number, piece in enumerate(pieces):
        twin = first_of_size.setdefault(len(piece), piece)
        if twin is not piece and ledger.choice() == 0:
            ledger.tie(twin, piece)
        ledger.doubt(piece, number, readings=2)
    return [replaced(x, place, piece) for piece in pieces]


@channel_rule("constant_pad_nd")
def constant_pad(call: Call) -> list[Labels]:
    """Constant channels before and after, as many as the code says: those stay."""
    x, pads = list(call.first), call.arg("pad")
    for pair in range(len(pads) // 2):
        low, high = int(pads[2 * pair]), int(pads[2 * pair + 1])
        place = len(x) - 1 - pair
        dim = x[place]
        if (low, high) == (0, 0) or isinstance(dim, str):
            continue
        call.ledger.doubt(dim)
        body = dim[max(-low, 0) : len(dim) - max(-high, 0)]
        why = "the code pads here by a fixed number of channels"
        ends = [call.ledger.frozen(max(count, 0), why) for count in (low, high)]
        x[place] = np.concatenate([ends[0], body, ends[1]])
    return [tuple(x)]


@channel_rule("flip")
def flip(call: Call) -> list[Labels]:
    x = list(call.first)
    for d in call.arg("dims"):
        dim = x[d]
        x[d] = dim if isinstance(dim, str) else dim[::-1].copy()
    return [tuple(x)]


@channel_rule("roll", "tril", "triu", "rot90")
def in_place_order(call: Call) -> list[Labels] | None:
    """The numbers of indices matter along these dimensions, so they stay as they are."""
    x = call.first
    dims = call.arg("dims") or (-2, -1)
    for d in dims:
        call.ledger.freeze(x[d], "it depends on the numbers of its indices")
    return (
        [x]
        if all(a == b for a, b in zip(call.args[0].shape, call.out.shape, strict=True))
        else None
    )


@channel_rule("index_select")
def index_select(call: Call) -> list[Labels]:
    x, place = call.dims_of("dim")
    why = "it picks channels by their numbers"
    call.ledger.freeze(x[place], why)
    for dim in call.labels(call.arg("index")):
        call.ledger.freeze(dim, "it holds the numbers of channels")
    return [replaced(x, place, why)]


@channel_rule("index")
def index(call: Call) -> list[Labels] | None:
    """x[..., i, ...] by a tensor of numbers: the other dimensions pass through."""
    x, indices = call.first, call.arg("indices")
    places = [place for place, one in enumerate(indices) if isinstance(one, Tensor)]
    if len(places) != 1 or indices[places[0]].dtype.is_floating_point:
        return None
    place = places[0]
    why = "it picks channels by their numbers"
    call.ledger.freeze(x[place], why)
    for dim in call.labels(indices[place]):
        call.ledger.freeze(dim, "it holds the numbers of channels")
    count = call.out.dim() - len(x) + 1
    if count != indices[place].dim():
        return None
    return [(*x[:place], *[why] * count, *x[place + 1 :])]


@channel_rule("pixel_shuffle")
def pixel_shuffle(call: Call) -> list[Labels]:
    """(..., C·r², H, W) → (..., C, H·r, W·r): the r² channels of a block make one."""
    x, block = call.first, int(call.arg("upscale_factor")) ** 2
    dim = x[-3]
    if not isinstance(dim, str):
        grid = dim.reshape(-1, block)
        for column in range(1, block):
            call.ledger.tie(grid[:, 0], grid[:, column])
        dim = grid[:, 0]
    return [(*x[:-3], dim, SPACE, SPACE)]


@channel_rule("pixel_unshuffle")
def pixel_unshuffle(call: Call) -> list[Labels]:
    """(..., C, H, W) → (..., C·r², H/r, W/r)."""
    x, block = call.first, int(call.arg("downscale_factor")) ** 2
    dim = x[-3]
    return [(*x[:-3], dim if isinstance(dim, str) else np.repeat(dim, block), SPACE, SPACE)]


@channel_rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: Call) -> list[Labels]:
    """(g, C/g) becomes (C/g, g): the j-th channels of all groups go together."""
    x, groups = call.first, int(call.arg("groups"))
    base = call.ledger.tie_blocks(x[1], groups)
    dim = base if isinstance(base, str) else np.repeat(base, groups)
    return [replaced(x, 1, dim)]

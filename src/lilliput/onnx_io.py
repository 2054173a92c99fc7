"""ONNX files in and out: read without trusting them, written whole, nothing in them but need."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lilliput.artifact import METADATA_KEY, ArtifactMetadata
from lilliput.atomic import write_atomically
from lilliput.codec.wire import MOST_AXES
from lilliput.errors import LilliputError, Refused

if TYPE_CHECKING:
    import onnx

    from lilliput.codec.bill import Bill

MAX_BYTES = 2**31 - 1
"""What protobuf itself can hold in one file."""
SUFFIXES = (".onnx", ".lil")
"""Files that hold an ONNX model: plain, or packed by the codec."""
SMALL_BITS = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
"""Types of which several share a byte."""


def read_bytes(path: Path | str) -> bytes | bytearray:
    """The bytes of the ONNX file at `path`, or of the one inside a `.lil` file.

    Raises:
        LilliputError: No such file.
        Refused: Larger than 2 GiB; or a `.lil` file that is damaged.
    """
    path = existing(path)
    if path.stat().st_size > MAX_BYTES:
        raise Refused(f"{str(path)!r} is larger than 2 GiB, the most an ONNX file can hold")
    return unpacked(path) if path.suffix == ".lil" else path.read_bytes()


def unpacked(path: Path | str, **limit: int) -> bytearray:
    """The bytes of the ONNX file inside a `.lil` file, whatever it is called.

    Args:
        path: What the codec wrote.
        limit: `max_bytes`, the largest ONNX file that is made; the codec's own unless given.

    Raises:
        LilliputError: No such file.
        Refused: Damaged, cut short, of a later version, or too large.
    """
    from lilliput.codec.container import decode

    with _opened(path) as packed:
        return decode(packed, **limit)


@contextmanager
def _opened(path: Path | str) -> Iterator[BinaryIO]:
    """The file to be unpacked; what it is refused for is told with its path."""
    path = existing(path)
    try:
        with path.open("rb") as packed:
            yield packed
    except Refused as refused:
        raise Refused(refused.thing, at=str(path), hint=refused.hint) from refused


def existing(path: Path | str) -> Path:
    """The path, where a file is; raises `LilliputError` if there is none."""
    if not Path(path).is_file():
        raise LilliputError(f"no file at {str(path)!r}", hint="check the path")
    return Path(path)


@contextmanager
def as_onnx(path: Path | str) -> Iterator[Path]:
    """A path at which the plain ONNX file lies: `path` itself, or a copy while this lasts."""
    path = Path(path)
    if path.suffix != ".lil":
        yield path
        return
    content = read_bytes(path)
    with tempfile.TemporaryDirectory(prefix="lilliput-") as folder:
        plain = Path(folder) / f"{path.stem}.onnx"
        plain.write_bytes(content)
        del content
        yield plain


def read_model(path: Path | str) -> onnx.ModelProto:
    """The model in one self-contained ONNX file, plain or packed.

    Nothing but that file is opened: external data is refused, wherever its paths lead, and so is
    a tensor whose declared shape and stored bytes disagree.

    Raises:
        LilliputError: no such file.
        Refused: not an ONNX model, larger than 2 GiB, external data, a tensor that lies about
            its size.
    """
    return _model_in(read_bytes(path), Path(path))


def read_packed(path: Path | str) -> tuple[onnx.ModelProto, Bill]:
    """The model in a `.lil` file, and where the file's bytes went. Raises as `read_model` does."""
    from lilliput.codec.container import decode_with_bill

    with _opened(path) as packed:
        content, bill = decode_with_bill(packed)
    return _model_in(content, Path(path)), bill


def _model_in(content: bytes | bytearray, path: Path) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    model = onnx.ModelProto()
    try:
        model.ParseFromString(bytes(content))
    except DecodeError as error:
        raise Refused(
            f"{str(path)!r} is not an ONNX model ({error})",
            hint="give a file that `onnx.save` or `torch.onnx.export` wrote",
        ) from error
    if not model.graph.node and not model.graph.output:
        raise Refused(f"{str(path)!r} holds no ONNX graph", hint="was the file cut short?")
    for tensor in tensors(model):
        _check_tensor(tensor, path)
    return model


def write_model(model: onnx.ModelProto, path: Path | str) -> Path:
    """Write the model in one piece (atomically), its bytes decided by its content alone."""
    path = Path(path)
    if path.suffix != ".onnx":
        raise LilliputError(f"an ONNX file ends in .onnx, not {path.name!r}")
    write_atomically(path, model.SerializeToString(deterministic=True))
    return path


def set_metadata(model: onnx.ModelProto, metadata: ArtifactMetadata) -> None:
    """Put the metadata into the model, in place of any that it carried; other keys stay."""
    kept = [(e.key, e.value) for e in model.metadata_props if e.key != METADATA_KEY]
    text = json.dumps(metadata.model_dump(mode="json"), separators=(",", ":"), sort_keys=True)
    del model.metadata_props[:]
    for key, value in [*kept, (METADATA_KEY, text)]:
        model.metadata_props.add(key=key, value=value)


def get_metadata(model: onnx.ModelProto) -> ArtifactMetadata:
    """The metadata that `set_metadata` put in; empty when there is none.

    Raises:
        Refused: What is there is not what `set_metadata` writes.
    """
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            try:
                return ArtifactMetadata.model_validate(json.loads(entry.value))
            except ValueError as error:
                raise Refused(
                    f"what the file says of itself under {METADATA_KEY!r} is damaged",
                    hint="export it again, or delete that entry of its metadata_props",
                ) from error
    return ArtifactMetadata()


def strip(model: onnx.ModelProto) -> None:
    """Remove what no runtime reads: descriptions, shapes of inner tensors, stack traces."""
    model.doc_string = ""
    for graph in graphs(model):
        graph.doc_string = ""
        del graph.value_info[:]
        _clear(graph, "metadata_props")
        for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            item.doc_string = ""
            _clear(item, "metadata_props")
    for function in model.functions:
        function.doc_string = ""
        for node in function.node:
            node.doc_string = ""
            _clear(node, "metadata_props")


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The model's graph and every graph inside its nodes (branches, loop bodies)."""
    waiting = [model.graph]
    waiting += [g for function in model.functions for g in inner_graphs(function.node)]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting += inner_graphs(graph.node)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Every tensor stored in the model: initializers and node attributes, dense and sparse."""
    nodes: list[Any] = [node for function in model.functions for node in function.node]
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        nodes += graph.node
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            scattered = list(attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor"):
                scattered.append(attribute.sparse_tensor)
            for sparse in scattered:
                yield from (sparse.values, sparse.indices)


def inner_graphs(nodes: Any) -> list[Any]:
    """The graphs that the nodes hold themselves (branches, loop bodies), not those inside these."""
    found = []
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found.append(attribute.g)
            found += attribute.graphs
    return found


def _clear(message: Any, name: str) -> None:
    # Older onnx versions know no metadata on nodes and tensors.
    if name in message.DESCRIPTOR.fields_by_name:
        message.ClearField(name)


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    import onnx

    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise Refused(
            f"tensor {tensor.name!r} of {str(path)!r} lies in another file, and only "
            "self-contained ONNX files are read",
            hint="where you trust the file, make it one: "
            f"python -c \"import onnx; onnx.save(onnx.load('{path.name}'), 'whole.onnx')\"",
        )
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        return
    wrong = _contradiction(tensor)
    if wrong:
        raise Refused(
            f"tensor {tensor.name!r} of {str(path)!r} {wrong}",
            hint="the file is damaged; export it again",
        )


def _contradiction(tensor: onnx.TensorProto) -> str | None:
    """What is wrong about type, shape and content of a tensor; None if they agree."""
    import onnx

    kinds, kind = onnx.TensorProto.DataType, tensor.data_type
    if kind not in kinds.DESCRIPTOR.values_by_number:
        return f"has a type that onnx {onnx.__version__} does not know ({kind})"
    if len(tensor.dims) > MOST_AXES or any(size < 0 for size in tensor.dims):
        return f"has a shape that no tensor has ({len(tensor.dims)} axes)"
    name, count = kinds.Name(kind), prod(tensor.dims)
    if tensor.HasField("raw_data"):
        bits = SMALL_BITS.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
        declared, stored, unit = (count * bits + 7) // 8, len(tensor.raw_data), "bytes"
        agree = declared == stored or name == "STRING"
    else:
        declared, unit = count * (2 if name.startswith("COMPLEX") else 1), "numbers"
        stored = len(getattr(tensor, onnx.helper.tensor_dtype_to_field(kind)))
        agree = declared == stored or name in SMALL_BITS
    most = f"more than {MAX_BYTES}" if declared > MAX_BYTES else declared
    return None if agree else f"declares {most} {unit} and holds {stored}"

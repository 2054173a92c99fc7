"""Whether a `.pt2` of `torch.export` is safe to open: torch itself does not ask.

`torch.export.load` unpickles constants, evaluates the text of its shape expressions and calls
whatever function a node names. This looks at the archive first, without torch, and refuses what is
more than tensors, operators of torch's registry, and arithmetic on sizes. Load a checked file with
`TORCH_FORCE_WEIGHTS_ONLY_LOAD=1` set, so that its sample inputs are not unpickled either.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lilliput.errors import LilliputError, Refused

JSON_LIMIT = 1 << 28
"""Bytes of one JSON entry; a graph of ten thousand nodes is a tenth of it."""

ENTRIES = re.compile(
    r"(models/\w+\.json"
    r"|data/weights/(weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|\w+_constants_config\.json)"
    r"|data/sample_inputs/\w+\.pt"
    r"|archive_format|archive_version|version|byteorder|\.data/\w+|\.format_version"
    r"|\.storage_alignment|extra/[\w./-]+)"
)
PAYLOAD = re.compile(r"(weight|tensor)_\d+")
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|prim|torchvision|quantized_decomposed|higher_order)\.\w+(\.\w+)?"
    r"|_operator\.(add|sub|mul|floordiv|truediv|mod|pow|neg|pos|abs|getitem|index|and_|or_|not_|xor"
    r"|eq|ne|lt|le|gt|ge|lshift|rshift|invert)"
    r"|math\.\w+|torch\.sym_\w+"
)
FORBIDDEN_OPERATORS = re.compile(r"\.(from_file|_print|print)\b")
NAME = re.compile(r"[\w.@]*")
SYMBOL = re.compile(r"[a-z]+\d+|oo|int_oo|L|torch|math|max|min")

FUNCTIONS = {"Symbol", "Integer", "Float", "Rational", "Mul", "Add", "Pow", "Max", "Min", "Mod"}
FUNCTIONS |= {"Abs", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "FloorDiv", "CeilDiv"}
FUNCTIONS |= {"CleanDiv", "PythonMod", "ModularIndexing", "Where", "IntTrueDiv", "FloatTrueDiv"}
FUNCTIONS |= {"ToFloat", "TruncToInt", "CeilToInt", "FloorToInt", "RoundToInt", "PowByNatural"}
FUNCTIONS |= {"FloatPow", "IsNonOverlappingAndDenseIndicator", "Identity", "ceiling", "floor"}
FUNCTIONS |= {"LShift", "RShift", "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "max", "min"}
FUNCTIONS |= {"StrictGreaterThan", "StrictLessThan", "GreaterThan", "LessThan", "Equality"}
FUNCTIONS |= {"Unequality", "BooleanTrue", "BooleanFalse", "Piecewise", "ExprCondPair"}
METHODS = {"size", "stride", "storage_offset", "dim", "ndim", "shape", "dtype", "device", "type"}
METHODS |= {"float16", "bfloat16", "float32", "float64", "int8", "uint8", "int32", "int64", "bool"}
METHODS |= {"ceil", "floor", "trunc"}


def check_program(path: Path | str) -> None:
    """Raise `Refused` if opening the `.pt2` could run anything but the network's arithmetic.

    Raises:
        LilliputError: no such file, or no archive at all.
        Refused: an entry, an operator or an expression that has no place in a network.
    """
    path = Path(path)
    if not path.is_file():
        raise LilliputError(f"no file at {str(path)!r}", hint="check the path")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive, path)
            for entry in archive.infolist():
                if entry.filename.endswith(".json"):
                    _check_json(archive, entry, path)
    except zipfile.BadZipFile:
        raise LilliputError(
            f"{str(path)!r} is not a .pt2 file", hint="save it with torch.export.save"
        ) from None


@contextlib.contextmanager
def tensors_only() -> Iterator[None]:
    """While inside, `torch.load` opens nothing but tensors, whatever its callers ask for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    names = archive.namelist()
    # A second entry of one name, or a second root, could be what torch reads and we do not.
    roots = {name.partition("/")[0] for name in names}
    if len(set(names)) != len(names) or len(roots) != 1:
        raise Refused(f"{str(path)!r} is not laid out as torch.export.save does it")
    inner = [name.partition("/")[2] for name in names]
    if not any(name.startswith("models/") for name in inner):
        raise Refused(
            f"{str(path)!r} is not a torch.export archive of torch 2.8 or newer",
            hint="save it again with torch.export.save",
        )
    for name in inner:
        if not ENTRIES.fullmatch(name):
            raise Refused(
                f"{str(path)!r} holds {name!r}, which is more than a network's tensors and graph",
                hint="export the program again with plain tensors only",
            )


def _check_json(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    if entry.file_size > JSON_LIMIT:
        raise Refused(f"{str(path)!r}: {entry.filename} is larger than any real one")
    try:
        content = json.loads(archive.read(entry))
    except (ValueError, RecursionError) as error:
        raise Refused(f"{str(path)!r}: {entry.filename} is damaged") from error
    if entry.filename.endswith("_config.json"):
        _check_payloads(content, path)
    else:
        for key, value in _strings(content):
            _check_string(key, value, path)


def _check_payloads(content: Any, path: Path) -> None:
    config = content.get("config") if isinstance(content, dict) else None
    for name, entry in (config or {}).items():
        stored = str(entry.get("path_name", "")) if isinstance(entry, dict) else ""
        if not NAME.fullmatch(name):
            _refuse("name", name, path)
        if not PAYLOAD.fullmatch(stored) or entry.get("use_pickle"):
            raise Refused(
                f"{str(path)!r} stores {name!r} as a pickle, which can run any code",
                hint="export the program with plain tensors only",
            )


def _strings(root: Any) -> Iterator[tuple[str, str]]:
    """(key, text) of every text in the JSON; a list's texts have the key of the list."""
    waiting = [("", root)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, str):
            yield key, value
        elif isinstance(value, dict):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(key, item) for item in value]


def _check_string(key: str, text: str, path: Path) -> None:
    if key == "target":
        fine = bool(OPERATOR.fullmatch(text)) and not FORBIDDEN_OPERATORS.search(text)
    elif key.endswith(("name", "names", "fqn")):
        # These become variables and attributes of code that torch.fx writes and runs.
        fine = bool(NAME.fullmatch(text))
    elif key in ("expr_str", "guards_code"):
        fine = _is_arithmetic(text)
    elif key in ("in_spec", "out_spec"):
        fine = "default_factory" not in text
    else:
        return
    if not fine:
        _refuse(key, text, path)


def _refuse(key: str, text: str, path: Path) -> None:
    raise Refused(
        f"{str(path)!r} holds the {key.replace('_', ' ')} {text[:80]!r}, which could run code",
        hint="export the program again from its source with torch.export",
    )


_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp, ast.Tuple),
    *(ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.Subscript),
    ast.keyword,
)


def _is_arithmetic(text: str) -> bool:
    """Whether it is an expression of sizes: numbers, symbols, known functions, no more."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(_is_harmless(node) for node in ast.walk(tree))


def _is_harmless(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return not isinstance(node.value, str) or bool(NAME.fullmatch(node.value))
    if isinstance(node, ast.Name):
        return node.id in FUNCTIONS or bool(SYMBOL.fullmatch(node.id))
    if isinstance(node, ast.Attribute):
        return node.attr in METHODS
    if isinstance(node, ast.Call):
        return isinstance(node.func, (ast.Name, ast.Attribute))
    return isinstance(node, _ARITHMETIC)

"""Is every node of an ONNX file one of ONNX's own operators, with attributes and inputs as ONNX has them?

Engines trust a graph more than they should: some end the process over an operator without inputs, or over a flag that
is neither 0 nor 1. So nodes are compared with a table of ONNX's operators before any engine sees the file. It was
written from the ``onnx`` package, which is not needed here.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..bundle.protobuf import Data, fields, varint
from ..errors import BundleError, words_of

#: AttributeProto.AttributeType: number -> letter in the table.
_LETTERS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "F", 7: "I", 8: "S"}
#: Attributes that are 0 or 1.
_FLAGS = frozenset(
    [
        "align_corners",
        "allowzero",
        "antialias",
        "ceil_mode",
        "center_point_box",
        "count_include_pad",
        "detect_negative",
        "detect_positive",
        "exclude_outside",
        "exclusive",
        "fmod",
        "input_forget",
        "inverse",
        "is_causal",
        "keepdims",
        "largest",
        "layout",
        "linear_before_reset",
        "noop_with_empty_axes",
        "onesided",
        "reverse",
        "saturate",
        "select_last_index",
        "sorted",
        "storage_order",
        "training_mode",
        "transA",
        "transB",
        "upper",
    ]
)
#: Bounds of other whole numbers.
_SIZE, _AXIS, _PLACE = (1, 1 << 16), (-64, 64), (-(1 << 16), 1 << 16)
_BOUNDS = {
    **dict.fromkeys(_FLAGS, (0, 1)),
    **dict.fromkeys(("kernel_shape", "strides", "dilations", "blocksize", "hidden_size"), _SIZE),
    **dict.fromkeys(("group", "num_groups", "num_outputs", "q_num_heads", "kv_num_heads"), (1, 1 << 20)),
    **dict.fromkeys(("axis", "axes", "perm", "batch_dims"), _AXIS),
    **dict.fromkeys(("pads", "output_padding", "output_shape"), _PLACE),
    "to": (0, 64),
}
#: Graphs inside of graphs (If, Loop); real ones nest once or twice.
_MAX_DEPTH = 8


@dataclass(frozen=True)
class _Operator:
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: dict[str, str]


@cache
def _table() -> dict[str, _Operator]:
    def counts(text: str) -> tuple[int, int]:
        low, _, high = text.partition("-")
        return int(low), 1 << 20 if high == "*" else int(high)

    rows = {}
    for line in (Path(__file__).parent / "operators.txt").read_text(encoding="ascii").splitlines():
        name, inputs, outputs, *attributes = line.split()
        rows[name] = _Operator(counts(inputs), counts(outputs), dict(word.split(":") for word in attributes))
    return rows


def check_operators(path: Path) -> None:
    """Raise BundleError if a node of an ONNX file is none that ONNX knows, or none that it allows."""
    if path.stat().st_size == 0:
        raise BundleError(
            f"{path.name} is empty, expected an ONNX graph; export the bundle again", code="E-bundle-graph-empty"
        )
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            for number, _, start, end in fields(data, 0, len(data)):
                if number == 7:
                    _check_graph(data, start, end, 0)
        except (ValueError, IndexError) as error:
            raise BundleError(
                f"{path.name} is not a valid ONNX graph: {words_of(error)}; export the bundle again",
                code="E-bundle-graph-invalid",
            ) from None


def _check_graph(data: Data, start: int, end: int, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("graphs are nested too deeply")
    for number, _, first, last in fields(data, start, end):
        if number == 1:
            _check_node(data, first, last, depth)


def _check_node(data: Data, start: int, end: int, depth: int) -> None:
    sides: dict[int, list[str]] = {1: [], 2: []}
    texts = {3: "", 4: "", 7: ""}
    attributes = []
    for number, _, first, last in fields(data, start, end):
        if number in sides:
            sides[number].append(_text(data, first, last))
        elif number in texts:
            texts[number] = _text(data, first, last)
        elif number == 5:
            attributes.append((first, last))
    name, operator, domain = texts[3], texts[4], texts[7]
    row = _table().get(operator)
    what = f"the node {name[:100]!r} ({operator[:60]})"
    if domain not in ("", "ai.onnx") or row is None:
        raise ValueError(f"{what} is none of ONNX's own operators")
    for side, (low, high), found in (("inputs", row.inputs, sides[1]), ("outputs", row.outputs, sides[2])):
        if not low <= len(found) <= high or not all(found[:low]):
            raise ValueError(f"{what} has {len(found)} {side}, and ONNX asks for {low} to {high}")
    seen: set[str] = set()
    for first, last in attributes:
        _check_attribute(data, first, last, what, row, seen, depth)


def _check_attribute(data: Data, start: int, end: int, what: str, row: _Operator, seen: set[str], depth: int) -> None:
    name, kind, numbers, graphs = "", 0, list[int](), list[tuple[int, int]]()
    for number, _, first, last in fields(data, start, end):
        if number == 1:
            name = _text(data, first, last)
        elif number == 20:
            kind = varint(data, first, last)[0]
        elif number in (3, 8):  # i and ints; a list of numbers may be packed into one field
            while first < last:
                value, first = varint(data, first, last)
                numbers.append(value - (1 << 64) if value >> 63 else value)
        elif number in (6, 11):
            graphs.append((first, last))
    if name not in row.attributes or name in seen:
        raise ValueError(f"{what} has the attribute {name[:60]!r}{' twice' if name in seen else ''}")
    seen.add(name)
    if _LETTERS.get(kind, "?") not in row.attributes[name]:
        raise ValueError(f"the attribute {name} of {what} has the wrong type")
    low, high = _BOUNDS.get(name, (-(1 << 63), 1 << 63))
    if not all(low <= value <= high for value in numbers):
        raise ValueError(f"the attribute {name} of {what} is {numbers[:8]}, expected {low} to {high}")
    for first, last in graphs:
        _check_graph(data, first, last, depth + 1)


def _text(data: Data, start: int, end: int) -> str:
    return bytes(data[start:end]).decode("utf-8")

"""Which files the tensors of an ONNX graph live in, read without the ``onnx`` package.

An ONNX file is one protobuf message. Its wire format is enough to find every ``TensorProto.external_data`` entry: only
the messages on the way to tensors are entered, everything else is skipped by its length.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError, words_of
from .protobuf import BYTES, Data, fields

#: Field numbers of the messages that lead to tensors (onnx.proto): message -> field -> message of the field.
_INNER: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
#: Fields of these messages that occur once. Readers merge what occurs twice, so that a tensor could be put together
#: from parts that were checked one by one.
_ONCE: dict[str, tuple[int, ...]] = {"model": (7,), "training": (1, 2), "attribute": (5, 6, 22), "sparse": (1, 2)}
_KEY, _VALUE = 1, 2
#: Subgraphs may nest; real graphs do so a few times.
_MAX_DEPTH = 100


@dataclass(frozen=True)
class ExternalTensor:
    """Place of one tensor outside the graph. ``length`` is None when the file does not say it."""

    location: str
    offset: int
    length: int | None


def external_tensors(path: Path, name: str | None = None) -> list[ExternalTensor]:
    """The external tensors of an ONNX file, in no particular order.

    Args:
        path: the ``.onnx`` file.
        name: how messages name it; None: the file's name.

    Raises:
        BundleError: the file is not ONNX, or an entry is malformed.
    """
    name = name or path.name
    with open(path, "rb") as file:
        if path.stat().st_size == 0:
            raise BundleError(
                f"{name} is empty, expected an ONNX graph; export the bundle again", code="E-bundle-graph-empty"
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return [_tensor(entries) for entries in _scan(data)]
            except (ValueError, IndexError) as error:
                raise BundleError(
                    f"{name} is not a valid ONNX graph ({words_of(error)}); export the bundle again",
                    code="E-bundle-graph-invalid",
                ) from None


@dataclass
class _Open:
    """A message that is being walked through: only these are in memory, never more than `_MAX_DEPTH`."""

    message: str
    fields: Iterator[tuple[int, int, int, int]]
    entries: dict[str, str]
    seen: set[int] = field(default_factory=set)
    strings: dict[int, str] = field(default_factory=lambda: {_KEY: "", _VALUE: ""})


def _scan(data: Data) -> list[dict[str, str]]:
    """The key-value entries of every tensor that has any."""
    found: list[dict[str, str]] = []
    stack = [_Open("model", fields(data, 0, len(data)), {})]
    while stack:
        top = stack[-1]
        inner, once = _INNER[top.message], _ONCE.get(top.message, ())
        for number, wire, start, stop in top.fields:
            if wire == BYTES and number in inner:
                if number in once and number in top.seen:
                    raise ValueError(f"field {number} of the {top.message} is there twice, at byte {start} again")
                if len(stack) > _MAX_DEPTH:
                    raise ValueError("graphs are nested too deeply")
                top.seen.add(number)
                entries = {} if inner[number] == "tensor" else top.entries
                stack.append(_Open(inner[number], fields(data, start, stop), entries))
                break
            if wire == BYTES and top.message == "entry" and number in top.strings:
                top.strings[number] = bytes(data[start:stop]).decode("utf-8")
        else:
            stack.pop()
            if top.message == "tensor" and top.entries:
                found.append(top.entries)
            if top.message == "entry":
                if top.strings[_KEY] in top.entries:  # engines differ in which of the two they take
                    raise ValueError(f"external data has the key {top.strings[_KEY]!r} twice")
                top.entries[top.strings[_KEY]] = top.strings[_VALUE]
    return found


def _tensor(entries: dict[str, str]) -> ExternalTensor:
    numbers: dict[str, int | None] = {"offset": 0, "length": None}
    for key in numbers:
        if key in entries:
            text = entries[key]
            if not (text.isascii() and text.isdigit() and len(text) < 20):
                raise ValueError(f"external data has the {key} {text!r}, expected a whole number")
            numbers[key] = int(text)
    return ExternalTensor(entries.get("location", ""), numbers["offset"] or 0, numbers["length"])

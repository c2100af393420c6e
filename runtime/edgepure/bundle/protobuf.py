"""The wire format of protobuf, as far as one needs it to walk through an ONNX file of a stranger."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

Data = bytes | mmap.mmap

#: Wire types.
_VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5


def fields(data: Data, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, start and end of every field of a message; a number's bytes are its field.

    Raises:
        ValueError: the bytes are no message.
    """
    while position < end:
        tag, position = varint(data, position, end)
        if tag >> 32:  # readers that keep the lower half of it would see another field than this one
            raise ValueError(f"the field number before byte {position} is too large")
        wire = tag & 7
        if wire == _VARINT:
            start, position = position, varint(data, position, end)[1]
        elif wire == BYTES:
            size, start = varint(data, position, end)
            position = start + size
        elif wire in (_FIXED64, _FIXED32):
            start, position = position, position + (8 if wire == _FIXED64 else 4)
        else:
            raise ValueError(f"unknown wire type {wire} at byte {position}")
        if position > end:
            raise ValueError(f"a field at byte {start} is cut off")
        yield tag >> 3, wire, start, position


def varint(data: Data, position: int, end: int) -> tuple[int, int]:
    """A number of the wire format, and where it ends. Raises ValueError."""
    value = shift = 0
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number before byte {position} is too long")
    raise ValueError("the file is cut off")

"""Read torchvision's `cifar-10-batches-py` without running what a pickle can run.

The official batches are pickles of a dictionary with one NumPy array, a list of integers and byte strings. The reader
allows the functions that rebuild an array, with arguments of the expected kind, and refuses every other name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Array:
    """Stands for a NumPy array while its pickle is read; only 8-bit arrays can come out of it."""

    def __init__(self, *_: object) -> None:
        self.value: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | str) or not isinstance(fortran, int | bool):
            raise pickle.UnpicklingError("not an array of bytes")
        raw = content.encode("latin-1") if isinstance(content, str) else content
        if len(shape) != 2 or shape[0] * shape[1] != len(raw):
            raise pickle.UnpicklingError(f"an array of shape {shape} with {len(raw)} bytes")
        self.value = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Stands for `numpy.dtype('u1')`, and for no other."""

    def __init__(self, kind: object = None, *_: object) -> None:
        if kind not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"an array of type {kind!r}")

    def __setstate__(self, state: object) -> None:
        pass


def _rebuild(*_: object) -> _Array:
    return _Array()


def _encode(text: object, encoding: object = "latin1") -> bytes:
    """Bytes, as Python 3 writes them in an old protocol."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("text in place of bytes")
    return text.encode("latin-1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _rebuild,
    ("numpy._core.multiarray", "_reconstruct"): _rebuild,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the file asks for {module}.{name}, which CIFAR-10 does not need")
        return _ALLOWED[module, name]


def read(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One batch -> images uint8 [n, 3, 32, 32], labels int64 [n]; ValueError for anything else than such a batch."""
    try:
        with path.open("rb") as file:
            stored = _Reader(file, encoding="bytes").load()
        fields = {(k.decode() if isinstance(k, bytes) else k): v for k, v in stored.items()}
        data, labels = fields["data"], fields["labels"]
        if not isinstance(data, _Array) or data.value is None or not all(type(v) is int for v in labels):
            raise pickle.UnpicklingError("data and labels are not an array and integers")
        images = data.value.reshape(-1, 3, 32, 32)
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"{path} is not a batch of cifar-10-batches-py: {error}") from error
    return np.ascontiguousarray(images), np.asarray(labels, np.int64)

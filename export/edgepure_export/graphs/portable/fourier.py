"""A Fourier transform over an axis of fixed size, as a product with a matrix."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from edgepure.errors import ExportError

from ..rules import new_constant
from .parts import added, take_over


def matrix_dft(graph: ir.Graph, node: ir.Node) -> None:
    """``[..., n, ..., 1 or 2]`` with the axis moved behind the others, times a matrix of all that the transform is.

    Raises:
        ExportError: the axis, its size or another than the batch is not fixed.
    """
    value, name, old = node.inputs[0], str(node.name), node.outputs[0]
    assert value is not None
    shape = list(value.shape) if value.shape is not None else []
    length, axis = (_number(node, index) for index in (1, 2))
    axis = (-2 if axis is None else axis) % max(len(shape), 1)
    fixed = [n for n in shape[1:] if isinstance(n, int)]
    if axis == 0 or len(fixed) != len(shape) - 1:
        raise ExportError(
            f"DFT {name!r} is computed differently by engines, and the size of its input {shape} is not fixed, so it "
            "cannot be rewritten; give images one size, or leave the transform out of the network",
            code="E-export-portable",
        )
    size, parts, rank = fixed[axis - 1], fixed[-1], len(shape)
    flags = (bool(node.attributes.get_int(flag, 0)) for flag in ("inverse", "onesided"))
    matrix = _matrix(size, parts, length, *flags)
    count = matrix.shape[1]
    order = [n for n in range(rank - 1) if n != axis] + [axis, rank - 1]
    others = [fixed[n - 1] for n in order[1:-2]]
    rows, out = len(matrix), count * matrix.shape[2]

    def reshaped(of: ir.Value, key: str, *last: int) -> ir.Value:
        wanted = new_constant(graph, f"{name}/{key}_shape", np.array([0, *others, *last], np.int64))
        return added(node, "Reshape", [of, wanted], f"{name}/{key}", ir.Shape([shape[0], *others, *last]))

    moved = added(node, "Transpose", [value], f"{name}/moved", None, perm=order) if axis != rank - 2 else value
    weight = new_constant(graph, f"{name}/matrix", np.ascontiguousarray(matrix.reshape(rows, out)))
    found = ir.Shape([shape[0], *others, out])
    product = added(node, "MatMul", [reshaped(moved, "flat", rows), weight], f"{name}/MatMul", found)
    last = reshaped(product, "parts", count, matrix.shape[2])
    if axis != rank - 2:
        last = added(node, "Transpose", [last], f"{name}/back", old.shape, perm=np.argsort(order).tolist())
    producer = last.producer()
    assert producer is not None
    take_over(graph, node, old, producer)
    graph.remove(node, safe=True)


def _number(node: ir.Node, index: int) -> int | None:
    """An input that is one constant whole number; None: it is left out."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None:
        return None
    if value.const_value is None:
        raise ExportError(
            f"DFT {node.name!r} takes its length or axis from the data; fix them in the network",
            code="E-export-portable",
        )
    return int(value.const_value.numpy().reshape(-1)[0])


def _matrix(size: int, parts: int, length: int | None, inverse: bool, onesided: bool) -> NDArray[np.float32]:
    """``[size * parts, count, real and imaginary part]``: what becomes of each unit vector."""
    units = np.zeros((size, parts, size), np.complex128)
    for part in range(parts):
        units[range(size), part, range(size)] = (1.0, 1.0j)[part]
    flat = units.reshape(size * parts, size)
    if inverse and onesided:
        return np.fft.irfft(flat, n=length)[..., None].astype(np.float32)
    found = (np.fft.ifft if inverse else np.fft.fft)(flat, n=length)
    if onesided:
        found = found[:, : found.shape[1] // 2 + 1]
    return np.stack([found.real, found.imag], -1).astype(np.float32)

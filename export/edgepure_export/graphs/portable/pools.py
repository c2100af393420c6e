"""Pools whose border engines see differently."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..rules import new_constant
from .parts import added, grown, spatial, take_over

#: Padding of a maximum: below every value, and finite, so that it survives arithmetic.
_LOWEST = float(np.finfo(np.float32).min)


def padded_pool(graph: ir.Graph, node: ir.Node) -> None:
    """An average whose padding counts, and differs from side to side: a Pad, and the average without padding."""
    pads = list(node.attributes.get_ints("pads", ()))
    rank = len(pads) // 2
    _pad_before(graph, node, pads[:rank], pads[rank:], 0.0)


def _pad_before(graph: ir.Graph, node: ir.Node, before: Sequence[int], behind: Sequence[int], fill: float) -> None:
    """Let a Pad do what the pool's own padding would."""
    value = node.inputs[0]
    assert value is not None
    widths = new_constant(graph, f"{node.name}/pads", np.array([0, 0, *before, 0, 0, *behind], np.int64))
    filler = new_constant(graph, f"{node.name}/filler", np.array(fill, np.float32))
    shape = grown(value, {2 + axis: sum(both) for axis, both in enumerate(zip(before, behind, strict=True))})
    node.replace_input_with(0, added(node, "Pad", [value, widths, filler], f"{node.name}/padded", shape))
    for left_out in ("pads", "count_include_pad"):
        node.attributes.pop(left_out, None)


@dataclass(frozen=True)
class _Axis:
    """A pool along one axis of its input."""

    size: int
    before: int
    after: int
    kernel: int
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Pixels from the first to the last of a window."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def rounded_down(self) -> int:
        """Windows without ``ceil_mode``."""
        return (self.size + self.before + self.after - self.reach) // self.stride + 1

    @property
    def windows(self) -> int:
        """Their number, rounded up; a last one that would begin behind image and padding is left out."""
        count = ceil((self.size + self.before + self.after - self.reach) / self.stride) + 1
        return count - 1 if (count - 1) * self.stride >= self.size + self.before else count

    @property
    def behind(self) -> int:
        """Padding behind the image that the last window needs."""
        return max((self.windows - 1) * self.stride + self.reach - self.size - self.before, 0)

    def divisors(self, included: bool) -> NDArray[np.int64]:
        """By how many pixels an average is divided: those of its window that lie in the image, or, ``included``, in the
        image and its padding; never those beyond."""
        low, high = (-self.before, self.size + self.after) if included else (0, self.size)
        starts = np.arange(self.windows) * self.stride - self.before
        return np.asarray(np.minimum(starts + self.kernel, high) - np.maximum(starts, low), np.int64)


def explicit_pool(graph: ir.Graph, node: ir.Node) -> None:
    """A pool with ``ceil_mode`` as PyTorch has it: a Pad, the same pool without padding, the divisors of the border."""
    sizes = spatial(node)
    rank = len(sizes)

    def numbers(name: str, default: Sequence[int]) -> list[int]:
        return [int(n) for n in node.attributes.get_ints(name, default)]

    pads = numbers("pads", [0] * (2 * rank))
    kernel, ones = numbers("kernel_shape", ()), [1] * rank
    parts = (sizes, pads[:rank], pads[rank:], kernel, numbers("strides", ones), numbers("dilations", ones))
    axes = [_Axis(*numbers) for numbers in zip(*parts, strict=True)]
    node.attributes["ceil_mode"] = ir.AttrInt64("ceil_mode", 0)
    if all(axis.windows == axis.rounded_down for axis in axes):
        return
    average = node.op_type == "AveragePool"
    included = bool(node.attributes.get_int("count_include_pad", 0))
    fill = 0.0 if average else _LOWEST
    _pad_before(graph, node, [axis.before for axis in axes], [axis.behind for axis in axes], fill)
    if average:
        _scaled(graph, node, prod(kernel) / _product([axis.divisors(included) for axis in axes]))


def _product(axes: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    found = np.ones((1, 1), np.float64)
    for axis in axes:
        found = found[..., None] * axis
    return found


def _scaled(graph: ir.Graph, node: ir.Node, factors: NDArray[np.float64]) -> None:
    """Multiply what a node gives, for all of its readers."""
    if (factors == 1.0).all():
        return
    old = node.outputs[0]
    constant = new_constant(graph, f"{node.name}/factors", factors.astype(np.float32))
    product = ir.node("Mul", [old, constant], name=f"{node.name}/Mul")
    take_over(graph, node, old, product)

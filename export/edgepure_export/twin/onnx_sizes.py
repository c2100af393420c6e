"""What a graph works out of the sizes of its images: numbers and constant tensors, once they are known.

Exporters write shapes as arithmetic on tensors (Shape, Gather, Concat, Reshape, ...), which cannot be traced again: a
size would depend on data. Where images differ in their number alone, such a value is the same for all of them, or a
whole number of times the batch more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .onnx_operators import Node
from .onnx_operators.table import Setting

#: Batches of which a graph is run to see what depends on them. The last one is the test.
BATCHES = (2, 3, 5)

#: Inputs that operators read as numbers, by position.
NUMBERS: dict[str, tuple[int, ...]] = {
    "Reshape": (1,), "Squeeze": (1,), "Unsqueeze": (1,), "Split": (1,), "Slice": (1, 2, 3, 4), "Expand": (1,),
    "Tile": (1,), "ConstantOfShape": (0,), "Pad": (1, 3), "Resize": (2, 3),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd"), (1,)),
}  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    """A vector of numbers: ``fixed[i] + times[i] * batch``."""

    fixed: tuple[float, ...]
    times: tuple[int, ...]

    def of(self, batch: int) -> Setting:
        """Those of a batch."""
        return Setting(a + k * batch if k else a for a, k in zip(self.fixed, self.times, strict=True))


#: The numbers of a node by the position of the input in whose place they stand.
Bound = dict[int, Numbers]


def constant(value: Tensor) -> Numbers:
    """Those of a vector that is known."""
    numbers = tuple(value.reshape(-1).tolist())
    return Numbers(numbers, (0,) * len(numbers))


@dataclass
class Sizes:
    """What was found.

    Attributes:
        constants: values that are the same for all images, by name.
        bound: of each node the numbers that it reads.
        nodes: those that are left, as positions.
    """

    constants: dict[str, Tensor]
    bound: dict[int, Bound] = field(default_factory=dict)
    nodes: list[int] = field(default_factory=list)


def of_sizes(nodes: Sequence[Node], known: Collection[str]) -> set[str]:
    """The values that are computed of sizes and of what is ``known`` alone."""
    found: set[str] = set()
    for node in nodes:
        if node.operator in ("Shape", "Size") or all(not n or n in known or n in found for n in node.inputs):
            found.update(node.outputs)
    return found


def worked_out(
    nodes: Sequence[Node], outputs: Collection[str], runs: Sequence[Mapping[str, Tensor]], names: set[str]
) -> Sizes:
    """Sort the values ``names`` of some runs, one of each of `BATCHES`, into constants and numbers."""
    first, second, third = ({name: run[name] for name in names if name in run} for run in runs)
    same = {n for n, v in first.items() if torch.equal(v, second[n]) and torch.equal(v, third[n])}
    found = Sizes({name: first[name] for name in same})
    for position, node in enumerate(nodes):
        for place in NUMBERS.get(node.operator, ()):
            name = node.inputs[place] if place < len(node.inputs) else ""
            if name in first:
                numbers = _affine(first[name], second[name], third[name])
                if numbers is not None:
                    found.bound.setdefault(position, {})[place] = numbers
    wanted = set(outputs)
    for position in reversed(range(len(nodes))):
        made = {name for name in nodes[position].outputs if name in wanted and name not in same}
        if made:
            held = found.bound.get(position, {})
            wanted |= {name for place, name in enumerate(nodes[position].inputs) if place not in held}
            found.nodes.insert(0, position)
    return found


def _affine(first: Tensor, second: Tensor, third: Tensor) -> Numbers | None:
    if not first.shape == second.shape == third.shape:
        return None
    at, after = first.reshape(-1).tolist(), second.reshape(-1).tolist()
    times = tuple(int(b - a) for a, b in zip(at, after, strict=True))
    numbers = Numbers(tuple(a - BATCHES[0] * k for a, k in zip(at, times, strict=True)), times)
    return numbers if list(numbers.of(BATCHES[2])) == third.reshape(-1).tolist() else None

"""Rewriting a finished ONNX graph by rules, and the parts that they are made of.

A rule says in one class which operators it looks at, whether it fits one of them, and what it then does. `rewrite`
walks the graph once, in its order; so a rule can rely on what was done to everything that a node reads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir


class Rule(ABC):
    """One way of changing a node and what is around it."""

    #: Types of the operators that it looks at; None: all.
    pattern: ClassVar[frozenset[str] | None] = None

    @abstractmethod
    def check(self, node: ir.Node) -> bool:
        """Whether it fits a node of the pattern."""

    @abstractmethod
    def rewrite(self, node: ir.Node) -> None:
        """Do it, in place."""


def rewrite(graph: ir.Graph, rules: Sequence[Rule]) -> None:
    """Rewrite every node that is in the graph now by each rule that fits it, in the order of the rules."""
    for node in list(graph):
        for rule in rules:
            if (rule.pattern is None or node.op_type in rule.pattern) and rule.check(node):
                rule.rewrite(node)


# ---- parts -----------------------------------------------------------------------------------------------------------


def insert_cast(graph: ir.Graph, value: ir.Value, dtype: ir.DataType, before: ir.Node) -> ir.Value:
    """``value`` as ``dtype``, by a Cast that stands before ``before``."""
    taken = sum(user.op_type == "Cast" for user, _ in value.uses())
    suffix = dtype.name.lower() + (f"_{taken}" if taken else "")
    cast = cast_node(value, dtype, f"{value.name}_{suffix}", f"{value.name}/Cast_{suffix}")
    graph.insert_before(before, cast)
    return cast.outputs[0]


def cast_node(value: ir.Value, dtype: ir.DataType, name: str, node_name: str) -> ir.Node:
    """A Cast whose output is called ``name``; it belongs to no graph yet."""
    out = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
    return ir.Node("", "Cast", [value], [ir.AttrInt64("to", int(dtype))], outputs=[out], name=node_name)


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """A new initializer of the graph."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def drop_unused(graph: ir.Graph) -> None:
    """Remove initializers that nothing reads any more."""
    outputs = set(graph.outputs)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and value not in outputs:
            del graph.initializers[name]

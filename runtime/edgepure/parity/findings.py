"""The first layer of a graph that diverges, and what usually causes it. Who finds it needs more than a runtime."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..report.numerals import number


@dataclass(frozen=True)
class LayerError:
    """One layer of a graph beside its reference.

    Attributes:
        node: name of the ONNX node whose output was compared.
        operator: its type.
        module: the PyTorch module that it came from.
        relative_l2, max_abs: difference of its output.
    """

    node: str
    operator: str
    module: str
    relative_l2: float
    max_abs: float


@dataclass(frozen=True)
class LayerFinding:
    """Where a graph begins to differ.

    Attributes:
        graph: of the bundle.
        reference: what it was compared with.
        layers: every layer that could be compared, in the order of execution.
        first: index into ``layers`` of the one that diverges; None if no layer does although the output differs.
        tolerance: relative L2 difference above which a layer has diverged.
        causes: what usually causes this, most likely first.
    """

    graph: str
    reference: str
    layers: tuple[LayerError, ...]
    first: int | None
    tolerance: float
    causes: tuple[str, ...]

    @property
    def layer(self) -> LayerError | None:
        """The first layer that diverges."""
        return None if self.first is None else self.layers[self.first]

    def __bool__(self) -> bool:
        return self.first is not None

    def __str__(self) -> str:
        layer = self.layer
        if layer is None:
            return (
                f"graph {self.graph}: none of {len(self.layers)} layers differs from {self.reference} when their "
                f"outputs are all looked at; {self._usual}"
            )
        before = max((entry.relative_l2 for entry in self.layers[: self.first]), default=0.0)
        return (
            f"graph {self.graph}: the first layer that leaves {self.reference} is {layer.module} ({layer.operator}, "
            f"node {layer.node}): off by {number(layer.relative_l2, 2)} (relative L2), the layers before it by at most "
            f"{number(before, 2)}; {self._usual}"
        )

    @property
    def _usual(self) -> str:
        return f"usual causes: {'; '.join(self.causes)}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        layer = self.layer
        return {
            "graph": self.graph,
            "reference": self.reference,
            "module": None if layer is None else layer.module,
            "node": None if layer is None else layer.node,
            "tolerance": self.tolerance,
            "causes": list(self.causes),
            "layers": [asdict(entry) for entry in self.layers],
        }

"""Which of ONNX Runtime's integer convolutions is the faster one on this processor, measured with the network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import GraphName
from edgepure.engines.kind import Scheme
from edgepure.engines.kinds import KINDS
from edgepure.rows.plan import Plan
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range

from .draft import DraftPurifier, build
from .speed import compare_speed

KernelName = Literal["direct", "matrix product"]
#: How the weights of convolutions have to be stored to get a kernel; both compute the same.
KERNELS: dict[str, Scheme] = {
    scheme.kernel: scheme for row in KINDS.values() for scheme in row.schemes.get("int8", ()) if scheme.kernel
}
#: The direct kernel is the better one on most processors, and a bundle may be run on another one: so it has to be
#: beaten by this factor.
ADVANTAGE = 1.05
BATCHES = (1, 8)


@dataclass(frozen=True)
class KernelChoice:
    """The kernel to be used, and how many times faster the matrix product was at each of `BATCHES`."""

    name: KernelName
    ratios: tuple[float, ...]

    @property
    def scheme(self) -> Scheme:
        """How to store the weights."""
        return KERNELS[self.name]


def fastest_kernel(
    bundle: Bundle,
    graph: GraphName,
    plan: Plan,
    ranges: Mapping[Tap, Range],
    work: Path,
    keep: Collection[str] = (),
    threads: int | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> KernelChoice:
    """Time the int8 step graph with each kernel, side by side in the same rounds.

    Args:
        bundle, graph: the step graph that ``plan`` uses.
        plan: what is run.
        ranges: of the activations.
        work: a folder for the two drafts; they are left there.
        keep: layers that stay in fp32.
        threads: CPU threads; None: one per core.
        on_progress: called with the share done.
    """
    direct, product = (
        DraftPurifier(
            bundle, build(bundle, "int8", "cpu", work / name, ranges, keep, (graph,), scheme=scheme), threads=threads
        )
        for name, scheme in (("direct", KERNELS["direct"]), ("product", KERNELS["matrix product"]))
    )
    with direct, product:
        ratios = tuple(s.ratio for s in compare_speed(direct, product, plan, BATCHES, on_progress=on_progress))
    faster = prod(ratios) > ADVANTAGE ** len(ratios)
    return KernelChoice("matrix product" if faster else "direct", ratios)

"""For every graph that failed a verification: the first layer that diverges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgepure.bundle.bundle import Bundle
from edgepure.parity.checks import OutputCheck
from edgepure.parity.findings import LayerFinding
from edgepure.parity.verification import Verification

from .bisect import bisect_graphs, bisect_module
from .onnx_probe import OnnxProbe

if TYPE_CHECKING:
    from torch import nn


def find_layers(
    bundle: Bundle,
    found: Verification,
    *,
    modules: Mapping[str, tuple[nn.Module, Sequence[str]]] | None = None,
    reference: tuple[str, str] | None = None,
    threads: int | None = None,
) -> tuple[LayerFinding, ...]:
    """Bisect the graphs that failed level 1.

    Args:
        bundle: what was verified.
        found: the result.
        modules: by graph, the PyTorch module that it was exported from and the names of its inputs in order.
        reference: without modules: provider and precision of the graphs to compare with; None: ``cpu``, ``fp32``.
        threads: CPU threads.

    Returns:
        One finding for each failing graph that can be bisected. A graph that gives a wrong shape cannot, and one cannot
        be compared with itself.
    """
    provider, precision = reference or ("cpu", "fp32")
    findings = []
    for name in failing(found):
        inside = next(e.precision for graph, e in bundle.manifest.graphs_in(found.precision).items() if graph == name)
        deployed_path, reference_path = bundle.graph_path(name, found.precision), bundle.graph_path(name, precision)
        if modules is None and (deployed_path, found.provider) == (reference_path, provider):
            continue
        feeds = bundle.selftest().graphs[name].inputs
        deployed = OnnxProbe(deployed_path, found.provider, threads, inside)
        if modules is not None:
            module, order = modules[name]
            findings.append(
                bisect_module(name, deployed, module, feeds, order, precision=inside, provider=found.provider)
            )
            continue
        other = OnnxProbe(reference_path, provider, threads, precision)
        against = f"the {precision} graph on {provider}"
        findings.append(
            bisect_graphs(name, deployed, other, feeds, precision=inside, against=against, provider=found.provider)
        )
    return tuple(findings)


def failing(found: Verification) -> list[str]:
    """Names of the graphs with a failing output that could be compared."""
    checks = [part for part in found.levels[0].parts if isinstance(part, OutputCheck)]
    return list(dict.fromkeys(c.subject.removeprefix("graph ") for c in checks if not c and not c.problem))

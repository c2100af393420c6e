"""Which operators are rewritten.

Found by a sweep of what exported graphs can contain, on ONNX Runtime 1.19 to 1.31 and OpenVINO 2025.4 to 2026.4,
against PyTorch (`benchmarks.operators`, docs/results/operators.md). No engine says a word about these:

- a pool with ``ceil_mode``: another divisor at the border, or one row too many;
- an AveragePool whose padding counts and differs between the sides: another divisor in ONNX Runtime 1.21 to 1.24;
- a ``Resize`` with ``antialias`` or ``exclude_outside``: left out by OpenVINO, other weights in ONNX Runtime 1.19;
- ``DFT``: other numbers in OpenVINO, and an inverse that ONNX Runtime 1.19 refuses;
- ``IsInf``: false for infinities in OpenVINO;
- ``ReduceLogSumExp`` of large numbers: infinite in OpenVINO before 2026.3.

And this one OpenVINO refuses: a ``Pad`` that goes round (``wrap``).
"""

from __future__ import annotations

import onnx_ir as ir

from .arithmetic import equal_infinity, stable_log_sum_exp
from .fourier import matrix_dft
from .pads import round_pad
from .pools import explicit_pool, padded_pool
from .resizes import matrix_resize


def make_portable(model: ir.Model) -> None:
    """Rewrite a graph in place.

    Raises:
        ExportError: an operator would have to be rewritten, and the size of its input is not fixed.
    """
    graph = model.graph
    for node in list(graph):
        flag = node.attributes.get_int
        match node.op_type:
            case "AveragePool" | "MaxPool":
                if flag("ceil_mode", 0):
                    explicit_pool(graph, node)
                if flag("count_include_pad", 0) and len(set(node.attributes.get_ints("pads", ()))) > 1:
                    padded_pool(graph, node)
            case "Resize":
                if flag("antialias", 0) or flag("exclude_outside", 0):
                    matrix_resize(graph, node)
            case "Pad":
                if node.attributes.get_string("mode", "constant") == "wrap":
                    round_pad(graph, node)
            case "DFT":
                matrix_dft(graph, node)
            case "IsInf":
                equal_infinity(graph, node)
            case "ReduceLogSumExp":
                stable_log_sum_exp(graph, node)

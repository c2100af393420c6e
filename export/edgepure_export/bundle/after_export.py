"""What was exported must be what PyTorch computes: each graph, run by ONNX Runtime on the CPU, against its module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepure.errors import ExportError, words_of
from edgepure.parity.differences import mask_flips

Float32 = NDArray[np.float32]
#: One set of inputs of a graph, by name.
Case = Mapping[str, Tensor]

#: Largest absolute difference, times max(1, largest absolute reference value). Typical values are 1e-6.
DEFAULT_TOLERANCE = 1e-4


@dataclass(frozen=True)
class OutputParity:
    """Differences of one output over all cases.

    Attributes:
        max_abs, mean_abs: absolute differences.
        max_rel: ``max_abs`` over max(1, largest absolute reference value), which the tolerance bounds.
        flipped: for masks, the number of pixels that differ although their attention is not at the threshold.
    """

    output: str
    max_abs: float
    mean_abs: float
    max_rel: float
    flipped: int = 0


@dataclass(frozen=True)
class GraphParity:
    """Result of one graph. ``bool`` is the verdict, ``str`` the one-line story."""

    graph: str
    tolerance: float
    cases: int
    outputs: tuple[OutputParity, ...]

    @property
    def worst(self) -> OutputParity:
        """The output that differs most; of a mask, only flipped pixels count."""

        def size(o: OutputParity) -> tuple[int, float]:
            error = 0.0 if o.output == "mask" else o.max_rel
            return o.flipped, error if np.isfinite(error) else np.inf

        return max(self.outputs, key=size)

    @property
    def max_abs(self) -> float:
        """Largest absolute difference of any output, masks aside."""
        return max((o.max_abs for o in self.outputs if o.output != "mask"), default=0.0)

    def __bool__(self) -> bool:
        # written so that NaN fails
        return all(o.flipped == 0 and (o.output == "mask" or o.max_rel <= self.tolerance) for o in self.outputs)

    def __str__(self) -> str:
        worst = self.worst
        flips = f", {worst.flipped} mask pixels flipped" if worst.flipped else ""
        return (
            f"{self.graph}: {'agrees' if self else 'DIFFERS'} with PyTorch in {self.cases} cases, output "
            f"{worst.output!r} off by at most {worst.max_abs:.2e} (relative {worst.max_rel:.2e}, allowed "
            f"{self.tolerance:.0e}{flips})"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "outputs": [asdict(o) for o in self.outputs], "ok": bool(self)}


def measure(
    graph: str,
    path: Path,
    module: nn.Module,
    cases: Sequence[Case],
    outputs: Sequence[str],
    *,
    tolerance: float = DEFAULT_TOLERANCE,
    threads: int | None = None,
) -> GraphParity:
    """Run the cases through both and compare.

    Args:
        graph: name for the report.
        path: the saved ONNX file.
        module: what it was exported from; called with the inputs of a case in their order.
        cases: inputs; their batch sizes may differ, and should.
        outputs: names of the outputs.
        tolerance: see `DEFAULT_TOLERANCE`.
        threads: CPU threads of ONNX Runtime; None: one per core.

    Raises:
        ExportError: ONNX Runtime cannot load or run the graph.
    """
    session = open_session(path, threads)
    differences: dict[str, list[NDArray[np.float64]]] = {name: [] for name in outputs}
    scales = dict.fromkeys(outputs, 1.0)
    flipped = dict.fromkeys(outputs, 0)
    for found, expected in _pairs(graph, session, module, cases, outputs):
        for name in outputs:
            if found[name].shape != expected[name].shape:
                shapes = f"{list(found[name].shape)} instead of {list(expected[name].shape)}"
                raise ExportError(
                    f"{graph}: ONNX Runtime gives {name!r} with the shape {shapes}", code="E-export-engine-shape"
                )
            differences[name].append(np.abs(found[name].astype(np.float64) - expected[name]).ravel())
            scales[name] = max(scales[name], float(np.abs(expected[name]).max()))
        if "mask" in outputs and "attention" in outputs:
            flipped["mask"] += mask_flips(found["mask"], expected["mask"], expected["attention"], tolerance)
    results = []
    for name in outputs:
        error = np.concatenate(differences[name])
        worst = float(error.max())
        results.append(OutputParity(name, worst, float(error.mean()), worst / scales[name], flipped[name]))
    return GraphParity(graph, tolerance, len(cases), tuple(results))


def require(report: GraphParity) -> None:
    """Raise ExportError if the graph differs from its module by more than the tolerance."""
    if not report:
        raise ExportError(
            f"the exported graph is not what PyTorch computes: {report}; nothing was written. "
            "If the network is that sensitive, pass a larger `tolerance`",
            code="E-export-parity",
        )


def open_session(path: Path, threads: int | None = None) -> Any:
    """A plain ONNX Runtime session on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the runtime opens it
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises many unrelated classes
        raise ExportError(
            f"ONNX Runtime cannot load {path.name}: {words_of(error)}", code="E-export-engine-load"
        ) from error


def run_module(module: nn.Module, case: Case, outputs: Sequence[str]) -> dict[str, Float32]:
    """The module's outputs as arrays."""
    with torch.no_grad():
        values = module(*case.values())
    values = values if isinstance(values, tuple) else (values,)
    return {name: value.detach().cpu().numpy() for name, value in zip(outputs, values, strict=True)}


def _pairs(
    graph: str, session: Any, module: nn.Module, cases: Sequence[Case], outputs: Sequence[str]
) -> Iterator[tuple[dict[str, Float32], dict[str, Float32]]]:
    for case in cases:
        feeds = {name: tensor.detach().cpu().numpy() for name, tensor in case.items()}
        try:
            found = dict(zip(outputs, session.run(list(outputs), feeds), strict=True))
        except Exception as error:  # as above
            batch = len(next(iter(feeds.values())))
            raise ExportError(
                f"ONNX Runtime cannot run the {graph} graph at batch {batch}: {words_of(error)}",
                code="E-export-engine-run",
            ) from error
        yield found, run_module(module, case, outputs)

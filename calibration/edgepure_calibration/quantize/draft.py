"""A variant that is being tried: its graphs in a folder, and a purifier that runs them."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import GraphName, Target, VariantName
from edgepure.engines.base import Engine
from edgepure.engines.kind import Scheme
from edgepure.engines.kinds import DEFAULT_PROVIDER, kind_of
from edgepure.engines.open import open_graph
from edgepure.errors import ExportError, words_of
from edgepure.purify.graphs import open_from_bundle
from edgepure.purify.purifier import Purifier
from edgepure_export.graphs.half_rules import HALF_TYPES
from edgepure_export.graphs.precision import HalfReport, emulated, heavy_nodes, load_graph, to_half
from edgepure_export.graphs.qdq import QdqReport, insert_qdq, quantizable, scheme_of
from edgepure_export.graphs.qdq_rules import Tap
from edgepure_export.graphs.quantized_numbers import Range
from edgepure_export.graphs.weights_pool import WeightsPool

#: The graphs that hold the diffusion network, which runs many times for each decision. The classifier runs once.
GRAPHS: tuple[GraphName, ...] = ("step", "step_learned", "unet")


@dataclass(frozen=True)
class Draft:
    """The graphs of a variant that is not in the bundle yet.

    Attributes:
        precision, target: what it is and what it is for.
        keep: layers in higher precision.
        files: graph name to its file, beside the weights that they share.
        runnable: what can be run of it here: the files themselves, or a twin that computes in fp32 and rounds as they
            do.
        reports: what was converted, by graph and pass.
    """

    precision: VariantName
    target: Target
    keep: tuple[str, ...]
    files: Mapping[GraphName, Path]
    runnable: Mapping[GraphName, Path]
    reports: Mapping[GraphName, dict[str, Any]]

    @property
    def native(self) -> bool:
        """Whether what is measured here is the variant itself."""
        return self.files == self.runnable

    @property
    def opened_as(self) -> str:
        """The precision to open `runnable` as. A twin computes in fp32; only float8 values stay what they are."""
        return self.precision if self.native or self.precision == "fp8" else "fp32"


def layers(bundle: Bundle, graph: GraphName, precision: VariantName) -> list[str]:
    """Names of the operators of a graph that a variant converts, in the order of the graph."""
    model = load_graph(bundle.graph_path(graph))
    return heavy_nodes(model, precision) if precision in HALF_TYPES else quantizable(model)


def build(
    bundle: Bundle,
    precision: VariantName,
    target: Target,
    folder: Path,
    ranges: Mapping[Tap, Range] | None = None,
    keep: Collection[str] = (),
    graphs: Collection[GraphName] = GRAPHS,
    provider: str = DEFAULT_PROVIDER,
    scheme: Scheme | None = None,
) -> Draft:
    """Write the graphs of a variant into ``folder`` (what was there is removed).

    Args:
        ranges: of int8 and fp8. Names of operators are the same in all graphs of a bundle, so one measurement serves
            them all; a graph whose operators are called otherwise is left out.
        keep: names of operators in higher precision.
        graphs: those to make; the ones that the bundle does not have are skipped.
        provider: where the draft is going to be run; if that is not its target, it gets a twin.
        scheme: of int8 and fp8; None: that of the precision and the target.

    Raises:
        ExportError: a graph cannot be converted.
    """
    shutil.rmtree(folder, ignore_errors=True)
    files: dict[GraphName, Path] = {}
    reports: dict[GraphName, dict[str, Any]] = {}
    twins: dict[GraphName, Path] = {}
    native = target == provider and precision not in kind_of(provider).lacks
    (folder / "twin").mkdir(parents=True)
    with WeightsPool(folder) as pool, WeightsPool(folder / "twin") as twin_pool:
        for graph in graphs:
            if graph not in bundle.manifest.graphs:
                continue
            model = load_graph(bundle.graph_path(graph))
            if ranges is not None and not set(quantizable(model)) <= {name for name, _ in ranges}:
                continue
            reports[graph] = _convert(model, precision, target, ranges, keep, scheme)
            files[graph] = pool.save(model, f"{graph}.onnx")
            if not native:
                emulated(model)
                twins[graph] = twin_pool.save(model, f"{graph}.onnx")
    for path in files.values():
        _check(path)
    return Draft(precision, target, tuple(sorted(keep)), files, files if native else twins, reports)


def _convert(
    model: Any,
    precision: VariantName,
    target: Target,
    ranges: Mapping[Tap, Range] | None,
    keep: Collection[str],
    scheme: Scheme | None,
) -> dict[str, Any]:
    """Convert in place.

    On a GPU what is not quantized runs in fp16: engines are strongly typed. For OpenVINO the heavy operators that are
    not quantized, like attention's products of two activations, go to bf16. The row of the provider says so.
    """
    report: dict[str, Any] = {}
    if precision in HALF_TYPES:
        half: HalfReport = to_half(model, precision, keep)
        return {"half": asdict(half)}
    assert ranges is not None
    quantized = set(quantizable(model)) - set(keep)
    rest = kind_of(target).unquantized
    qdq: QdqReport = insert_qdq(model, ranges, scheme or scheme_of(precision, target), keep, fp16_scales=rest == "fp16")
    report["qdq"] = asdict(qdq)
    if rest == "bf16":
        report["half"] = asdict(to_half(model, rest, quantized))
    elif rest == "fp16":
        report["half"] = asdict(to_half(model, rest))
    return report


def _check(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # the checker raises classes of its own
        raise ExportError(
            f"{path.name} did not become a valid ONNX graph: {words_of(error)}", code="E-variant-graph"
        ) from error


class DraftPurifier(Purifier):
    """A bundle with some of its graphs replaced by those of a draft."""

    def __init__(
        self,
        bundle: Bundle,
        draft: Draft,
        provider: str = DEFAULT_PROVIDER,
        *,
        threads: int | None = None,
        slots: int = 8,
    ) -> None:
        def opens(bundle: Bundle, graph: str, provider: str, precision: str, threads: int | None) -> Engine:
            path = next((file for name, file in draft.runnable.items() if name == graph), None)
            if path is None:
                return open_from_bundle(bundle, graph, provider, precision, threads)
            return open_graph(path, provider, precision=draft.opened_as, threads=threads)

        super().__init__(bundle, provider, threads=threads, slots=slots, opens=opens)

"""The graphs of a bundle: which there are, their export into one folder, and the proof that they agree with PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepure.bundle.entries import GraphEntry, GraphName, TensorEntry, graph_signature
from edgepure.errors import ExportError
from edgepure.images.spec import ImageSpec
from edgepure.types import Progress

from ..graphs.attention import MapsAlone, MaskModule
from ..graphs.inner import inner_graph
from ..graphs.step import LearnedStepModule, StepModule, TracedStep, UnetModule
from ..graphs.to_onnx import Graph, check_file, export_graph, finished, trace
from ..graphs.weights_pool import WeightsPool
from . import after_export as parity
from .cases import Cases
from .tasks import TaskModule


class ClassifierModule(nn.Module):
    """The classifier alone: image [B, C, H, W] in [0, 1] -> logits [B, N]."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.classifier(image)
        return logits


@dataclass(frozen=True, eq=False)
class Whole:
    """What is traced in place of several graphs that are inside; ``name``: whose cases are its examples."""

    name: GraphName
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One graph to export.

    Attributes:
        multiple: of images of any size, whose sides are multiples of it.
        whole: what it is a part of; None: it is traced itself.
        places: which values of the whole its inputs are, where they have other names there.
    """

    name: GraphName
    module: nn.Module
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    multiple: int | None = None
    whole: Whole | None = None
    places: Mapping[str, str] = field(default_factory=dict)

    def select(self, case: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The inputs of a case in the order of the module's arguments."""
        return {key: case[key] for key in self.inputs}


def bundle_parts(
    classifier: nn.Module | None,
    unet: nn.Module,
    mask: MaskModule | None,
    learned: bool,
    task: TaskModule | None = None,
    multiple: int | None = None,
) -> list[Part]:
    """The graphs of a bundle. A network with a learned variance has both step graphs; without a classifier ``mask`` is
    that of a backbone. With ``multiple`` there is a step graph for images of any size, whose sides are multiples of
    it, too."""
    state = ("x", "ref", "noise", "mask", "coeffs")
    settings = ("image", "threshold", "area", "rule")
    parts = []
    tapped = None
    if mask is not None and classifier is not None:
        tapped = Whole("mask", mask, settings, ("logits", "mask", "attention"))
    if classifier is not None:
        parts.append(Part("classifier", ClassifierModule(classifier), ("image",), ("logits",), whole=tapped))
    if tapped is not None:
        parts.append(Part("mask", tapped.module, settings, tapped.outputs, whole=tapped))
    elif mask is not None:
        parts.append(Part("mask", MapsAlone(mask), settings, ("mask", "attention")))
    row = Whole("step", TracedStep(unet), state, TracedStep.OUTPUTS)
    parts.append(Part("step", StepModule(unet), state, ("x_next",), whole=row))
    if learned:
        parts.append(Part("step_learned", LearnedStepModule(unet), (*state, "noise_out"), ("x_next",)))
    if multiple is not None:
        parts.append(Part("step_any", StepModule(unet), state, ("x_next",), multiple))
    if task is not None:
        parts.append(Part("task", task, ("image",), task.names))
    parts.append(Part("unet", UnetModule(unet), ("x", "t"), ("epsilon",), whole=row, places={"x": "z"}))
    return parts


def export_parts(
    parts: Sequence[Part],
    cases: Cases,
    folder: Path,
    classes: int,
    opset: int,
    report: Progress,
) -> dict[GraphName, Graph]:
    """Write ``<name>.onnx`` of every part, and the weights that they share."""
    graphs: dict[GraphName, Graph] = {}
    traced: dict[Whole, ir.Model] = {}
    with WeightsPool(folder) as pool:
        for done, part in enumerate(parts):
            report(0.02 + 0.68 * done / len(parts), f"exporting {part.name}")
            graph = _inside(part, traced, cases, opset)
            if graph is None:
                example = part.select(cases.of(part.name)[0])
                graph = export_graph(part.name, part.module, example, part.outputs, opset=opset, multiple=part.multiple)
            graphs[part.name] = _in_order(graph, cases.image_of(part.name), classes)
            pool.save(graph.model, f"{part.name}.onnx")
    return graphs


def _inside(part: Part, traced: dict[Whole, ir.Model], cases: Cases, opset: int) -> Graph | None:
    """A part of what was traced already, or is now; None: it must be traced itself."""
    whole = part.whole
    if whole is None:
        return None
    if whole not in traced:
        case = cases.of(whole.name)[0]
        examples = {key: case[key] for key in whole.inputs}
        traced[whole] = trace(part.name, whole.module, examples, whole.outputs, opset=opset)
    model = inner_graph(traced[whole], {key: part.places.get(key, key) for key in part.inputs}, part.outputs)
    return None if model is None else finished(part.name, model, part.inputs, opset=opset)


def compare_parts(
    parts: Sequence[Part],
    cases: Cases,
    folder: Path,
    tolerance: float | Mapping[str, float],
    threads: int | None,
    report: Progress,
) -> tuple[dict[str, parity.GraphParity], dict[str, NDArray[Any]]]:
    """Parity of each graph (ExportError above the tolerance), and the self-test vectors of its first case."""
    results: dict[str, parity.GraphParity] = {}
    vectors: dict[str, NDArray[Any]] = {}
    for done, part in enumerate(parts):
        report(0.7 + 0.2 * done / len(parts), f"comparing {part.name} with PyTorch")
        path = folder / f"{part.name}.onnx"
        check_file(path)
        mine = [part.select(case) for case in cases.of(part.name)]
        allowed = tolerance.get(part.name, parity.DEFAULT_TOLERANCE) if isinstance(tolerance, Mapping) else tolerance
        result = parity.measure(part.name, path, part.module, mine, part.outputs, tolerance=allowed, threads=threads)
        parity.require(result)
        results[part.name] = result
        outputs = parity.run_module(part.module, mine[0], part.outputs)
        vectors.update({f"{part.name}/in/{key}": tensor.numpy() for key, tensor in mine[0].items()})
        vectors.update({f"{part.name}/out/{key}": value for key, value in outputs.items()})
    return results, vectors


def graph_entry(graph: Graph) -> GraphEntry:
    """How the manifest lists a graph."""
    return GraphEntry(
        file=f"{graph.name}.onnx", opset=graph.opset, inputs=_tensors(graph.inputs), outputs=_tensors(graph.outputs)
    )


def _in_order(graph: Graph, image: ImageSpec, classes: int) -> Graph:
    """Put the inputs into the order of the bundle format, and check the signature."""
    found_outputs = _tensors(graph.outputs)
    inputs, outputs = graph_signature(graph.name, image, classes, found_outputs)  # type: ignore[arg-type]
    by_name = {str(value.name): value for value in graph.model.graph.inputs}
    if set(by_name) != {entry.name for entry in inputs}:
        raise ExportError(f"{graph.name}: the graph has the inputs {sorted(by_name)}", code="E-graph-inputs")
    graph.model.graph.inputs[:] = [by_name[entry.name] for entry in inputs]
    specs = {spec.name: spec for spec in graph.inputs}
    ordered = Graph(graph.name, graph.model, tuple(specs[e.name] for e in inputs), graph.outputs, graph.opset)
    for found, expected in ((_tensors(ordered.inputs), inputs), (_tensors(ordered.outputs), outputs)):
        if found != expected:
            raise ExportError(
                f"{graph.name}: the graph has {found}, the bundle format asks for {expected}", code="E-graph-signature"
            )
    return ordered


def _tensors(specs: Sequence[Any]) -> tuple[TensorEntry, ...]:
    return tuple(TensorEntry(name=s.name, shape=s.shape) for s in specs)

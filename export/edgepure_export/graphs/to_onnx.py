"""From a PyTorch module to one ONNX graph that any of our engines accepts, or a clear reason why not.

What every graph of a bundle has: a dynamic batch axis on all inputs and outputs, the standard operator domain alone, no
random operators (TensorRT ignores their seeds), and node names that lead back to module names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgepure.errors import ExportError, words_of

from . import translations
from .portable.rewrites import make_portable
from .tidy import SIZE, keep_padding, name_nodes, name_sizes, nodes, strip

#: The portable opset: TensorRT 10.3 to 11 and ONNX Runtime from 1.17 on.
OPSET = 20
#: Name of the dynamic first axis.
BATCH = "batch"
RANDOM_OPERATORS = {
    "Bernoulli",
    "Dropout",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph; ``shape`` begins with `BATCH`."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Graph:
    """An exported graph, its weights still in memory (shared with the module where possible)."""

    name: str
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int


def export_graph(
    name: str,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    opset: int = OPSET,
    multiple: int | None = None,
) -> Graph:
    """Trace a module to ONNX.

    Args:
        name: name of the graph, the root of its node names.
        module: called with the inputs in order; exported in eval mode, without gradients.
        inputs: example tensors by name, float32, batch of at least 2 (a batch of 1 would become a constant).
        outputs: names of the outputs, in order.
        opset: 20 is portable; 21 has GroupNormalization, for TensorRT from 10.9 on.
        multiple: images may have any height and width that are multiples of it, those of the examples among them; None:
            they have the size of the examples.

    Raises:
        ExportError: the module cannot be traced, or its graph breaks one of the rules in the module's text.
    """
    model = trace(name, module, inputs, outputs, opset=opset, multiple=multiple)
    return finished(name, model, list(inputs), opset=opset, multiple=multiple)


def trace(
    name: str,
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    opset: int = OPSET,
    multiple: int | None = None,
) -> ir.Model:
    """The first half of `export_graph`: what PyTorch's exporter makes of the module."""
    for key, tensor in inputs.items():
        if tensor.shape[0] < 2:
            raise ExportError(
                f"{name}: example input {key!r} has batch {tensor.shape[0]}; trace with 2 or more",
                code="E-graph-example",
            )
    # The exporter merges inputs that are the same tensor object into one.
    examples = tuple(tensor.detach().clone() for tensor in inputs.values())
    with evaluating(module), _quiet():
        try:
            program = torch.onnx.export(
                module,
                examples,
                dynamo=True,
                opset_version=opset,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=_open_axes(examples, multiple),
                custom_translation_table=translations.table(opset),
                optimize=True,
                verbose=False,
            )
        except ExportError:
            raise
        except Exception as error:  # the exporter wraps causes of every kind
            raise ExportError(
                f"the {name} network cannot be traced to ONNX: {_cause(error)}", code="E-graph-trace"
            ) from error
    assert program is not None
    model: ir.Model = program.model
    return model


def finished(
    name: str, model: ir.Model, inputs: Sequence[str], *, opset: int = OPSET, multiple: int | None = None
) -> Graph:
    """The second half of `export_graph`: a traced model, or a part of one, becomes a graph; it is changed in place."""
    _check_operators(name, model)
    make_portable(model)
    keep_padding(model)
    name_nodes(name, model)
    strip(name, model)
    if multiple is not None:
        name_sizes(name, model)
    graph = Graph(
        name,
        model,
        tuple(_spec(name, value, any_size=multiple is not None) for value in model.graph.inputs),
        tuple(_spec(name, value, any_size=multiple is not None) for value in model.graph.outputs),
        opset,
    )
    found = [spec.name for spec in graph.inputs]
    if found != list(inputs):
        raise ExportError(
            f"{name}: the graph has the inputs {found} instead of {list(inputs)}; every input must be used",
            code="E-graph-inputs",
        )
    return graph


def _open_axes(examples: Sequence[Tensor], multiple: int | None) -> tuple[dict[int, Any], ...]:
    """Which axes of each input may have another length."""
    if multiple is None:
        return tuple({0: BATCH} for _ in examples)
    batch, *size = (torch.export.Dim(name, max=1 << 20) for name in (BATCH, *SIZE))
    height, width = (multiple * one if multiple > 1 else one for one in size)
    return tuple({0: batch, 2: height, 3: width} if one.ndim == 4 else {0: batch} for one in examples)


def check_file(path: Path) -> None:
    """Run ONNX's own checker on a saved graph, external data included; ExportError with its first line."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # checker and shape inference raise classes of their own
        raise ExportError(
            f"{path.name} is not a valid ONNX graph: {words_of(error)}; simplify the module", code="E-graph-invalid"
        ) from error


def _check_operators(name: str, model: ir.Model) -> None:
    if model.functions:
        raise ExportError(
            f"{name}: the graph has local functions, which engines may not inline; simplify the module",
            code="E-graph-functions",
        )
    found = list(nodes(model))
    domains = sorted({node.domain for node in found} - {"", "ai.onnx"})
    if domains:
        raise ExportError(
            f"{name}: the graph needs custom operator domains {domains}; only standard ONNX is portable",
            code="E-graph-domains",
        )
    random = sorted({node.op_type for node in found} & RANDOM_OPERATORS)
    if random:
        raise ExportError(
            f"{name}: the graph draws random numbers ({', '.join(random)}), but engines ignore their seeds; "
            "make the noise an input of the module, and leave out dropout",
            code="E-graph-random",
        )


def _spec(name: str, value: ir.Value, *, any_size: bool = False) -> TensorSpec:
    dims = list(value.shape) if value.shape is not None else []
    first = dims[0] if dims else None
    if not isinstance(first, ir.SymbolicDim) or first.value != BATCH:
        raise ExportError(
            f"{name}: the batch axis of {value.name!r} became {first}, not dynamic; "
            "the module must not use the batch size as a number (write reshape(-1, ...) or flatten(1))",
            code="E-graph-batch-axis",
        )
    fixed = dims[1:2] if any_size and len(dims) == 4 else dims[1:]
    if any(not isinstance(dim, int) for dim in fixed):
        raise ExportError(
            f"{name}: {value.name!r} has the shape {dims}; every axis but the batch must be fixed",
            code="E-graph-fixed-axes",
        )
    if value.dtype != ir.DataType.FLOAT:
        raise ExportError(f"{name}: {value.name!r} is {value.dtype}, expected float32", code="E-graph-float32")
    rest = [dim if isinstance(dim, int) else str(dim.value) for dim in dims[1:]]
    return TensorSpec(str(value.name), (BATCH, *rest), "float32")


@contextmanager
def evaluating(*modules: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for a while; the training flags come back as they were."""
    training = [m for module in modules for m in module.modules() if m.training]
    for m in training:
        m.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for m in training:
            m.training = True


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of its internals in warnings and logs; what a user must know is raised."""
    loggers = [logging.getLogger(n) for n in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The innermost cause in one sentence; the exporter's usual complaints in words that say what to change."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ExportError):
        return str(error)
    text = str(error)
    if "inferred a static shape" in text or "Constraints violated" in text:
        return "it uses the batch size of the example as a number; write reshape(-1, ...) or flatten(1) in its place"
    if "data-dependent" in text:
        return "its forward pass decides by the values of a tensor (an `if` or a size that depends on data)"
    return f"{type(error).__name__}: {words_of(error)}"

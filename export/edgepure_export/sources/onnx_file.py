"""The scheme ``onnx``: a classifier from an ONNX file that takes images and gives logits.

``onnx:FILE``; options ``mean`` and ``std`` (numbers separated by commas, for images in [0, 1]; a network of 0..255 has
``std=0.00392156862745098``), ``resize`` (`preprocessing.RESIZES`), ``size`` (where the file leaves it open), ``order``
(``rgb`` or ``bgr``), ``layout`` (``nchw`` or ``nhwc``) and ``output`` (where there are several). Nothing in the file is
run but operators that `edgepure_export.twin.onnx_operators` knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import version_converter
from torch import Tensor, nn

from edgepure.errors import EdgepureError, ExportError, words_of

from ..twin.onnx_module import OPSETS, OnnxModule
from .preprocessing import RESIZES, Preprocessed, Transform, describe
from .scheme import ClassifierSource, SourceText, classifier_scheme, origin_of

#: The operator set that files of older ones are converted to.
_CONVERTED = 17


class _Outputs(nn.Module):
    """The graph as a function from images [B, C, H, W] to all of its outputs by name."""

    def __init__(self, graph: OnnxModule, last: bool) -> None:
        super().__init__()
        self.graph, self.last = graph, last

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        found: Any = self.graph(image.permute(0, 2, 3, 1) if self.last else image)
        values = found if isinstance(found, tuple) else (found,)
        return dict(zip(self.graph.output_names, values, strict=True))


class _Logits(nn.Module):
    """The graph as a function from images [B, C, H, W] to one of its outputs."""

    def __init__(self, graph: OnnxModule, output: int, last: bool) -> None:
        super().__init__()
        self.graph, self.output, self.last = graph, output, last

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 2, 3, 1) if self.last else image
        found: Any = self.graph(x)
        logits: Tensor = found[self.output] if isinstance(found, tuple) else found
        return logits.flatten(1)


@classifier_scheme("onnx")
def onnx_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``onnx:FILE``, for example ``onnx:resnet50.onnx?mean=0.485,0.456,0.406&std=0.229,0.224,0.225``."""
    source.allow("mean", "std", "resize", "size", "order", "layout", "output")
    return _source(source, image_size, whole=False)


def onnx_task(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """The same of a graph with other outputs than logits: the module gives all of them by name."""
    source.allow("mean", "std", "resize", "size", "order", "layout")
    return _source(source, image_size, whole=True)


def _source(source: SourceText, image_size: tuple[int, int] | None, *, whole: bool) -> ClassifierSource:
    last = source.choice("layout", "nchw", "nhwc") == "nhwc"
    resize, size = source.choice("resize", *RESIZES), source.number("size")
    mean, std = source.numbers("mean"), source.numbers("std")
    file = Path(source.place)
    model = _read(file, source)
    try:
        graph = OnnxModule(model, file.parent, file.name)
    except EdgepureError as error:
        hint = ""
        if any(node.op_type == "NonMaxSuppression" for node in model.graph.node):
            hint = "; a detector is exported without its suppression, which edgepure does (docs/tasks.md)"
        raise ExportError(f"{source.text}: {error}{hint}", code="E-source-onnx-operator") from error
    shape = _image_shape(model, graph, last, source)
    output = source.options.get("output", graph.output_names[0])
    if whole:
        output = graph.output_names[0]
    elif output not in graph.output_names or ("output" not in source.options and len(graph.output_names) > 1):
        raise ExportError(
            f"{source.text}: the graph has the outputs {', '.join(graph.output_names)}; name the one with the logits "
            "(?output=NAME)",
            code="E-source-onnx-output",
        )
    network = _Outputs(graph, last) if whole else _Logits(graph, graph.output_names.index(output), last)
    own = (shape[1], shape[2]) if shape[1] and shape[2] else None
    if own is not None and size is not None and own != (size, size):
        raise ExportError(
            f"{source.text}: the graph takes {own[0]} x {own[1]}, not {size}; leave the size out",
            code="E-source-onnx-size",
        )
    _fix(graph, shape[0], own or ((size, size) if size else image_size), last)
    if mean is not None or std is not None:
        mean, std = mean or (0.0,) * len(std or ()), std or (1.0,) * len(mean or ())
        if len(mean) != len(std):
            raise ExportError(f"{source.text}: mean and std have different lengths", code="E-source-mean-std")
    transform = Transform(
        own or ((size, size) if size else None), mean=mean, std=std, bgr=source.choice("order", "rgb", "bgr") == "bgr"
    ).fitted(resize, None)
    if resize == "none":
        transform = Transform(own or image_size, mean=mean, std=std, bgr=transform.bgr)
    preprocessed = Preprocessed(network, transform, image_size)
    return ClassifierSource(preprocessed, origin_of(source, file), network=network, preprocessing=describe(transform))


def _fix(graph: OnnxModule, channels: int | None, size: tuple[int, int] | None, last: bool) -> None:
    """Let the graph be exported again, where the size of its images is known."""
    if size is not None:
        for count in [3, 1] if channels is None else [channels]:
            try:
                graph.fixed(*((*size, count) if last else (count, *size)))
                return
            except Exception:  # what is wrong with the network is said when it is run
                continue


def _read(file: Path, source: SourceText) -> onnx.ModelProto:
    """The model, in an operator set that is known; its weights may lie beside it."""
    if not file.is_file():
        raise ExportError(f"{source.text}: there is no such file; check the path", code="E-source-file-missing")
    try:
        model = onnx.load(file, load_external_data=False)
        opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
        if opset and opset < OPSETS.start:
            model = version_converter.convert_version(model, _CONVERTED)
    except Exception as error:  # protobuf's and the converter's own classes
        raise ExportError(
            f"{source.text}: {file.name} is not a usable ONNX graph ({words_of(error)})",
            code="E-source-onnx-file",
        ) from error
    return model


def _image_shape(
    model: onnx.ModelProto, graph: OnnxModule, last: bool, source: SourceText
) -> tuple[int | None, int | None, int | None]:
    """Channels, height and width of the one input; None where the file leaves them open.

    Raises:
        ExportError: several inputs, no image, another type than float32, or a batch that cannot be another one.
    """
    inputs = [value for value in model.graph.input if value.name in graph.input_names]
    if len(inputs) != 1:
        raise ExportError(
            f"{source.text}: the graph has {len(inputs)} inputs, expected the images alone", code="E-source-onnx-inputs"
        )
    kind = inputs[0].type.tensor_type
    dims = [d.dim_value or None for d in kind.shape.dim]
    if len(dims) != 4 or kind.elem_type != onnx.TensorProto.FLOAT:
        raise ExportError(
            f"{source.text}: the graph's input is no float32 image [B, C, H, W]; export it with one",
            code="E-source-onnx-image",
        )
    channels, h, w = (dims[3], dims[1], dims[2]) if last else (dims[1], dims[2], dims[3])
    if dims[0] is not None and not _takes_two(graph, dims):
        raise ExportError(
            f"{source.text}: the graph takes exactly {dims[0]} image(s) a call, and images share calls; export it "
            "again with a dynamic batch",
            code="E-source-onnx-batch",
        )
    if channels is not None and channels not in (1, 3):
        raise ExportError(
            f"{source.text}: the graph's input has {channels} channels; say layout=nhwc if they come last",
            code="E-source-onnx-channels",
        )
    return channels, h, w


def _takes_two(graph: OnnxModule, dims: list[int | None]) -> bool:
    """Whether a graph that was written for a batch of one gives two answers for two images."""
    try:
        with torch.no_grad():
            found = graph(torch.zeros([2, *(d or 1 for d in dims[1:])]))
    except Exception:  # a Reshape to one row, whatever the operator says
        return False
    return all(len(f) == 2 for f in (found if isinstance(found, tuple) else (found,)))

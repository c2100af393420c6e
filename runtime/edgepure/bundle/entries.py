"""Entries of the manifest: graphs and their tensors, files, where the bundle comes from."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from ..images.spec import ImageSpec
from ..rows.plan import COLUMNS, LEARNED_COLUMNS
from ..validation import Entry
from .names import RelativePath

GraphName = Literal["classifier", "mask", "step", "step_learned", "step_any", "task", "unet"]
GRAPH_NAMES: tuple[GraphName, ...] = ("classifier", "mask", "step", "step_learned", "step_any", "task", "unet")
#: Precisions that a bundle may have beside the fp32 in which it was exported.
VariantName = Literal["fp16", "bf16", "int8", "fp8"]
#: A provider whose engine a variant was made for; which there are is said by `edgepure.engines.kinds`.
Target = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
VARIANT_NAMES: tuple[VariantName, ...] = ("fp16", "bf16", "int8", "fp8")
PositiveInt = Annotated[int, Field(ge=1)]


class TensorEntry(Entry):
    """One input or output of a graph. The first axis is ``"batch"``, of any size; all others are fixed, but for
    ``"height"`` and ``"width"`` of the graph ``step_any``."""

    name: str = Field(min_length=1, max_length=200)
    shape: tuple[Literal["batch", "height", "width"] | PositiveInt, ...] = Field(min_length=1, max_length=8)
    dtype: Literal["float32"] = "float32"

    @property
    def fixed(self) -> tuple[int, ...]:
        """The sizes that are fixed, in order."""
        return tuple(n for n in self.shape if not isinstance(n, str))


class GraphEntry(Entry):
    """One ONNX graph. ``precision`` is that of the heavy arithmetic inside; inputs and outputs are always float32."""

    file: RelativePath
    opset: int = Field(ge=7, le=1000, description="ONNX operator set of the default domain")
    precision: Literal["fp32", "fp16", "bf16", "int8", "fp8"] = "fp32"
    target: Target | None = Field(None, description="the provider that a variant was made for; null: any")
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]


class AttentionEntry(Entry):
    """Where the attention map of the mask graph comes from: the activations ``A`` of these blocks of the classifier, or
    of the backbone that stands in for one.

    Per block, rule ``minmax`` takes ``sum_c A^2`` and rule ``softmax`` takes ``(sum_c |A|^norm_p)^(1/norm_p)``.
    """

    blocks: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, description="module names")
    norm_p: float = Field(2.0, ge=1.0, description="for the rule softmax")
    input: Literal["own", "official"] = Field(
        "own",
        description="own: the classifier's preprocessing; official: ImageNet mean and std applied to 2 * image - 1",
    )


class AnySizeEntry(Entry):
    """What the graph ``step_any`` takes: whole frames, not only images of the bundle's size."""

    multiple: int = Field(ge=1, le=4096, description="height and width are multiples of it")
    checked: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(
        min_length=2, description="height and width at which it was compared with PyTorch"
    )


class FileEntry(Entry):
    """What a file of the bundle must be."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="lower-case hexadecimal")
    bytes: int = Field(ge=0)


class Provenance(Entry):
    """Where the bundle comes from. For people and reports; nothing is decided by it."""

    created: date
    edgepure_version: str
    torch_version: str
    onnx_version: str
    classifier: str | None = Field(None, description="null: the bundle has none")
    backbone: str | None = Field(None, description="the network whose blocks are tapped, where it is another one")
    task: str | None = Field(None, description="null: the bundle has none")
    diffusion: str
    parity: dict[str, Annotated[float, Field(ge=0.0)]] = Field(
        default_factory=dict, description="largest absolute difference to PyTorch at export, for each graph"
    )


def graph_signature(
    graph: GraphName, image: ImageSpec, classes: int, outputs: tuple[TensorEntry, ...] = ()
) -> tuple[tuple[TensorEntry, ...], tuple[TensorEntry, ...]]:
    """Inputs and outputs that a graph of a bundle must have, in order. Everything is float32, batch first.

    ``classes`` is 0 without a classifier; then the mask graph has no logits either. ``outputs`` are those of a task
    graph, which its `TaskEntry` checks.
    """

    def entry(name: str, *shape: int | Literal["height", "width"]) -> TensorEntry:
        return TensorEntry(name=name, shape=("batch", *shape))

    c, h, w = image.shape
    if graph == "step_any":
        size: tuple[Literal["height"], Literal["width"]] = ("height", "width")
        free = (entry("x", c, *size), entry("ref", c, *size), entry("mask", 1, *size), entry("noise", c, *size))
        return (*free, entry("coeffs", len(COLUMNS))), (entry("x_next", c, *size),)
    logits = (entry("logits", classes),) if classes else ()
    fixed = (entry("x", c, h, w), entry("ref", c, h, w), entry("mask", 1, h, w), entry("noise", c, h, w))
    if graph == "classifier":
        return (entry("image", c, h, w),), logits
    if graph == "task":
        return (entry("image", c, h, w),), outputs
    if graph == "mask":
        inputs = (entry("image", c, h, w), entry("threshold"), entry("area"), entry("rule"))
        maps = (entry("mask", 1, h, w), entry("attention", 1, h, w))
        return inputs, (*logits, *maps)
    if graph == "step":
        return (*fixed, entry("coeffs", len(COLUMNS))), (entry("x_next", c, h, w),)
    if graph == "step_learned":
        columns = len(COLUMNS) + len(LEARNED_COLUMNS)
        return (*fixed, entry("noise_out", c, h, w), entry("coeffs", columns)), (entry("x_next", c, h, w),)
    return (entry("x", c, h, w), entry("t")), (entry("epsilon", c, h, w),)

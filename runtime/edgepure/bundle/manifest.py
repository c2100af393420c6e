"""The manifest of a bundle (``bundle.json``) as typed models. `docs/bundle-format.md` explains every key.

Unknown keys are errors everywhere: a misspelt setting must not pass in silence. ``python -m edgepure.bundle.manifest``
prints the JSON schema that is published as ``docs/bundle.schema.json``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator

from ..errors import BundleError, ConfigError
from ..images.spec import ImageSpec
from ..methods.planner import Planner
from ..methods.presets import Preset
from ..rows.plan import COLUMNS, LEARNED_COLUMNS
from ..rows.schedule import ScheduleSpec
from ..validation import Entry, fault_code, first_fault
from .calibration import Calibration
from .manifest_text import check_counts, parse_json
from .task import TaskEntry

#: Version of the format that this package writes, and the newest one that it reads.
SCHEMA_VERSION = 1
#: The manifest's name in the bundle's directory.
MANIFEST_FILE = "bundle.json"
#: Recorded inputs and outputs.
SELFTEST_FILE = "selftest.npz"
#: What is built on a device lives here; it is not listed in ``files``.
ENGINES_FOLDER = "engines"

GraphName = Literal["classifier", "mask", "step", "step_learned", "step_any", "task", "unet"]
GRAPH_NAMES: tuple[GraphName, ...] = ("classifier", "mask", "step", "step_learned", "step_any", "task", "unet")
#: Precisions that a bundle may have beside the fp32 in which it was exported.
VariantName = Literal["fp16", "bf16", "int8", "fp8"]
#: A provider whose engine a variant was made for; which there are is said by `edgepure.engines.kinds`.
Target = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")]
VARIANT_NAMES: tuple[VariantName, ...] = ("fp16", "bf16", "int8", "fp8")

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_relative_path(text: str) -> str:
    """Return ``text`` if it is a path that may be listed in a bundle.

    Parts are made of ASCII letters, digits, ``.``, ``_`` and ``-``, begin with a letter, a digit or ``_``, and are
    joined by ``/``: so there is no absolute path, no ``..``, no hidden file, and the same name on every system.

    Raises:
        ConfigError: it is not.
    """
    if text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", text):
        raise ConfigError(
            "the path is absolute; a bundle may only name files inside its own folder", code="E-bundle-path-absolute"
        )
    parts = text.split("/")
    if ".." in parts:
        raise ConfigError(
            "the path escapes the bundle with '..'; a bundle may only name files inside its own folder",
            code="E-bundle-path-escape",
        )
    if len(text) > 200 or not all(_SAFE_NAME.fullmatch(part) for part in parts):
        raise ConfigError(
            "not a portable relative path: use letters, digits, '.', '_' and '-' in parts joined by '/', "
            "none beginning with '.', at most 200 characters",
            code="E-bundle-path-portable",
        )
    if text.lower() == MANIFEST_FILE or parts[0].lower() == ENGINES_FOLDER:
        raise ConfigError(
            f"{MANIFEST_FILE} and {ENGINES_FOLDER}/ are reserved and never listed; give the file another name",
            code="E-bundle-path-reserved",
        )
    return text


_CLOSED: dict[str, JsonValue] = {"additionalProperties": False}
# The pattern is for the published schema; the validator gives better reasons.
_PATH_SCHEMA: dict[str, JsonValue] = {"pattern": f"^{_SAFE_NAME.pattern}(/{_SAFE_NAME.pattern})*$", "maxLength": 200}
RelativePath = Annotated[str, AfterValidator(check_relative_path), Field(json_schema_extra=_PATH_SCHEMA)]
PositiveInt = Annotated[int, Field(ge=1)]
PresetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


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


class Manifest(Entry):
    """All of ``bundle.json``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, title="edgepure bundle manifest, schema version 1"
    )

    schema_version: Literal[1] = 1
    name: str = Field(min_length=1, max_length=200)
    image: ImageSpec
    classes: tuple[str, ...] = Field(
        description="names of the classes in the order of the logits, at least 2; none without a classifier"
    )
    task: TaskEntry | None = Field(None, description="what is done with purified images; null: labels, or nothing")
    schedule: ScheduleSpec
    graphs: dict[GraphName, GraphEntry]
    variants: dict[VariantName, dict[GraphName, GraphEntry]] = Field(
        default_factory=dict, description="graphs in another precision; those that are missing are the ones of `graphs`"
    )
    attention: AttentionEntry | None = Field(description="null: the bundle has no mask graph")
    learned_variance: bool = Field(description="true: the network predicts a variance, and step_learned exists")
    any_size: AnySizeEntry | None = Field(None, description="null: the bundle has no graph step_any")
    presets: dict[PresetName, Preset] = Field(min_length=1, json_schema_extra=_CLOSED)
    default_preset: str
    calibration: Calibration | None = Field(None, description="null: nothing was measured yet")
    provenance: Provenance
    files: dict[RelativePath, FileEntry] = Field(min_length=1, max_length=10_000, json_schema_extra=_CLOSED)

    @model_validator(mode="after")
    def _fits_together(self) -> Manifest:
        if self.default_preset not in self.presets:
            raise ConfigError(
                f"default_preset {self.default_preset!r} is not among the presets ({_listed(self.presets)}); "
                "choose one of these",
                code="E-bundle-default-preset",
            )
        for graph, needed, reason in (
            ("classifier", bool(self.classes), f"`classes` is {'given' if self.classes else 'empty'}"),
            ("task", self.task is not None, f"`task` is {'null' if self.task is None else 'given'}"),
            ("step", True, "every bundle needs it"),
            ("mask", self.attention is not None, f"`attention` is {'null' if self.attention is None else 'given'}"),
            ("step_learned", self.learned_variance, f"`learned_variance` is {str(self.learned_variance).lower()}"),
            ("step_any", self.any_size is not None, f"`any_size` is {'null' if self.any_size is None else 'given'}"),
        ):
            if needed != (graph in self.graphs):
                found = "is listed" if graph in self.graphs else "is missing"
                raise ConfigError(f"graph {graph!r} {found}, but {reason}", code="E-bundle-graphs")
        if self.classes and self.task is not None:
            raise ConfigError(
                "there is a classifier and a task; a bundle does one thing with purified images",
                code="E-bundle-two-things",
            )
        if any(mine < least for mine, least in zip(self.task_image.shape, self.image.shape, strict=True)):
            raise ConfigError(
                f"the task takes frames {list(self.task_image.shape[1:])}, and the network images "
                f"{list(self.image.shape[1:])}: a frame is at least as large",
                code="E-bundle-frame",
            )
        if len(self.classes) == 1:
            raise ConfigError(
                "`classes` names one class, expected at least 2, or none without a classifier", code="E-bundle-classes"
            )
        for name, preset in self.presets.items():
            if preset.mask is not None and preset.mask.source == "attention" and "mask" not in self.graphs:
                raise ConfigError(f"preset {name!r} has a mask, but the bundle has no mask graph", code="E-bundle-mask")
        for graph, entry in self.graphs.items():
            self._check_graph(graph, entry)
        for variant, graphs in self.variants.items():
            self._check_variant(variant, graphs)
        if SELFTEST_FILE not in self.files:
            raise ConfigError(
                f"`files` does not list {SELFTEST_FILE}, which every bundle needs", code="E-bundle-selftest"
            )
        folded: dict[str, str] = {}
        for path in self.files:
            other = folded.setdefault(path.lower(), path)
            if other != path:
                raise ConfigError(
                    f"files {other!r} and {path!r} differ only in case; some file systems cannot hold both",
                    code="E-bundle-case",
                )
        return self

    def _check_variant(self, variant: VariantName, graphs: Mapping[GraphName, GraphEntry]) -> None:
        if not graphs:
            raise ConfigError(f"the variant {variant!r} has no graphs; leave it out", code="E-bundle-variant-empty")
        for graph, entry in graphs.items():
            if graph not in self.graphs:
                raise ConfigError(
                    f"the variant {variant!r} has the graph {graph!r}, which `graphs` does not have",
                    code="E-bundle-variant-graph",
                )
            if entry.precision != variant:
                raise ConfigError(
                    f"graph {graph!r} of the variant {variant!r} says precision {entry.precision!r}; "
                    "expected the precision of its variant",
                    code="E-bundle-variant-precision",
                )
            self._check_graph(graph, entry)

    def graphs_in(self, precision: str) -> dict[GraphName, GraphEntry]:
        """The graphs that run in a precision: those of that variant, and the ordinary ones for all others.

        Raises:
            ConfigError: no such precision.
            BundleError: the bundle has no such variant.
        """
        if precision == "fp32":
            return dict(self.graphs)
        if precision not in VARIANT_NAMES:
            raise ConfigError(
                f"unknown precision {precision!r}; choose one of fp32, {', '.join(VARIANT_NAMES)}",
                code="E-precision-unknown",
            )
        for variant, graphs in self.variants.items():
            if variant == precision:
                return {**self.graphs, **graphs}
        raise BundleError(
            f"the bundle {self.name!r} has no {precision} variant; it has {_listed(['fp32', *self.variants])}. Make "
            f"one with `edgepure quantize BUNDLE --precision {precision} --data IMAGES`",
            code="E-bundle-variant",
        )

    def require_classifier(self, what: str) -> None:
        """Raise ConfigError (``E-no-classifier``) if the bundle has no classifier, which ``what`` needs."""
        if "classifier" not in self.graphs:
            raise ConfigError(
                f"{what} needs a classifier, and the bundle {self.name!r} has none; `purify` works without one: use "
                "that, or export the bundle with a classifier (--classifier)",
                code="E-no-classifier",
            )

    def require_task(self) -> TaskEntry:
        """The task; ConfigError (``E-no-task``) if the bundle has none."""
        if self.task is None:
            raise ConfigError(
                f"the bundle {self.name!r} has no task that finds boxes, label maps or vectors; export it with one "
                "(--task KIND SOURCE)",
                code="E-no-task",
            )
        return self.task

    @property
    def task_image(self) -> ImageSpec:
        """Size of the images that are answered: those of the bundle, or the frames of its task."""
        if self.task is None or self.task.frame is None:
            return self.image
        height, width = self.task.frame
        return self.image.model_copy(update={"height": height, "width": width})

    @property
    def framed(self) -> bool:
        """Whether the images that are answered are frames, which are purified by tiles."""
        return self.task_image != self.image

    def require_slots(self, what: str) -> None:
        """Raise ConfigError (``E-task-frame``) if the task takes frames, and ``what`` takes images of a slot."""
        if self.framed:
            height, width = self.task_image.shape[1:]
            raise ConfigError(
                f"{what} takes images that share the slots, and the task of the bundle {self.name!r} takes frames of "
                f"{width} x {height} pixels (width x height), which are purified by tiles one after another: use "
                "`predict`",
                code="E-task-frame",
            )

    def planner(self) -> Planner:
        """Compiles presets and methods to the rows that this bundle runs."""
        return Planner(self.schedule.build(), math.prod(self.image.shape))

    def _check_graph(self, graph: GraphName, entry: GraphEntry) -> None:
        if entry.file not in self.files:
            raise ConfigError(
                f"graph {graph!r} is in the file {entry.file!r}, which `files` does not list",
                code="E-bundle-graph-unlisted",
            )
        if graph == "task" and self.task is not None:
            given = tuple((t.name, t.fixed) for t in entry.outputs)
            fault = self.task.fault(given, self.task_image.shape[1:])
            if fault is not None:
                raise ConfigError(
                    f"graph 'task': {fault}, but the task {self.task.kind!r} asks for {self.task.wanted}",
                    code="E-bundle-task-outputs",
                )
        image = self.task_image if graph == "task" else self.image
        inputs, outputs = graph_signature(graph, image, len(self.classes), entry.outputs)
        for kind, found, expected in (("inputs", entry.inputs, inputs), ("outputs", entry.outputs, outputs)):
            if found != expected:
                raise ConfigError(
                    f"the {kind} of graph {graph!r} are {_signature(found)}, but the image size and the number of "
                    f"classes ask for {_signature(expected)}",
                    code="E-bundle-graph-signature",
                )

    def to_json(self) -> str:
        """The text of ``bundle.json``: sorted keys, two spaces of indent, UTF-8, a newline at the end."""
        data = self.model_dump(mode="json")
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = MANIFEST_FILE) -> Manifest:
        """Parse and check a manifest.

        Args:
            text: the contents of ``bundle.json`` (UTF-8).
            source: how messages name the file.

        Raises:
            BundleError: too large, not JSON, made by a newer edgepure, or a key is unknown, missing or wrong.
        """
        data = parse_json(text, source)
        version = data.get("schema_version")
        if isinstance(version, bool) or not isinstance(version, int) or version < 1:
            found = f"is {json.dumps(version)}" if "schema_version" in data else "is missing"
            raise BundleError(
                f"{source}: schema_version {found}, expected {SCHEMA_VERSION}; this is not the manifest of an edgepure "
                "bundle, or it is damaged: export it again",
                code="E-bundle-version",
            )
        if version > SCHEMA_VERSION:
            raise BundleError(
                f"{source}: this bundle was made by a newer edgepure: its schema_version is {version} and this version "
                f"reads up to {SCHEMA_VERSION}; upgrade edgepure, or export the bundle again with this one",
                code="E-bundle-newer",
            )
        check_counts(data, source)
        if data.get("calibration") == {}:  # how edgepure 0.1 wrote that nothing was measured
            text = json.dumps({**data, "calibration": None})
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            fault = first_fault(error, data, cls.model_json_schema)
            raise BundleError(
                f"{source}: {fault}; correct it, or export the bundle again",
                code=fault_code(error, "E-bundle-manifest-value"),
            ) from None

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Manifest:
        """Build a manifest from Python values, entries as models or as plain data.

        Raises:
            BundleError: a key is unknown, missing or wrong.
        """
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            raise BundleError(
                f"manifest: {first_fault(error, data, cls.model_json_schema)}",
                code=fault_code(error, "E-bundle-manifest-value"),
            ) from None


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


def schema_text() -> str:
    """The JSON schema of ``bundle.json``, as it is published in ``docs/bundle.schema.json``."""
    return json.dumps(Manifest.model_json_schema(), indent=2, sort_keys=True) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _signature(tensors: Iterable[TensorEntry]) -> str:
    return ", ".join(f"{t.name}[{', '.join(str(n) for n in t.shape)}]" for t in tensors) or "none"


if __name__ == "__main__":
    print(schema_text(), end="")

"""The manifest of a bundle (``bundle.json``) as typed models. `docs/bundle-format.md` explains every key.

Unknown keys are errors everywhere: a misspelt setting must not pass in silence. ``python -m edgepure.bundle.manifest``
prints the JSON schema that is published as ``docs/bundle.schema.json``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, ValidationError, model_validator

from ..errors import BundleError, ConfigError
from ..images.spec import ImageSpec
from ..methods.planner import Planner
from ..methods.presets import Preset
from ..rows.schedule import ScheduleSpec
from ..validation import Entry, fault_code, first_fault
from .calibration import Calibration
from .entries import (
    VARIANT_NAMES,
    AnySizeEntry,
    AttentionEntry,
    FileEntry,
    GraphEntry,
    GraphName,
    Provenance,
    TensorEntry,
    VariantName,
    graph_signature,
)
from .manifest_text import check_counts, parse_json
from .names import MANIFEST_FILE, SELFTEST_FILE, RelativePath
from .task import TaskEntry

#: Version of the format that this package writes, and the newest one that it reads.
SCHEMA_VERSION = 1

_CLOSED: dict[str, JsonValue] = {"additionalProperties": False}
PresetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


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

    def preset(self, name: str) -> Preset:
        """The preset of that name; ConfigError (``E-preset-unknown``) if there is none."""
        if name not in self.presets:
            raise ConfigError(
                f"no preset {name!r} in this bundle; it has {_listed(self.presets)}", code="E-preset-unknown"
            )
        return self.presets[name]

    def require_classifier(self, what: str) -> None:
        """Raise ConfigError (``E-no-classifier``) if the bundle has no classifier, which ``what`` needs."""
        if "classifier" not in self.graphs:
            instead = "`purify` works" if self.task is None else "`predict` and `evaluate-task` work"
            raise ConfigError(
                f"{what} needs a classifier, and the bundle {self.name!r} has none; {instead} without one: use that, "
                "or export the bundle with a classifier (--classifier)",
                code="E-no-classifier",
            )

    def require_task(self) -> TaskEntry:
        """The task; ConfigError (``E-no-task``) if the bundle has none."""
        if self.task is None:
            others = "`classify` and `evaluate` use its classifier" if self.classes else "`purify` works without one"
            raise ConfigError(
                f"the bundle {self.name!r} has no task that finds boxes, label maps or vectors; {others}; export it "
                "with one (--task KIND SOURCE)",
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
                f"{what} is about images of the network's size, and the task of the bundle {self.name!r} takes frames "
                f"of {width} x {height} pixels (width x height), which are purified by tiles; leave it out",
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


def schema_text() -> str:
    """The JSON schema of ``bundle.json``, as it is published in ``docs/bundle.schema.json``."""
    return json.dumps(Manifest.model_json_schema(), indent=2, sort_keys=True) + "\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _signature(tensors: Iterable[TensorEntry]) -> str:
    return ", ".join(f"{t.name}[{', '.join(str(n) for n in t.shape)}]" for t in tensors) or "none"


if __name__ == "__main__":
    print(schema_text(), end="")

"""``edgepure inspect``: what a bundle is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .options import BundleArgument, DebugOption, JsonOption

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle
    from ..bundle.calibration import Calibration
    from ..bundle.entries import GraphEntry, TensorEntry
    from ..bundle.task import TaskEntry


def inspect(bundle: BundleArgument, as_json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show what a bundle is made of: images, classes, schedule, graphs, presets with their UNet calls, hashes.

    Examples:

    \b
      edgepure inspect digits
      edgepure inspect digits --json | jq .presets
    """
    from ..bundle.bundle import Bundle
    from .bundle_presets import costs_of
    from .output import emit_json
    from .progress import Progress

    with Progress("checking the hashes"):
        opened = Bundle.open(bundle)
    costs = costs_of(opened.manifest)
    if as_json:
        emit_json(
            {
                **opened.manifest.model_dump(mode="json"),
                "path": str(opened.path),
                "content_hash": opened.content_hash,
                "unet_calls": {name: cost["unet_calls"] for name, cost in costs.items()},
            }
        )
        return
    _print(opened, costs)


def _print(bundle: Bundle, costs: dict[str, dict[str, int]]) -> None:
    from .bundle_presets import PRESET_NOTE, preset_table
    from .output import say, size, table

    manifest = bundle.manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    schedule = manifest.schedule
    attention = manifest.attention
    made = manifest.provenance
    facts = [
        ("name", manifest.name),
        ("folder", str(bundle.path)),
        ("content hash", bundle.content_hash),
        ("size", f"{size(total)} in {len(manifest.files)} files, all hashes match"),
        ("image", f"{manifest.image.channels} x {manifest.image.height} x {manifest.image.width} (C x H x W)"),
        ("classes", f"{len(manifest.classes)}: {_shortened(manifest.classes)}" if manifest.classes else "none"),
        ("schedule", _schedule(schedule.model_dump(exclude_none=True))),
        ("variance", "learned" if manifest.learned_variance else "fixed"),
        ("precision", ", ".join(["fp32", *sorted(manifest.variants)])),
        (
            "attention",
            "none: no mask graph"
            if attention is None
            else f"blocks {', '.join(attention.blocks)}; p = {attention.norm_p:g}; input {attention.input}",
        ),
        ("classifier", made.classifier or "none"),
        *([("backbone", made.backbone)] if made.backbone is not None else []),
        *([("task", f"{_task(manifest.task)}; {made.task}")] if manifest.task is not None else []),
        ("diffusion", made.diffusion),
        ("made", f"{made.created.isoformat()} with edgepure {made.edgepure_version}, torch {made.torch_version}, "
                 f"onnx {made.onnx_version}"),
    ]  # fmt: skip
    table(("what", "value"), facts)
    say("")
    table(
        ("graph", "file", "opset", "precision", "size", "inputs", "outputs", "parity"),
        (_graph(bundle, name, entry) for name, entry in _graphs(bundle)),
        right=("opset", "size", "parity"),
    )
    say("")
    preset_table(manifest, costs)
    say(PRESET_NOTE + "\n")
    if manifest.calibration is not None:
        table(("calibration", "value"), _calibration(manifest.calibration))
        say("")
    table(
        ("file", "bytes", "sha256"),
        ((name, entry.bytes, entry.sha256) for name, entry in sorted(manifest.files.items())),
        right=("bytes",),
    )


def _task(task: TaskEntry) -> str:
    classes = f", {len(task.classes)} classes: {_shortened(task.classes)}" if task.classes else ""
    rules = f"; score {task.score:g}, overlap {task.overlap:g}, most {task.most}" if task.kind == "detection" else ""
    frame = "" if task.frame is None else f"; frames of {task.frame[1]} x {task.frame[0]} (width x height), by tiles"
    return f"{task.kind}{classes}{rules}{frame}"


def _graphs(bundle: Bundle) -> list[tuple[str, GraphEntry]]:
    """The graphs as exported, then those of each variant."""
    manifest = bundle.manifest
    return [item for graphs in (manifest.graphs, *manifest.variants.values()) for item in sorted(graphs.items())]


def _graph(bundle: Bundle, name: str, entry: GraphEntry) -> tuple[object, ...]:
    from .output import size

    manifest = bundle.manifest
    parity = manifest.provenance.parity.get(name) if entry.precision == "fp32" else None  # of the export
    return (
        name, entry.file, entry.opset, entry.precision, size(manifest.files[entry.file].bytes),
        _tensors(entry.inputs), _tensors(entry.outputs), "-" if parity is None else f"{parity:.1e}",
    )  # fmt: skip


def _calibration(found: Calibration) -> list[tuple[str, str]]:
    others = "" if found.attacked is None else f" and {found.attacked.images} attacked"
    facts = [
        ("made", f"{found.created.isoformat()} on {found.clean.images} clean{others} images, in {found.precision}"),
        ("chosen probe", found.reason),
    ]
    measured = found.find(found.chosen)
    if measured is not None:
        clean = measured.clean
        facts.append(("clean score norms", f"mean {clean.mean:g}, standard deviation {clean.std:g}, {clean.min:g} to "
                      f"{clean.max:g}; {len(measured.sample)} kept for the monitor"))  # fmt: skip
    for name, values in (("sigmoid", found.sigmoid), ("linear", found.linear)):
        facts.append((name, ", ".join(f"{key} {value:g}" for key, value in values.model_dump().items())))
    return facts


def _tensors(entries: tuple[TensorEntry, ...]) -> str:
    return ", ".join(f"{e.name}[{','.join('B' if n == 'batch' else str(n) for n in e.shape)}]" for e in entries)


def _schedule(values: dict[str, Any]) -> str:
    kind = values.pop("kind")
    if "betas" in values:
        return f"{kind}, T = {values['timesteps']}"
    ends = f", beta {values['beta_start']:g} to {values['beta_end']:g}" if kind != "cosine" else ""
    return f"{kind}, T = {values['timesteps']}{ends}"


def _shortened(value: Any, longest: int = 100) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."

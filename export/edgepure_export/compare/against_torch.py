"""Compare a bundle with the PyTorch networks that it came from: what ``edgepure verify --against torch`` calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike
from typing import Literal

from torch import nn

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.errors import ConfigError, ExportError
from edgepure.parity.side_by_side import ImageSet
from edgepure.parity.verification import Verification
from edgepure.parity.verify import verify
from edgepure.types import Progress

from ..bundle.tasks import Task
from ..sources.resolve import may_be_followed, resolve_classifier, resolve_diffusion, resolve_task
from .failing_graphs import find_layers
from .torch_executor import torch_executor

_SHA256 = re.compile(r" \(sha256 ([0-9a-f]{64})\)$")


What = Literal["classifier", "diffusion", "backbone", "task"]


def verify_against_torch(
    bundle: str | PathLike[str] | Bundle,
    provider: str = "cpu",
    *,
    precision: str = "fp32",
    classifier: nn.Module | str | None = None,
    diffusion: nn.Module | str | None = None,
    backbone: nn.Module | str | None = None,
    task: nn.Module | str | None = None,
    threads: int | None = None,
    pipelines: bool = True,
    images: Sequence[ImageSet] = (),
    presets: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Verification:
    """Verify a bundle against its source networks, and find the first layer of every graph that fails.

    Args:
        classifier, diffusion, backbone, task: the networks as they were given to `export_bundle`, or sources (see
            `sources`); None: the source that the bundle's provenance names. Sources with the scheme ``python`` have to
            be given, because they run code: a bundle may come from a stranger. So do those of other packages.
        bundle, provider, precision, threads, pipelines, images, presets, on_progress: as `edgepure.verify`.

    Raises:
        ConfigError: the provenance names no source that can be loaded, or a source does not fit the bundle.
        BundleError, ProviderError: as `edgepure.verify`.
    """
    opened = Bundle.open(bundle.path if isinstance(bundle, Bundle) else bundle, verify=False)
    manifest = opened.manifest
    if on_progress is not None:
        on_progress(0.0, "loading the networks")
    networks: dict[What, nn.Module] = {}
    notes = []
    choice: dict[What, nn.Module | str | None] = {
        "diffusion": diffusion, "classifier": classifier, "backbone": backbone, "task": task,
    }  # fmt: skip
    for what, given in choice.items():
        if what in _networks(manifest):
            networks[what], note = _network(what, given, manifest)
            notes += [note] if note else []
        elif given is not None:
            raise ConfigError(
                f"the bundle {manifest.name!r} has no {what}, so there is nothing to compare with {given!r:.80}; leave "
                f"--{what} out",
                code="E-against-torch",
            )
    try:
        with torch_executor(
            opened,
            networks["diffusion"],
            networks.get("classifier"),
            networks.get("backbone"),
            _task(manifest, networks.get("task")),
        ) as executor:
            found = verify(
                opened,
                provider,
                precision=precision,
                threads=threads,
                pipelines=pipelines,
                reference=executor,
                images=images,
                presets=presets,
                on_progress=on_progress,
            )
            modules = {name: (part.module, part.inputs) for name, part in executor.parts.items()}
            findings = find_layers(opened, found, modules=modules, threads=threads)
    except ExportError as error:
        raise ConfigError(
            f"the networks do not fit the bundle {manifest.name!r}: {error}", code="E-against-torch-fit"
        ) from None
    return replace(found, findings=findings, notes=(*found.notes, *notes))


def _networks(manifest: Manifest) -> tuple[What, ...]:
    """Those that a bundle was exported from."""
    found: list[What] = ["diffusion"]
    found += ["classifier"] if manifest.classes else []
    found += ["task"] if manifest.task is not None else []
    found += ["backbone"] if manifest.provenance.backbone is not None else []
    return tuple(found)


def _task(manifest: Manifest, network: nn.Module | None) -> Task | None:
    if network is None or manifest.task is None:
        return None
    entry = manifest.task
    return Task(entry.kind, network, entry.classes or None, entry.outputs, frame=entry.frame)


def _network(what: What, given: nn.Module | str | None, manifest: Manifest) -> tuple[nn.Module, str]:
    """The network, and a note if its weights are not those of the provenance."""
    if isinstance(given, nn.Module):
        return given, ""
    recorded = getattr(manifest.provenance, what) or "nothing"
    text = given if given is not None else _SHA256.sub("", recorded)
    option = f"give the source with --{what} (or {what}=)"
    if given is None and not may_be_followed(text.partition(":")[0]):
        reason = (
            "which would run code" if text.startswith("python:") else "which is no source that is followed by itself"
        )
        raise ConfigError(
            f"the bundle's provenance says of its {what} only {recorded!r}, {reason}; {option}",
            code="E-against-torch-sources",
        )
    try:
        size = (manifest.image.height, manifest.image.width)
        if what == "task":
            size = (manifest.task_image.height, manifest.task_image.width)
            source = resolve_task(text, size, boxes=manifest.task is not None and manifest.task.kind == "detection")
        elif what != "diffusion":
            source = resolve_classifier(text, None, size)
        else:
            source = resolve_diffusion(text, None, manifest.schedule.build())  # type: ignore[assignment]
    except ExportError as error:
        where = "" if given is not None else f" (from the bundle's provenance); {option}"
        raise ConfigError(f"{error}{where}", code="E-against-torch") from None
    was, is_now = _SHA256.search(recorded), _SHA256.search(source.origin)
    if was is not None and is_now is not None and was[1] != is_now[1]:
        return source.model, (
            f"the weights of the {what} are not those that were exported: SHA-256 {is_now[1][:16]}..., exported were "
            f"{was[1][:16]}..."
        )
    return source.model, ""

"""Prove that a bundle computes on this machine what its reference computes, at four levels.

1. every graph, output by output; 2. every row of a trajectory with replayed noise; 3. the purified image and the mask;
4. the decisions. The reference is what PyTorch recorded at export (``selftest.npz``), or an executor that runs beside:
another provider or precision of the bundle, or PyTorch itself (`edgepure_export.verify_against_torch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from ..bundle.bundle import Bundle
from ..errors import ConfigError
from ..purify.purifier import load
from .checks import Check
from .executors import EngineExecutor, Executor
from .findings import LayerFinding
from .levels import Level
from .side_by_side import ImageSet, SideBySide, VerifyProgress
from .strips import Strip

#: What the reference is called if it is what PyTorch recorded at export.
RECORDED = "the recorded vectors"


@dataclass(frozen=True)
class Verification:
    """What a verification found. ``bool`` is the verdict, ``str`` the one-line story.

    Attributes:
        bundle, provider, precision: what was verified.
        reference: what it was compared with.
        files, bytes: how many files were hashed, and how large they are.
        levels: graphs, rows, images, decisions.
        unrecorded: presets that were not compared; their graphs are checked all the same.
        findings: where failing graphs begin to differ.
        notes: what a reader should know, one sentence each.
        strips: pictures for a report.
    """

    bundle: str
    provider: str
    files: int
    bytes: int
    levels: tuple[Level, ...]
    unrecorded: tuple[str, ...] = ()
    precision: str = "fp32"
    reference: str = RECORDED
    findings: tuple[LayerFinding, ...] = ()
    notes: tuple[str, ...] = ()
    strips: tuple[Strip, ...] = field(default=(), repr=False)

    @property
    def checks(self) -> tuple[Check, ...]:
        """All levels as lines of a table."""
        return tuple(check for level in self.levels for check in level.checks)

    def __bool__(self) -> bool:
        failed = any(level.status == "failed" for level in self.levels)
        return not failed and bool(self.levels) and bool(self.levels[0])

    def __str__(self) -> str:
        variant = "" if self.precision == "fp32" else f" ({self.precision})"
        against = "" if self.reference == RECORDED else f" against {self.reference}"
        start = f"{self.bundle}{variant} on {self.provider}{against}: the hashes of {self.files} files match"
        failed = [check for check in self.checks if not check]
        if failed:
            return f"{start}, but {len(failed)} of {len(self.checks)} comparisons fail; the first is {failed[0]}"
        absent = [f"{level.title} {level.status}" for level in self.levels if not level.parts]
        more = f" ({', '.join(absent)})" if absent else ""
        used = max((check.used for check in self.checks), default=0.0)
        worst = f"the worst uses {100 * used:.2g} % of its tolerance"
        return f"{start}, all {len(self.checks)} comparisons pass{more}; {worst}"

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ok": bool(self),
            "bundle": self.bundle,
            "provider": self.provider,
            "precision": self.precision,
            "reference": self.reference,
            "files": self.files,
            "bytes": self.bytes,
            "levels": [level.to_json() for level in self.levels],
            "checks": [check.to_json() for check in self.checks],
            "unrecorded": list(self.unrecorded),
            "findings": [finding.to_json() for finding in self.findings],
            "notes": list(self.notes),
        }


def verify(
    bundle: str | PathLike[str] | Bundle,
    provider: str = "cpu",
    *,
    precision: str = "fp32",
    threads: int | None = None,
    pipelines: bool = True,
    reference: Executor | None = None,
    images: Sequence[ImageSet] = (),
    presets: Sequence[str] | None = None,
    on_progress: VerifyProgress | None = None,
) -> Verification:
    """Check the hash of every file of a bundle, then compare what it computes with a reference.

    Args:
        bundle: the directory, or a `Bundle`, whose directory is then checked again.
        provider: engine (see `edgepure.load`).
        precision: ``fp32`` or a variant of the bundle; tolerances are those of `edgepure.parity.tolerances`.
        threads: CPU threads of one call; None: one per core.
        pipelines: levels 2 to 4 too, not only the graphs.
        reference: runs beside the engine; None: the recorded vectors alone.
        images: sets to compare decisions on; they need a ``reference``. Level 4 always has the recorded images.
        presets: to compare; those without vectors need a ``reference``. None: of the recorded images, every recorded
            preset; of ``images``, the bundle's default preset.
        on_progress: called with (what is being done, share done).

    Returns:
        Every comparison with its errors and tolerance; false if one of them fails.

    Raises:
        BundleError: the bundle or its vectors are missing, damaged, or unsafe.
        ProviderError: the provider is not active.
        ConfigError: unknown preset, or images without a reference.
    """
    if images and reference is None:
        raise ConfigError(
            "there is nothing to compare the images with: the recorded vectors know only their own; compare with "
            "another provider or precision, or with PyTorch"
        )
    path = bundle.path if isinstance(bundle, Bundle) else bundle
    with load(path, provider, precision=precision, threads=threads) as purifier:
        for name in presets or ():
            purifier.preset(name)
        compared = SideBySide(purifier, reference, presets)
        levels = compared.levels(images, pipelines, on_progress)
        manifest = purifier.bundle.manifest
        return Verification(
            bundle=manifest.name,
            provider=provider,
            files=len(manifest.files),
            bytes=sum(entry.bytes for entry in manifest.files.values()),
            levels=levels,
            unrecorded=compared.unrecorded if pipelines else (),
            precision=precision,
            reference=RECORDED if reference is None else reference.name,
            strips=tuple(compared.strips),
        )


@dataclass(frozen=True)
class Verifications:
    """Several engines or precisions of one bundle. ``bool``: all pass."""

    each: tuple[Verification, ...]

    def __bool__(self) -> bool:
        return bool(self.each) and all(self.each)

    def __str__(self) -> str:
        return "\n".join(str(found) for found in self.each)

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"ok": bool(self), "verifications": [found.to_json() for found in self.each]}


def verify_engines(
    bundle: str | PathLike[str],
    engines: Sequence[tuple[str, str]],
    *,
    threads: int | None = None,
    pipelines: bool = True,
    images: Sequence[ImageSet] = (),
    presets: Sequence[str] | None = None,
    on_progress: VerifyProgress | None = None,
) -> Verifications:
    """Verify the first engine with the recorded vectors, and every other one with the first beside it.

    Args:
        bundle: the directory.
        engines: provider and precision of each.
        threads, pipelines, images, presets, on_progress: as `verify`. The images are for the others: the first engine
            is what they are compared with.

    Raises:
        ConfigError: there are images and only one engine. BundleError, ProviderError: as `verify`.
    """

    def progress(number: int) -> VerifyProgress | None:
        if on_progress is None:
            return None
        name = " ".join(engines[number])
        return lambda what, share: on_progress(f"{name}: {what}", (number + share) / len(engines))

    provider, precision = engines[0]
    alone = images if len(engines) == 1 else ()  # which `verify` refuses in its own words
    found = [
        verify(
            bundle, provider, precision=precision, threads=threads, pipelines=pipelines, images=alone, presets=presets,
            on_progress=progress(0),
        )
    ]  # fmt: skip
    if len(engines) == 1:
        return Verifications(tuple(found))
    with load(bundle, provider, precision=precision, threads=threads, verify=False) as purifier:
        reference = EngineExecutor(purifier)
        for number, (other, its) in enumerate(engines[1:], start=1):
            found.append(
                verify(
                    bundle, other, precision=its, threads=threads, pipelines=pipelines, reference=reference,
                    images=images, presets=presets, on_progress=progress(number),
                )
            )  # fmt: skip
    return Verifications(tuple(found))

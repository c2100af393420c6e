"""Prove that a bundle computes on this machine what its reference computes, at four levels.

1. every graph, output by output; 2. every row of a trajectory with replayed noise; 3. the purified image and the mask;
4. the decisions. The reference is what PyTorch recorded at export (``selftest.npz``), or an executor that runs beside:
another provider or precision of the bundle, or whatever else can (PyTorch itself, in the package that exports).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike

from ..bundle.bundle import Bundle
from ..errors import ConfigError
from ..purify.purifier import load
from ..types import Progress
from ..validation import expect
from .executors import EngineExecutor, Executor
from .side_by_side import FourLevels, ImageSet
from .verification import RECORDED, Verification, Verifications


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
    on_progress: Progress | None = None,
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
        on_progress: called with the share that is done, and what is being done.

    Returns:
        Every comparison with its errors and tolerance; false if one of them fails.

    Raises:
        BundleError: the bundle or its vectors are missing, damaged, or unsafe.
        ProviderError: the provider is not active.
        ConfigError: unknown preset, or images without a reference.
    """
    expect(
        bundle=(bundle, str, PathLike, Bundle), pipelines=(pipelines, bool), images=(images, Sequence),
        presets=(presets, Sequence, None), on_progress=(on_progress, Callable, None),
    )  # fmt: skip
    for one in images:
        expect(images=(one, ImageSet))
    if reference is not None and not hasattr(reference, "precision"):
        raise ConfigError(f"reference is {reference!r:.80}, expected an executor or None", code="E-config-type")
    if images and reference is None:
        raise ConfigError(
            "there is nothing to compare the images with: the recorded vectors know only their own; compare with "
            "another provider or precision, or with PyTorch",
            code="E-verify-reference",
        )
    path = bundle.path if isinstance(bundle, Bundle) else bundle
    with load(path, provider, precision=precision, threads=threads) as purifier:
        for name in presets or ():
            purifier.preset(name)
        compared = FourLevels(purifier, reference, presets)
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
            differing=tuple(compared.differing),
        )


def verify_engines(
    bundle: str | PathLike[str],
    engines: Sequence[tuple[str, str]],
    *,
    threads: int | None = None,
    pipelines: bool = True,
    images: Sequence[ImageSet] = (),
    presets: Sequence[str] | None = None,
    on_progress: Progress | None = None,
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

    def progress(number: int) -> Progress | None:
        if on_progress is None:
            return None
        name = " ".join(engines[number])
        return lambda share, what: on_progress((number + share) / len(engines), f"{name}: {what}")

    provider, precision = engines[0]
    alone = images if len(engines) == 1 else ()  # which `verify` refuses in its own words
    found = [
        verify(
            bundle,
            provider,
            precision=precision,
            threads=threads,
            pipelines=pipelines,
            images=alone,
            presets=presets,
            on_progress=progress(0),
        )
    ]
    if len(engines) == 1:
        return Verifications(tuple(found))
    with load(bundle, provider, precision=precision, threads=threads, verify=False) as purifier:
        reference = EngineExecutor(purifier)
        for number, (other, its) in enumerate(engines[1:], start=1):
            found.append(
                verify(
                    bundle,
                    other,
                    precision=its,
                    threads=threads,
                    pipelines=pipelines,
                    reference=reference,
                    images=images,
                    presets=presets,
                    on_progress=progress(number),
                )
            )
    return Verifications(tuple(found))

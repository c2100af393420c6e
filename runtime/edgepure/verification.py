"""Prove that a bundle computes on this machine what PyTorch computed when it was exported.

A bundle carries recorded vectors (``selftest.npz``): inputs and outputs of every graph, and whole purifications of its
presets with seeded noise. `verify` runs them on an engine and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import BundleError
from .purifier import Purifier, load
from .selftest import GraphVectors, PipelineVectors

#: Largest absolute difference that a graph may show, times max(1, largest absolute reference value).
GRAPH_TOLERANCE = {"fp32": 2e-4, "fp16": 2e-2, "bf16": 1e-1, "int8": 3e-1, "fp8": 3e-1}
#: The same for a purified image in [0, 1]: hundreds of calls add their rounding up.
IMAGE_TOLERANCE = {"fp32": 2e-4, "fp16": 5e-2, "bf16": 2e-1, "int8": 5e-1, "fp8": 5e-1}
#: A classifier turns a small difference of the image into a larger one of its logits.
LOGITS_OVER_IMAGE = 10.0
#: Share of mask pixels that may differ: pixels whose attention lies within rounding of the threshold.
MASK_TOLERANCE = 0.005

#: Called with (what is being done, share of the work that is done).
VerifyProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Check:
    """One comparison.

    Attributes:
        subject: ``graph step`` or ``pipeline uniform``.
        quantity: the output that was compared.
        max_error, mean_error: absolute differences; for masks and labels the share that differs.
        tolerance: bound of ``max_error``.
    """

    subject: str
    quantity: str
    max_error: float
    mean_error: float
    tolerance: float

    def __bool__(self) -> bool:
        return bool(self.max_error <= self.tolerance)  # false for NaN


@dataclass(frozen=True)
class Verification:
    """What a self-test found. ``bool`` is the verdict, ``str`` the one-line story.

    Attributes:
        files, bytes: how many files were hashed, and how large they are.
        unrecorded: presets for which the bundle has no vectors; their graphs are checked all the same.
    """

    bundle: str
    provider: str
    files: int
    bytes: int
    checks: tuple[Check, ...]
    unrecorded: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.checks) and all(self.checks)

    def __str__(self) -> str:
        failed = [check for check in self.checks if not check]
        start = f"{self.bundle} on {self.provider}: the hashes of {self.files} files match"
        if failed:
            first = failed[0]
            return (
                f"{start}, but {len(failed)} of {len(self.checks)} comparisons fail; the first is {first.quantity} of "
                f"{first.subject}: off by {first.max_error:.3g}, allowed {first.tolerance:.3g}"
            )
        used = max((c.max_error / c.tolerance for c in self.checks if c.tolerance > 0.0), default=0.0)
        return f"{start}, all {len(self.checks)} comparisons pass; the worst uses {100 * used:.2g} % of its tolerance"

    def to_json(self) -> dict[str, Any]:
        """Plain data for JSON."""
        checks = [{**asdict(check), "ok": bool(check)} for check in self.checks]
        return {**asdict(self), "ok": bool(self), "checks": checks}


def verify(
    bundle: str | PathLike[str] | Bundle,
    provider: str = "cpu",
    *,
    threads: int | None = None,
    pipelines: bool = True,
    on_progress: VerifyProgress | None = None,
) -> Verification:
    """Check the hash of every file of a bundle, then run its recorded vectors.

    Args:
        bundle: the directory, or a `Bundle`, whose directory is then checked again.
        provider: engine (see `edgepure.load`).
        threads: CPU threads of one call; None: one per core.
        pipelines: also run the recorded purifications, not only the graphs.
        on_progress: called with (what is being done, share done).

    Returns:
        Every comparison with its errors and tolerance; false if one of them fails.

    Raises:
        BundleError: the bundle or its vectors are missing, damaged, or unsafe.
        ProviderError: the provider is not active.
    """
    path = bundle.path if isinstance(bundle, Bundle) else bundle
    with load(path, provider, threads=threads) as purifier:
        manifest, recorded = purifier.bundle.manifest, purifier.bundle.selftest()
        work = [(f"graph {name}", _graph(purifier, name, v)) for name, v in recorded.graphs.items()]
        if pipelines:
            work += [(f"pipeline {name}", _pipeline(purifier, name, v)) for name, v in recorded.pipelines.items()]
        checks: list[Check] = []
        for done, (subject, comparisons) in enumerate(work):
            if on_progress is not None:
                on_progress(subject, done / len(work))
            checks.extend(Check(subject, *comparison) for comparison in comparisons)
    return Verification(
        bundle=manifest.name,
        provider=provider,
        files=len(manifest.files),
        bytes=sum(entry.bytes for entry in manifest.files.values()),
        checks=tuple(checks),
        unrecorded=tuple(sorted(set(manifest.presets) - set(recorded.pipelines))) if pipelines else (),
    )


#: quantity, max_error, mean_error, tolerance
_Comparison = tuple[str, float, float, float]


def _graph(purifier: Purifier, name: str, vectors: GraphVectors) -> Iterator[_Comparison]:
    precision = next(entry.precision for graph, entry in purifier.bundle.manifest.graphs.items() if graph == name)
    outputs = purifier.engine(name).run(vectors.inputs)
    for output, expected in vectors.outputs.items():
        if (name, output) == ("mask", "mask"):
            yield _masks(outputs[output], expected)
        else:
            yield _arrays(output, outputs[output], expected, GRAPH_TOLERANCE[precision])


def _pipeline(purifier: Purifier, preset: str, vectors: PipelineVectors) -> Iterator[_Comparison]:
    tolerance = max(IMAGE_TOLERANCE[entry.precision] for entry in purifier.bundle.manifest.graphs.values())
    results = purifier.run(vectors.image, preset, votes=1, noise=vectors.seed)
    purified = np.stack([result.image for result in results])
    yield _arrays("purified", purified, vectors.purified, tolerance)
    yield _arrays("logits", purifier.logits(purified), vectors.logits, tolerance * LOGITS_OVER_IMAGE)
    labels = np.array([result.label for result in results])
    differing = float((labels != vectors.logits.argmax(axis=1)).mean())
    yield "labels", differing, differing, 0.0
    if vectors.mask is not None:
        masks = [np.zeros(purified.shape[2:], bool) if r.mask is None else r.mask for r in results]
        yield _masks(np.stack(masks)[:, None], vectors.mask)


def _arrays(quantity: str, found: NDArray[Any], expected: NDArray[Any], relative: float) -> _Comparison:
    if found.shape != expected.shape:
        raise BundleError(
            f"selftest.npz: {quantity} was recorded with the shape {list(expected.shape)}, the graph gives "
            f"{list(found.shape)}; they do not belong together, export the bundle again"
        )
    error = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    scale = max(1.0, float(np.abs(expected).max()))
    return quantity, float(error.max()), float(error.mean()), relative * scale


def _masks(found: NDArray[Any], expected: NDArray[Any]) -> _Comparison:
    if found.shape != expected.shape:
        return "mask", 1.0, 1.0, MASK_TOLERANCE
    share = float(((found > 0.5) != (expected > 0.5)).mean())
    return "mask", share, share, MASK_TOLERANCE

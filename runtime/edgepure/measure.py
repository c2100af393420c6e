"""Speed of a bundle on this machine, as medians, with what is compared run side by side in the same rounds."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from numbers import Integral
from time import perf_counter
from typing import Any

import numpy as np

from .engines.base import Engine, Stepper
from .engines.kinds import engine_words, kind_of
from .engines.null import NullEngine
from .errors import ConfigError
from .methods.presets import Preset
from .purify.inflight import run_images
from .purify.purifier import Purifier
from .rows.noise import SeededNoise
from .rows.plan import Plan
from .types import Progress
from .validation import expect

#: Anything that does the work to be timed.
Work = Callable[[], object]

#: A timed purification runs at most this many rows of its plan: a loop costs the same per row however long it is.
MOST_ROWS = 50


@dataclass(frozen=True)
class SideBySide:
    """Seconds of each candidate in each round."""

    times: Mapping[str, tuple[float, ...]] = field(repr=False)

    def median(self, name: str) -> float:
        """Median seconds of one candidate."""
        return statistics.median(self.times[name])

    def ratio(self, numerator: str, denominator: str) -> float:
        """Median over the rounds of the ratio within a round: a busy moment of the machine hits both sides of it."""
        pairs = zip(self.times[numerator], self.times[denominator], strict=True)
        return statistics.median(above / below for above, below in pairs)


def interleaved(
    candidates: Mapping[str, Work], repeats: int, warmup: int = 1, on_progress: Progress | None = None
) -> SideBySide:
    """Time candidates side by side: every round runs each of them once, in an order that alternates.

    Raises:
        ConfigError: no candidate, or less than one repeat.
    """
    if repeats < 1 or not candidates:
        raise ConfigError(
            f"need at least one candidate and one repeat, got {len(candidates)} and {repeats}", code="E-bench-option"
        )
    for _ in range(warmup):
        for work in candidates.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(repeats):
        for name in names if number % 2 == 0 else reversed(names):
            start = perf_counter()
            candidates[name]()
            times[name].append(perf_counter() - start)
        if on_progress is not None:
            on_progress((number + 1) / repeats, "measuring")
    return SideBySide({name: tuple(values) for name, values in times.items()})


def median_time(work: Work, repeats: int, warmup: int = 1) -> float:
    """Median seconds of ``repeats`` runs of ``work``, after ``warmup`` runs that do not count."""
    return interleaved({"work": work}, repeats, warmup).median("work")


class BareUnet:
    """The bare UNet graph on buffers that are bound once: the fastest call that the engine can make."""

    def __init__(self, engine: Engine, batch: int) -> None:
        self._call = engine.bound(batch)
        x = self._call.inputs.get("x")
        if x is not None:
            x[...] = np.random.default_rng(0).standard_normal(x.shape, dtype=np.float32)

    def __call__(self, t: float) -> None:
        """Start one call at timestep ``t`` for the whole batch. On a GPU the inputs stay as they are: how long a call
        takes does not depend on them, and a copy would be counted as the network's."""
        if "t" in self._call.inputs:
            self._call.inputs["t"][:] = t
        self._call()

    def wait(self) -> None:
        """Return when all calls are done."""
        self._call.wait()

    def close(self) -> None:
        """Give memory back."""
        self._call.close()


@dataclass(frozen=True)
class BatchSpeed:
    """Speed at one batch size.

    Attributes:
        batch: images that share every call.
        unet_ms: one call of the bare UNet graph.
        step_ms: one call of the step graph, noise and coefficients already in place.
        loop_cost: time of a purification over (rows x bare UNet call): the price of everything around the UNet.
        images_per_second: decisions of the preset a second, at the rate at which in-flight batching executed rows.
        loop_ms: of the loop alone, a row, scheduling and noise: the purification on an engine that answers at once.
            None on a GPU, where the noise is made elsewhere.
    """

    batch: int
    unet_ms: float
    step_ms: float
    loop_cost: float
    images_per_second: float
    loop_ms: float | None = None


@dataclass(frozen=True)
class Bench:
    """What `bench` measured. Times are medians of ``repeats`` rounds.

    ``engine`` is the provider's, with its version.
    """

    bundle: str
    preset: str
    provider: str
    engine: str
    repeats: int
    unet_calls: int
    rows_timed: int
    speeds: tuple[BatchSpeed, ...]
    peak_memory_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def bench(
    purifier: Purifier,
    preset: str | Preset | None = None,
    *,
    batches: Sequence[int] = (1, 8),
    repeats: int = 5,
    on_progress: Progress | None = None,
) -> Bench:
    """Measure the preset's plan (with SSNI: the plan of the full noise level) on random images.

    Args:
        purifier: the bundle on an engine; it needs as many slots as the largest batch.
        preset: name or `Preset`; None: the bundle's default.
        batches: batch sizes to measure.
        repeats: rounds; every round times the bare calls, the step calls and the purification once.
        on_progress: how far it is.

    Raises:
        ConfigError: a batch size is out of range, or the bundle has no ``unet`` graph.
    """
    expect(batches=(batches, Sequence), repeats=(repeats, Integral), on_progress=(on_progress, Callable, None))
    if not hasattr(purifier, "slots"):
        raise ConfigError(f"purifier is {purifier!r:.80}, expected a Purifier", code="E-config-type")
    for batch in batches:
        expect(batches=(batch, Integral))
    if not batches or min(batches) < 1 or max(batches) > purifier.slots:
        raise ConfigError(
            f"batch sizes {', '.join(map(str, batches)) or 'none'}: expected 1 to {purifier.slots}, the slots of the "
            "purifier",
            code="E-bench-batch",
        )
    if "unet" not in purifier.bundle.manifest.graphs:
        raise ConfigError("this bundle has no bare `unet` graph to compare with; export it again", code="E-bench-graph")
    chosen = purifier.preset(preset)
    full = purifier.plan(chosen)
    plan = replace(full, rows=full.rows[:MOST_ROWS])
    calls = purifier.planner.unet_calls(chosen)

    def progress(done: int) -> Progress | None:
        if on_progress is None:
            return None
        report = on_progress
        return lambda share, words: report((done + share) / len(batches), f"{words} batches of {batches[done]}")

    speeds = tuple(
        _measure(purifier, plan, batch, calls, repeats, progress(done)) for done, batch in enumerate(batches)
    )
    return Bench(
        bundle=purifier.bundle.manifest.name,
        preset=preset if isinstance(preset, str) else purifier.bundle.manifest.default_preset if preset is None else "",
        provider=purifier.provider,
        engine=engine_words(purifier.provider),
        repeats=repeats,
        unet_calls=calls,
        rows_timed=len(plan.rows),
        speeds=speeds,
        peak_memory_bytes=peak_memory(),
    )


def peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _measure(
    purifier: Purifier, plan: Plan, batch: int, calls: int, repeats: int, on_progress: Progress | None
) -> BatchSpeed:
    bare = BareUnet(purifier.engine("unet"), batch)
    graph = plan.graph
    stepper = purifier.stepper(graph)
    shape, rows = purifier.image_shape, len(plan.rows)
    rng = np.random.default_rng(0)
    refs = rng.uniform(-1.0, 1.0, (batch, *shape)).astype(np.float32)
    mask = np.zeros((1, *shape[1:]), np.float32)
    mask[:, : shape[1] // 2] = 1.0
    images, masks = 0.5 * refs + 0.5, np.stack([mask] * batch)
    source = SeededNoise(0)

    def bare_calls() -> None:
        for row in range(rows):
            bare(float(plan.coeffs[row, 0]))
        bare.wait()

    def step_calls() -> None:
        for slot, ref in enumerate(refs):
            stepper.admit(slot, ref, ref, mask)
        for row in range(rows):
            stepper.coeffs[:batch, : plan.coeffs.shape[1]] = plan.coeffs[row]
            stepper.step(batch)
        stepper.wait()

    def purification(stepper: Stepper = stepper) -> None:
        run_images(stepper, images, [plan] * batch, source, lambda image, x: None, masks=masks)

    works: dict[str, Work] = {"unet": bare_calls, "step": step_calls, "purification": purification}
    on_host = kind_of(purifier.provider).device == "cpu"
    if on_host:
        works["loop"] = partial(purification, NullEngine(purifier.engine(graph)).stepper(batch))
    times = interleaved(works, repeats, on_progress=on_progress)
    bare.close()
    seconds = times.median("purification")
    return BatchSpeed(
        batch=batch,
        unet_ms=1e3 * times.median("unet") / rows,
        step_ms=1e3 * times.median("step") / rows,
        loop_cost=times.ratio("purification", "unet"),
        images_per_second=batch * rows / seconds / calls,
        loop_ms=1e3 * times.median("loop") / rows if on_host else None,
    )

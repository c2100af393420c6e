"""How many images a second a `Service` answers with so many lanes: whether several pay on this machine."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import cycle
from numbers import Integral, Real
from time import perf_counter
from typing import Any

import numpy as np

from .bundle.bundle import Bundle
from .engines.kinds import kind_of
from .errors import ConfigError
from .machine.processor import usable_cores
from .methods.presets import Preset
from .purify.arguments import check_lanes
from .purify.purifier import Purifier
from .purify.service import Service
from .types import Progress
from .validation import expect

#: Of different images: with SSNI their plans differ.
_IMAGES = 32
#: Images one at a time in each round.
_ALONE = 5


@dataclass(frozen=True)
class LaneRate:
    """What a service with so many lanes answers; medians of the rounds.

    Attributes:
        lanes: that compute side by side.
        threads: of one call; None: the provider's own choice.
        images_per_second: while twice as many images as there are slots were always under way.
        alone_ms: of one image while there is no other.
    """

    lanes: int
    threads: int | None
    images_per_second: float
    alone_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def lane_rates(
    bundle: Bundle,
    preset: str | Preset | Mapping[str, Any] | None = None,
    *,
    lanes: Sequence[int] = (1, 2),
    provider: str = "cpu",
    precision: str = "fp32",
    threads: int | None = None,
    slots: int = 8,
    seconds: float = 1.0,
    repeats: int = 3,
    on_progress: Progress | None = None,
) -> tuple[LaneRate, ...]:
    """Measure services of the same bundle with different numbers of lanes, in turns, on random images.

    Args:
        bundle: what they serve.
        preset: as for `Service`.
        lanes: of each of the services.
        provider, precision, slots: as for `edgepure.load`; every lane has that many slots.
        threads: of one call; None: on a CPU, the cores shared out among the lanes.
        seconds: that each service answers in each round.
        repeats: rounds.
        on_progress: how far it is.

    Raises:
        ConfigError: nothing to measure, or as `Service` raises it.
        EdgepureError: as `edgepure.load` raises it.
    """
    expect(bundle=(bundle, Bundle), lanes=(lanes, Sequence), seconds=(seconds, Real), repeats=(repeats, Integral))
    expect(on_progress=(on_progress, Callable, None))
    for number in lanes:
        check_lanes(number)
    if not lanes or repeats < 1 or not seconds > 0.0:
        raise ConfigError(
            f"need at least one number of lanes, one round and some time, got {len(lanes)}, {repeats} and {seconds}",
            code="E-bench-option",
        )
    images = np.random.default_rng(0).random((_IMAGES, *bundle.manifest.task_image.shape), np.float32)
    on_cpu = kind_of(provider).device == "cpu"
    found: dict[int, tuple[list[float], list[float]]] = {number: ([], []) for number in lanes}
    each = {n: max(1, usable_cores() // n) if on_cpu and threads is None else threads for n in found}
    with ExitStack() as held:
        services = {}
        for number in found:
            purifier = held.enter_context(
                Purifier(bundle, provider, precision=precision, threads=each[number], slots=slots)
            )
            waiting = 2 * slots * number
            services[number] = held.enter_context(Service(purifier, preset, waiting=waiting, lanes=number))
            _rate(services[number], images, waiting, seconds / 2)
        for turn in range(repeats):
            for number, service in services.items():
                found[number][0].append(_rate(service, images, 2 * slots * number, seconds))
                found[number][1].append(_alone(service, images))
            if on_progress is not None:
                on_progress((turn + 1) / repeats, "answering with lanes")
    return tuple(LaneRate(n, each[n], *map(statistics.median, times)) for n, times in found.items())


def _rate(service: Service, images: np.ndarray[Any, np.dtype[np.float32]], most: int, seconds: float) -> float:
    """Images a second while ``most`` of them are always under way."""
    under_way: deque[Future[Any]] = deque()
    source, done = cycle(images), 0
    start = perf_counter()
    while perf_counter() - start < seconds or not done:
        while len(under_way) < most:
            under_way.append(service.submit(next(source)))
        under_way.popleft().result()
        done += 1
    rate = done / (perf_counter() - start)
    for future in under_way:
        future.cancel()
    for future in under_way:
        if not future.cancelled():
            future.result()
    return rate


def _alone(service: Service, images: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Median milliseconds of one image after another."""
    times = []
    for image in images[:_ALONE]:
        start = perf_counter()
        service.submit(image).result()
        times.append(1e3 * (perf_counter() - start))
    return statistics.median(times)

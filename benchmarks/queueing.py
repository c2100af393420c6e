"""A queue without losses: what the work alone would make people wait.

First come, first served, by so many servers, each of which takes for an image what a whole server takes when it has as
much to do as it can: whoever asks waits for nothing but those before him. Where images take about equally long, no
other order has a much smaller p99.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

#: Images of one simulation: the p99 is that of 2,000 of them.
IMAGES = 200_000


def lossless(
    rate: float, capacity: float, servers: int, work: Sequence[float], images: int = IMAGES, seed: int = 0
) -> dict[str, float]:
    """Time in such a queue.

    Args:
        rate: arrivals a second, at random (Poisson).
        capacity: images a second that all servers together can do.
        servers: how many there are.
        work: what images take, relative to each other; each arrival is one of them.
        images: how many arrive.
        seed: of arrivals and images.

    Returns:
        ``p50`` and ``p99`` in ms, from arrival to answer.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1.0 / rate, images))
    lengths = rng.choice(np.asarray(work, np.float64), images) * (servers / capacity / float(np.mean(work)))
    free = [0.0] * servers
    took = np.empty(images)
    for i, (arrival, length) in enumerate(zip(arrivals.tolist(), lengths.tolist(), strict=True)):
        end = max(arrival, heapq.heappop(free)) + length
        heapq.heappush(free, end)
        took[i] = end - arrival
    p50, p99 = 1e3 * np.percentile(took, (50, 99))
    return {"p50": float(p50), "p99": float(p99)}

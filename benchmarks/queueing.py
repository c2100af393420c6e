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
    p50, p99 = 1e3 * np.percentile(first_come(arrivals, lengths, servers), (50, 99))
    return {"p50": float(p50), "p99": float(p99)}


def first_come(due: np.ndarray, lengths: np.ndarray, servers: int) -> np.ndarray:
    """How long each image takes, first come, first served; ``due`` when it comes, ``lengths`` of its work."""
    free, took = [0.0] * servers, []
    for came, length in zip(due.tolist(), lengths.tolist(), strict=True):
        end = max(came, heapq.heappop(free)) + length
        heapq.heappush(free, end)
        took.append(end - came)
    return np.array(took)

"""Attacks on the workers of a Ray cluster: each holds the bundle and its twin, and attacks one batch after another.

A batch is seeded by its place, so whoever computes it gets the same images; one whose worker is lost is given to
another. What is counted is answered where the evaluation runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepure.bundle.bundle import Bundle
from edgepure.engines.kinds import kind_of
from edgepure.images.dataset import LabelledImages
from edgepure.machine.cluster import check_bundle, joined, needs_of, room
from edgepure.types import Float32

from ..progress import Meter
from ..provider import ProviderSettings
from ..work import Work, bundle_key
from .lines import lines
from .runner import Job, Runner, Spread
from .settings import EvaluateSettings
from .targets import targets_of


@dataclass(frozen=True)
class OnRay:
    """A cluster: where it is (``HOST:PORT``, ``auto``, ``local``), and how many workers; None: as many as it has room
    for."""

    address: str
    workers: int | None = None


@dataclass(frozen=True)
class Orders:
    """What a worker needs to know, once.

    Attributes:
        bundle, key: its folder, by the same path everywhere, and what its graphs and weights are.
        images, others: those that are attacked, and those that are not.
    """

    bundle: Path
    key: str
    images: LabelledImages
    others: Float32
    presets: tuple[str, ...] | None
    settings: EvaluateSettings
    provider: ProviderSettings
    device: str
    checkpointing: bool


class Hand:
    """Lives in a process of the cluster."""

    def __init__(self, orders: Orders) -> None:
        opened = Bundle.open(orders.bundle)
        check_bundle(orders.bundle, bundle_key(opened.manifest, orders.provider.precision), orders.key)
        attacked, simple = targets_of(
            orders.provider.open(opened),
            orders.presets,
            orders.settings.baselines,
            orders.others,
            device=orders.device,
            checkpointing=orders.checkpointing,
        )
        self._targets, self._settings = {target.name: target for target in (*attacked, *simple)}, orders.settings
        self._runner = Runner(orders.images, "", orders.settings, Work(None, {}), {}, Meter(1.0))

    def attack(self, number: int, job: Job) -> tuple[int, Float32]:
        """The number, and the images as the attack leaves them."""
        target = self._targets[job.target]
        line = lines(target, self._settings)[job.line]
        return number, self._runner.attack(target, line, job.seed, job.first, lambda share: None)


@contextmanager
def farm(cluster: OnRay | None, orders: Orders) -> Iterator[Spread | None]:
    """What `Runner` spreads its attacks with; None where there is no cluster.

    Raises:
        EdgepureError: as `joined` and `room`; or a worker cannot do what it is told.
    """
    if cluster is None:
        yield None
        return
    threads = orders.provider.threads or 1
    gpu = orders.device != "cpu" or kind_of(orders.provider.provider).device == "gpu"
    with joined(cluster.address) as ray:
        from ray.util import ActorPool

        count = room(ray, threads, gpu, cluster.workers)
        made = ray.remote(Hand).options(max_restarts=-1, max_task_retries=-1, **needs_of(threads, gpu))
        known = ray.put(orders)
        pool = ActorPool([made.remote(known) for _ in range(count)])

        def spread(jobs: Sequence[tuple[dict[str, Any], Job]]) -> Iterator[tuple[dict[str, Any], Float32]]:
            asked = list(enumerate(job for _, job in jobs))
            for number, images in pool.map_unordered(lambda hand, one: hand.attack.remote(*one), asked):
                yield jobs[number][0], images

        yield spread

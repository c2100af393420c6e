"""What a dashboard asks: counters and histograms of one server, in one registry of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

from ..machine.energy import joules
from ..machine.memory import resident_memory
from ..purify.results import Purified
from .models import Model, Models

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CALLS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True)
class _Series:
    """What is counted of a model over one protocol; to find a series by its labels takes longer than to count."""

    answered: Any
    request_seconds: Any
    images: Any
    purification_seconds: Any
    queue_seconds: Any
    calls: Any
    flagged: Any
    abstained: Any


class Metrics:
    """No label tells of a client, and no score norm leaves here but as a count of flags."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self.registry = CollectorRegistry()
        by_model = ("model", "version")

        def made(kind: Any, name: str, words: str, labels: tuple[str, ...], **more: Any) -> Any:
            return kind(name, words, labels, registry=self.registry, **more)

        self.requests = made(
            Counter, "edgepure_requests", "Requests by how they ended.", (*by_model, "protocol", "outcome")
        )
        self.request_seconds = made(
            Histogram,
            "edgepure_request_seconds",
            "From a request's arrival to its answer.",
            (*by_model, "protocol"),
            buckets=_SECONDS,
        )
        self.queue_seconds = made(
            Histogram, "edgepure_queue_seconds", "Of an answered image, outside the slots.", by_model, buckets=_SECONDS
        )
        self.purification_seconds = made(
            Histogram, "edgepure_purification_seconds", "Of an image, inside the slots.", by_model, buckets=_SECONDS
        )
        self.calls = made(Histogram, "edgepure_image_unet_calls", "UNet calls of a decision.", by_model, buckets=_CALLS)
        self.images = made(Counter, "edgepure_images", "Images answered.", by_model)
        self.flagged = made(Counter, "edgepure_flagged", "Images that the monitor flagged.", by_model)
        self.abstained = made(Counter, "edgepure_abstained", "Images without a settled answer.", by_model)
        self._ends: dict[tuple[str, str, str, str], Any] = {}
        self._of = cache(self._made)  # names and versions are the owner's: there are few
        self.registry.register(_State(models))
        ProcessCollector(registry=self.registry)  # memory, descriptors, processor time

    def answered(self, model: Model, protocol: str, results: list[Purified], seconds: float) -> None:
        """Count a request that got its answer."""
        of = self._of(model.settings.name, model.settings.version, protocol)
        of.answered.inc()
        of.request_seconds.observe(seconds)
        for result in results:
            of.images.inc()
            of.purification_seconds.observe(result.seconds)
            of.queue_seconds.observe(max(seconds - result.seconds, 0.0))
            of.calls.observe(result.unet_calls)
            if result.flagged:
                of.flagged.inc()
            if getattr(result, "abstained", False):
                of.abstained.inc()

    def _made(self, name: str, version: str, protocol: str) -> _Series:
        return _Series(
            answered=self.requests.labels(name, version, protocol, "answered"),
            request_seconds=self.request_seconds.labels(name, version, protocol),
            **{
                kind: getattr(self, kind).labels(name, version)
                for kind in ("images", "purification_seconds", "queue_seconds", "calls", "flagged", "abstained")
            },
        )

    def ended(self, model: str, version: str, protocol: str, outcome: str) -> None:
        """Count a request that got none: ``refused``, ``overdue``, ``invalid``, ``cancelled``, ``failed``."""
        counter = self._ends.get((model, version, protocol, outcome))
        if counter is None:
            known = self._models.known()  # names and versions that anybody makes up would fill the memory
            named = (model, version) in known or (not version and any(key[0] == model for key in known))
            counter = self.requests.labels(*((model, version) if named else ("unknown", "")), protocol, outcome)
            if named:
                self._ends[model, version, protocol, outcome] = counter
        counter.inc()

    def text(self) -> bytes:
        """The Prometheus text exposition format."""
        found: bytes = generate_latest(self.registry)
        return found


class _State:
    """What is read when somebody asks, instead of being counted."""

    def __init__(self, models: Models) -> None:
        self._models, self._started = models, time.time()

    def collect(self) -> Iterator[Any]:
        labels = ["model", "version"]
        kinds: list[tuple[Any, Any]] = [
            (
                CounterMetricFamily("edgepure_ticks", "Step-graph calls of the slots.", labels=labels),
                lambda m: m.service.counters.ticks,
            ),
            (
                CounterMetricFamily("edgepure_unet_calls", "Rows that the slots executed.", labels=labels),
                lambda m: m.service.counters.rows,
            ),
            (
                GaugeMetricFamily("edgepure_waiting", "Images that wait for a slot.", labels=labels),
                lambda m: m.service.waiting,
            ),
            (
                GaugeMetricFamily("edgepure_slots_busy_ratio", "Rows of all calls over their room.", labels=labels),
                lambda m: m.service.counters.rows / max(m.service.counters.ticks * m.purifier.slots, 1),
            ),
            (
                GaugeMetricFamily(
                    "edgepure_lanes_resident_memory_bytes", "Of the processes of its lanes.", labels=labels
                ),
                lambda m: sum(resident_memory(process) or 0 for process in m.service.processes),
            ),
            (
                GaugeMetricFamily("edgepure_model_proved", "1: the self-test was answered as recorded.", labels=labels),
                lambda m: float(m.proved),
            ),
        ]
        info = InfoMetricFamily("edgepure_bundle", "What is served.", labels=labels)
        for model in self._models:
            key = [model.settings.name, model.settings.version]
            for family, value in kinds:
                family.add_metric(key, value(model))
            info.add_metric(
                key,
                {
                    "bundle": model.purifier.bundle.manifest.name,
                    "provider": model.settings.provider,
                    "precision": model.settings.precision,
                    "preset": model.settings.preset or model.purifier.bundle.manifest.default_preset,
                },
            )
        yield from (family for family, _ in kinds)
        yield info
        if found := joules():
            energy = CounterMetricFamily(
                "edgepure_energy_joules", "That a GPU used since its driver was loaded, for whomever.", labels=["gpu"]
            )
            for gpu, value in found.items():
                energy.add_metric([gpu], value)
            yield energy
        yield GaugeMetricFamily(
            "edgepure_uptime_seconds", "Since the server started.", value=time.time() - self._started
        )

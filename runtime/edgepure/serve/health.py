"""Ready means proved: the self-test was answered through the slots, and the slots still move."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..errors import BusyError, EdgepureError
from .logs import log
from .models import Model, Models
from .settings import ServeSettings


@dataclass
class _Seen:
    """Of a model's lanes: how many ticks each had when its slots last moved, and when that was."""

    ticks: list[int]
    moved: list[float]
    probed: float


class Health:
    """Watches the models. `live` says that this process answers; `ready` that a model answers rightly."""

    def __init__(self, models: Models, settings: ServeSettings) -> None:
        self._models, self._settings = models, settings
        self._seen: dict[Model, _Seen] = {}
        self._doubted = asyncio.Event()
        self.draining = False

    def ready(self, model: Model) -> bool:
        """Whether requests should be sent to a model."""
        now, seen = time.monotonic(), self._look(model)
        moving = now - min(seen.moved) < self._settings.stale  # one lane that is stuck would keep its images for ever
        # the watch itself was held up, by a stopped process say: what it knows is old
        watched = now - seen.probed < 2.0 * self._settings.probe_every + self._settings.stale * model.tiles
        return model.proved and moving and watched and not self.draining

    def all_ready(self) -> bool:
        """Whether every model that the owner named is loaded and ready."""
        known = self._models.known()
        return bool(known) and all(model is not None and self.ready(model) for model in known.values())

    def doubt(self) -> None:
        """A purification failed: the next self-test comes soon, and says whether that was the image or the engine."""
        self._doubted.set()

    async def watch(self) -> None:
        """Put the self-test through the slots of every model again and again, soon where one is in doubt or failed.
        Ends when it is cancelled."""
        while True:
            self._doubted.clear()
            await asyncio.gather(*map(self._probe, list(self._models)))
            for gone in set(self._seen) - set(self._models):
                del self._seen[gone]
            soon = min(1.0, self._settings.probe_every)
            await asyncio.sleep(soon)
            if all(model.proved for model in self._models):
                with suppress(asyncio.TimeoutError, TimeoutError):
                    await asyncio.wait_for(self._doubted.wait(), self._settings.probe_every - soon)

    async def _probe(self, model: Model) -> None:
        before, ticks = model.proved, model.service.counters.ticks
        patience = self._settings.stale * model.tiles
        try:
            model.check(await asyncio.wait_for(_found(model), patience))
        except (TimeoutError, asyncio.TimeoutError):
            if model.service.counters.ticks == ticks:  # else others are before it: slow, but not stuck
                stuck = f"the self-test was not answered within {patience:g} seconds"
                model.proved, model.proof = False, stuck
        except EdgepureError as error:
            if not isinstance(error, BusyError):  # a full queue moves: `ready` looks at its ticks
                model.proved, model.proof = False, str(error)
        except Exception as error:  # of the engine: the watch goes on
            model.proved, model.proof = False, f"{type(error).__name__}: {error}"
        self._look(model).probed = time.monotonic()
        if model.proved != before:
            log("model ready" if model.proved else "model not ready", model=model.settings.name, reason=model.proof)

    def _look(self, model: Model) -> _Seen:
        now, moves, idle = time.monotonic(), model.service.moves, model.service.waiting == 0
        seen = self._seen.setdefault(model, _Seen([0] * len(moves), [now] * len(moves), now))
        any_moves = [ticks for ticks, _ in moves] != seen.ticks
        for lane, (ticks, busy) in enumerate(moves):
            # one without an image while others move is being started again, say: it holds nothing up
            if ticks != seen.ticks[lane] or (not busy and (idle or any_moves)):
                seen.ticks[lane], seen.moved[lane] = ticks, now
        return seen


async def _found(model: Model) -> Any:
    """What the self-test gives. A lane that ended with it says nothing of the others, nor of itself once it is back."""
    while True:
        try:
            return await asyncio.wrap_future(model.probe())
        except EdgepureError as error:
            if error.code != "E-lane-ended":
                raise

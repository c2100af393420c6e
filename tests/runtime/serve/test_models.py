"""Models that are loaded anew, without a server."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from edgepure.errors import EdgepureError
from edgepure.serve.health import Health
from edgepure.serve.models import Models
from edgepure.serve.settings import ModelSettings, ServeSettings


def test_what_was_replaced_is_given_back(digits: Path) -> None:
    """Whatever Python was told to leave alone: weights and threads of an old model must not stay."""
    models = Models(5.0)
    try:
        models.add(ModelSettings("m", digits, preset="uniform", threads=1, lanes=2))
        with models.get("m") as model:
            assert model.proved
            old = weakref.ref(model.service)
        del model
        models.load("m")
        gc.collect()
        assert old() is None
        with models.get("m") as model:
            assert model.proved and model.probe().result(30) is not None
    finally:
        models.close()
        gc.unfreeze()


class _Served:
    """What a health looks at of a model."""

    proved, tiles = True, 1

    def __init__(self, service: Any) -> None:
        self.service = service


def test_one_lane_that_is_stuck_is_enough() -> None:
    service = SimpleNamespace(waiting=0, moves=[(1, True), (1, True)])
    health = Health(Models(1.0), ServeSettings(stale=0.2))
    model: Any = _Served(service)
    assert health.ready(model)
    time.sleep(0.3)
    service.moves = [(2, True), (1, True)]
    assert not health.ready(model)
    service.moves = [(3, True), (1, False)]
    assert health.ready(model), "it has given its images out"


def test_a_lane_that_is_started_again_while_others_move_is_no_fault() -> None:
    service = SimpleNamespace(waiting=5, moves=[(1, True), (1, False)])
    health = Health(Models(1.0), ServeSettings(stale=0.2))
    model: Any = _Served(service)
    assert health.ready(model)
    time.sleep(0.3)
    service.moves = [(2, True), (1, False)]
    assert health.ready(model)
    time.sleep(0.3)
    assert not health.ready(model), "none moves, and images wait"


def test_a_self_test_that_was_in_a_lane_that_ended_is_asked_again() -> None:
    ends = [EdgepureError("lost", code="E-lane-ended"), EdgepureError("lost", code="E-lane-ended"), None]
    checked: list[str] = []

    def probe() -> Future[str]:
        found: Future[str] = Future()
        error = ends.pop(0)
        found.set_result("as recorded") if error is None else found.set_exception(error)
        return found

    health = Health(Models(1.0), ServeSettings(stale=5.0))
    model: Any = _Served(SimpleNamespace(waiting=0, moves=[(1, False)], counters=SimpleNamespace(ticks=1)))
    model.probe, model.check = probe, checked.append
    asyncio.run(health._probe(model))
    assert model.proved and checked == ["as recorded"]
    model.settings = SimpleNamespace(name="m")
    ends.append(EdgepureError("another", code="E-not-finite"))
    asyncio.run(health._probe(model))
    assert not model.proved and model.proof == "another"

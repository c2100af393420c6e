"""Many callers of one purifier: in-flight batching between them, faults of one, limits, cancellation, the end."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import environment
from codes import raises_code

import edgepure
from edgepure.errors import BusyError, EdgepureError, OverdueError
from edgepure.purify.service import Service

UNIFORM = {"method": {"method": "uniform", "t_star": 60, "steps": 3}}
HETEROGENEOUS = {
    "method": {"method": "heterogeneous", "t_l": 120, "t_s": 60, "stage1_steps": 2, "stage2_steps": 2, "U": 3},
    "mask": {"area": 0.25},
    "votes": {"count": 3},
}
SSNI = {**UNIFORM, "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1000.0, "probe": {"levels": [10.0]}}}
#: More votes than are classified in one call, and no multiple of them.
MANY = {**UNIFORM, "votes": {"count": 37}}
#: Every image passes untouched after its probe.
NO_NOISE = {**UNIFORM, "ssni": {"reweighting": "linear", "xi_min": 1e6, "xi_max": 2e6, "probe": {"levels": [10.0]}}}


@pytest.fixture
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=3) as opened:
        yield opened


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.load(edgepure.demo_bundle().parent / "digits_images.npz")["adversarial"][:12]


class Stuck:
    """Holds the service's thread at the first UNet call until it is let go."""

    def __init__(self, purifier: edgepure.Purifier, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        stepper = purifier.stepper("step")
        step = stepper.step

        def held(active: int) -> None:
            self.reached.set()
            assert self.go.wait(30)
            step(active)

        monkeypatch.setattr(stepper, "step", held)


@pytest.mark.parametrize(
    "preset", [UNIFORM, HETEROGENEOUS, SSNI, NO_NOISE, MANY], ids=["uniform", "votes", "ssni", "none", "many"]
)
def test_results_do_not_depend_on_who_else_is_served(
    purifier: edgepure.Purifier, images: np.ndarray, preset: dict[str, Any]
) -> None:
    alone = [purifier.run(image[None], preset, noise=i)[0] for i, image in enumerate(images)]
    futures: dict[int, Future[edgepure.Result]] = {}
    with Service(purifier, preset) as service:

        def client(numbers: range) -> None:
            futures.update((i, service.submit(images[i], noise=i)) for i in numbers)

        threads = [threading.Thread(target=client, args=(range(k, len(images), 4),)) for k in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for i, one in enumerate(alone):
            shared = futures[i].result(30)
            np.testing.assert_allclose(shared.image, one.image, atol=2e-5)
            assert (shared.label, shared.vote_labels, shared.levels) == (one.label, one.vote_labels, one.levels)
            assert (shared.unet_calls, shared.name) == (one.unet_calls, "0")


def test_an_image_that_comes_later_enters_at_once(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares the calls of one that is half done, and does not wait for its end."""
    stuck = Stuck(purifier, monkeypatch)
    with Service(purifier, UNIFORM) as service:
        first = service.submit(images[0])
        assert stuck.reached.wait(30)
        others = [service.submit(image) for image in images[1:3]]
        assert service.waiting == 2
        stuck.go.set()
        for future in (first, *others):
            future.result(30)
        assert (service.counters.jobs, service.counters.rows) == (3, 9)
        assert service.counters.ticks == 4, "one call alone, then all of them together"


def test_images_that_wait_together_share_mask_and_classifier(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [purifier.run(image[None], HETEROGENEOUS, votes=1, noise=i)[0] for i, image in enumerate(images[:4])]
    stuck = Stuck(purifier, monkeypatch)
    sizes: dict[str, list[int]] = {"mask": [], "classifier": []}
    for graph, seen in sizes.items():
        engine = purifier.engine(graph)

        def counted(feeds: Any, seen: list[int] = seen, run: Any = engine.run) -> Any:
            seen.append(len(feeds["image"]))
            return run(feeds)

        monkeypatch.setattr(engine, "run", counted)
    with Service(purifier, HETEROGENEOUS, votes=1) as service:
        futures = [service.submit(images[0], noise=0)]
        assert stuck.reached.wait(30)
        futures += [service.submit(images[i], noise=i) for i in (1, 2, 3)]
        stuck.go.set()
        for future, one in zip(futures, alone, strict=True):
            shared = future.result(30)
            np.testing.assert_allclose(shared.image, one.image, atol=2e-5)
            np.testing.assert_array_equal(shared.mask, one.mask)
    # Of those that wait, as many go together as there are slots; the first one is done a call earlier.
    assert sizes["mask"] == [1, 3]
    assert sizes["classifier"] == [1, 2, 1]


def test_first_come_first_served(purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: Any) -> None:
    stuck, order = Stuck(purifier, monkeypatch), []
    with Service(purifier, UNIFORM) as service:
        for i in range(9):
            future = service.submit(images[i])
            future.add_done_callback(lambda _, i=i: order.append(i))
        stuck.go.set()
    assert [sorted(order[k : k + 3]) for k in (0, 3, 6)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_noise_is_fresh_for_every_image(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    with Service(purifier, UNIFORM) as service:
        first, second = (service.submit(images[0]).result(30).image for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


def test_limits(purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Stuck(purifier, monkeypatch)
    with Service(purifier, UNIFORM, waiting=2) as service:
        running = service.submit(images[0])
        assert stuck.reached.wait(30)
        waiting = [service.submit(image) for image in images[1:3]]
        with pytest.raises(BusyError):
            service.submit(Path("not even looked at"))
        assert waiting[0].cancel(), "an image that waits can be cancelled"
        assert running.cancel(), "and so can one that is in the slots"
        assert service.waiting == 1
        instead = service.submit(images[3])
        stuck.go.set()
        assert all(future.result(30).unet_calls == 3 for future in (waiting[1], instead))
        for future in (waiting[0], running):
            with pytest.raises(CancelledError):
                future.result(0)
    assert service.counters.jobs == 2, "the slot of the cancelled one was free at once"


def test_an_overdue_image_leaves_queue_and_slots(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(purifier, monkeypatch)
    with Service(purifier, UNIFORM) as service:
        soon = time.monotonic() + 0.2
        running = service.submit(images[0], deadline=soon)
        assert stuck.reached.wait(30)
        waiting, patient = service.submit(images[1], deadline=soon), service.submit(images[2])
        time.sleep(max(soon - time.monotonic(), 0.0) + 0.01)
        with pytest.raises(OverdueError):
            service.submit(images[3], deadline=soon)
        stuck.go.set()
        for future in (running, waiting):
            with pytest.raises(OverdueError):
                future.result(30)
        assert patient.result(30).unet_calls == 3
    assert service.counters.jobs == 1


def test_what_cannot_be_met_is_refused_at_the_door(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(purifier, UNIFORM) as service:
        service.submit(images[0]).result(30)  # now the pace is known
        service._lanes[0].pace.row = 10.0  # ... of a very slow engine
        with pytest.raises(OverdueError):
            service.submit(images[0], deadline=time.monotonic() + 5.0)
        assert service.submit(images[0], deadline=time.monotonic() + 600.0).result(30).unet_calls == 3


def test_urgent_images_go_first_and_starve_nobody(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, order = Stuck(purifier, monkeypatch), []
    with Service(purifier, UNIFORM, votes=purifier.slots) as service:  # one image fills the slots
        service.submit(images[0])
        assert stuck.reached.wait(30)
        for name in ("ordinary 0", "ordinary 1", *(f"urgent {i}" for i in range(6))):
            future = service.submit(images[1], urgent=name.startswith("urgent"))
            future.add_done_callback(lambda _, name=name: order.append(name))
        stuck.go.set()
    assert order == [*(f"urgent {i}" for i in range(4)), "ordinary 0", "urgent 4", "urgent 5", "ordinary 1"]


def test_bad_images_are_the_callers_business(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    bad = images[0].copy()
    bad[0, 3, 4] = np.nan
    with Service(purifier, UNIFORM) as service:
        for image, code in (
            (bad, "E-image-not-finite"),
            (images[0][:, :5], "E-image-shape"),
            (images[:2], "E-service-image"),
            ([], "E-image-none"),
            (Path("nowhere.png"), "E-image-missing"),
        ):
            with raises_code(code):
                service.submit(image)
        assert service.submit(images[0][None]).result(30).unet_calls == 3


def test_one_that_is_not_finite_fails_alone(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck(purifier, monkeypatch)
    with Service(purifier, HETEROGENEOUS) as service:
        good = service.submit(images[0], noise=1)
        broken = service.submit(images[1], noise=_NotFinite())
        later = service.submit(images[2], noise=2)
        stuck.go.set()
        with raises_code("E-not-finite-network"):
            broken.result(30)
        after = service.submit(images[3], noise=3)
        for i, future in ((0, good), (2, later), (3, after)):
            alone = purifier.run(images[i][None], HETEROGENEOUS, noise=max(i, 1))[0]
            np.testing.assert_allclose(future.result(30).image, alone.image, atol=2e-5)


class _NotFinite(edgepure.SeededNoise):
    def __init__(self) -> None:
        super().__init__(0)

    def for_image(self, *arguments: Any, **named: Any) -> Any:
        noise = super().for_image(*arguments, **named)
        noise.row = lambda index: np.full((1, 16, 16), np.inf, np.float32)  # type: ignore[method-assign]
        return noise


@pytest.mark.parametrize("graph", ["step", "mask", "classifier"])
def test_a_fault_of_the_engine_ends_those_inside_only(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    with Service(purifier, HETEROGENEOUS) as service:

        def broken(*_: Any) -> Any:
            raise MemoryError(f"no memory for {graph}")

        with monkeypatch.context() as patch:
            if graph == "step":
                patch.setattr(purifier.stepper("step"), "step", broken)
            else:
                patch.setattr(purifier.engine(graph), "run", broken)
            futures = [service.submit(image) for image in images[:5]]
            for future in futures:
                with pytest.raises(MemoryError, match=graph):
                    future.result(30)
        assert len(service.submit(images[0]).result(30).vote_labels) == 3


def test_coroutines(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    async def ask(service: Service) -> list[edgepure.Result]:
        slow = asyncio.wrap_future(service.submit(images[0]))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(slow), 0)
        every = [asyncio.wrap_future(service.submit(image)) for image in images]
        return [await slow, *await asyncio.gather(*every)]

    with Service(purifier, UNIFORM) as service:
        assert len(asyncio.run(ask(service))) == 1 + len(images)


def test_the_end(purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    with Service(purifier, UNIFORM) as service:
        accepted = [service.submit(image) for image in images]
    assert all(future.done() and future.result().unet_calls == 3 for future in accepted), "what was accepted is done"
    service.close()
    with raises_code("E-service-closed"):
        service.submit(images[0])
    stuck = Stuck(purifier, monkeypatch)
    with Service(purifier, UNIFORM) as service:
        taken = [service.submit(image) for image in images]
        assert stuck.reached.wait(30)
        threading.Timer(0.2, stuck.go.set).start()
        service.close(drain=False)
    assert taken[0].result().unet_calls == 3, "who is in a slot is finished"
    assert taken[-1].cancelled(), "who waits is told"
    assert threading.active_count() == before


def test_a_callback_may_submit_and_close(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    service, more = Service(purifier, UNIFORM), []

    def then(_: Future[edgepure.Result]) -> None:
        more.append(service.submit(images[1]))
        service.close()

    service.submit(images[0]).add_done_callback(then)
    while not more:
        pass
    assert more[0].result(30).unet_calls == 3
    service.close()


def test_a_monitor_sees_every_image(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    monitor = purifier.monitor(0.05)
    with Service(purifier, "uniform-ssni", monitor=monitor) as service:
        results = [future.result(30) for future in [service.submit(image) for image in images]]
    assert [r.flagged for r in results] == [True] * len(images)
    assert monitor.to_dict()["images"] == len(images)


def test_wrong_settings_are_errors_at_the_start(purifier: edgepure.Purifier) -> None:
    before = threading.active_count()
    for settings, code in (
        ({"preset": "nonsense"}, "E-preset-unknown"),
        ({"votes": 0}, "E-config-votes"),
        ({"waiting": 0}, "E-config-waiting"),
        ({"preset": UNIFORM, "monitor": purifier.monitor(0.05)}, "E-monitor-ssni"),
        ({"preset": {"method": {"method": "uniform", "t_star": 2000}}}, "E-uniform-start"),
    ):
        with raises_code(code):
            Service(purifier, **settings)
    assert threading.active_count() == before


FORGOTTEN = """
import sys, numpy as np, edgepure
purifier = edgepure.load(edgepure.demo_bundle(), threads=1)
service = edgepure.Service(purifier, {"method": {"method": "uniform", "t_star": 100, "steps": 100}})
futures = [service.submit(np.zeros((1, 16, 16), np.float32)) for _ in range(20)]
futures[0].add_done_callback(lambda future: print("a result"))
"""


def test_a_program_that_forgets_to_close_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORGOTTEN], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "a result\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_is_told(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    with Service(purifier, UNIFORM) as service:
        service.submit(images[0]).result(30)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            said = ""
            try:
                service.submit(images[0])
            except EdgepureError as error:
                said = str(error)
            service.close()
            purifier.close()
            os.write(write, said.encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            assert "opened before the process was forked" in pipe.read()
        assert os.waitpid(child, 0)[1] == 0
        assert service.submit(images[0]).result(30).unet_calls == 3


@pytest.mark.parametrize("lanes", [0, True, 1000])
def test_lanes_are_counted(purifier: edgepure.Purifier, lanes: int) -> None:
    with raises_code("E-config-lanes"):
        Service(purifier, UNIFORM, lanes=lanes)

"""Several lanes of a service: processes that compute side by side, and what becomes of an image when one ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, wait
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_process import environment
from codes import raises_code

import edgepure
from edgepure.errors import BusyError, OverdueError, PrecisionWarning
from edgepure.purify import crew
from edgepure.purify.lane_messages import Drop, Inbox, packed
from edgepure.purify.lane_worker import sendable
from edgepure.purify.service import Service
from edgepure.purify.submissions import Submission
from edgepure.rows.noise import SeededNoise

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="lanes are not made there")

UNIFORM = {"method": {"method": "uniform", "t_star": 60, "steps": 3}}
SSNI = {**UNIFORM, "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1000.0, "probe": {"levels": [10.0]}}}
#: So long that a test can do something meanwhile.
LONG = {"method": {"method": "uniform", "t_star": 150, "steps": 150}, "votes": {"count": 500}}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.load(edgepure.demo_bundle().parent / "digits_images.npz")["adversarial"][:12]


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=3) as opened:
        yield opened


@pytest.fixture(scope="module")
def service(purifier: edgepure.Purifier) -> Iterator[Service]:
    with Service(purifier, SSNI, lanes=2) as started:
        yield started


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def alive(process: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_results_are_those_of_one_lane(service: Service, purifier: edgepure.Purifier, images: np.ndarray) -> None:
    futures = [service.submit(image, noise=i) for i, image in enumerate(images)]
    for i, (image, future) in enumerate(zip(images, futures, strict=True)):
        alone, shared = purifier.run(image[None], SSNI, noise=i)[0], future.result(60)
        np.testing.assert_allclose(shared.image, alone.image, atol=2e-5)
        assert (shared.label, shared.levels, shared.unet_calls) == (alone.label, alone.levels, alone.unet_calls)
    assert len(set(service.processes)) == 2 and os.getpid() not in service.processes
    assert all(ticks > 0 for ticks, _ in service.moves), "both had something to do"
    assert service.counters.jobs >= 2 * len(images), "a probe and a vote each"


def test_fresh_noise_is_secret_and_never_the_same(service: Service, images: np.ndarray) -> None:
    first, second = (service.submit(images[0]).result(60).image for _ in range(2))
    assert not np.array_equal(first, second)


def test_pace_is_known_here(service: Service, images: np.ndarray) -> None:
    service.submit(images[0]).result(60)
    rows = [lane.pace.row for lane in service._lanes]
    assert all(row > 0.0 for row in rows)
    for lane in service._lanes:
        lane.pace.row = 10.0
    with pytest.raises(OverdueError):
        service.submit(images[0], deadline=time.monotonic() + 5.0)
    service._lanes[0].pace.row = 1e-6  # a lane that was slow does not refuse for the other
    assert service.submit(images[0], deadline=time.monotonic() + 60.0).result(60) is not None


def test_bad_images_are_refused_before_they_go_anywhere(service: Service) -> None:
    with raises_code("E-image-not-finite"):
        service.submit(np.full((1, 16, 16), np.nan, np.float32))


def test_noise_that_cannot_go_to_another_process_is_an_error_of_its_image(service: Service, images: np.ndarray) -> None:
    class Own(SeededNoise):
        """Of a class that only this function knows."""

    assert service.submit(images[0], noise=Own(3)).exception(60) is not None
    assert service.submit(images[0], noise=3).result(60) is not None


def test_noise_of_a_class_that_only_this_process_knows_is_an_error_of_its_image(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process, and the images beside it, know nothing of that."""

    class Own(SeededNoise):
        """Of the program that the user started."""

    Own.__module__, Own.__qualname__ = "__main__", "Own"
    monkeypatch.setattr(sys.modules["__main__"], "Own", Own, raising=False)
    with Service(purifier, LONG, lanes=2) as service:
        processes, beside = service.processes, [service.submit(image) for image in images[:2]]
        until(lambda: all(busy for _, busy in service.moves))
        assert "Own" in str(service.submit(images[0], noise=Own(3)).exception(30))
        assert not any(future.done() for future in beside)
        assert all(future.cancel() for future in beside)
        until(lambda: not service.busy)
        assert "Own" in str(service.submit(images[0], noise=Own(3)).exception(30))
        assert service.processes == processes


def test_a_monitor_counts_here(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    monitor = purifier.monitor(0.05, probe=True)
    with Service(purifier, UNIFORM, monitor=monitor, lanes=2) as service:
        results = [future.result(60) for future in [service.submit(image) for image in images]]
    found = monitor.to_dict()
    assert (found["images"], found["flagged"]) == (len(images), sum(bool(one.flagged) for one in results))
    assert found["unet_calls"] == len(images) * purifier.bundle.manifest.calibration.chosen.unet_calls


def test_a_process_that_ends_is_started_again(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    """Those in it have an error, those in the other one and in the line their results."""
    with Service(purifier, {**LONG, "votes": {"count": 20}}, lanes=2) as service:
        futures = [service.submit(image) for image in images]
        until(lambda: all(busy for _, busy in service.moves))
        victim = service.processes[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: any(future.done() for future in futures))
        lost = [future for future in futures if future.done()]
        assert lost and all(future.exception(60).code == "E-lane-ended" for future in lost)
        until(lambda: victim not in service.processes)
        for future in futures:
            if future not in lost:
                future.cancel()
        rows = service.counters.rows
        answers = [service.submit(image).result(120) for image in images[:2]]
        assert len(answers) == 2 and service.counters.rows > rows
        until(lambda: all(lane.up for lane in service._lanes))


def test_cancelled_and_overdue_images_leave_the_slots(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    with Service(purifier, LONG, lanes=2) as service:
        second = service.submit(images[1], deadline=time.monotonic() + 0.7)  # before the pace is known
        first = service.submit(images[0])
        until(lambda: all(busy for _, busy in service.moves))
        assert first.cancel()
        with pytest.raises(OverdueError):
            second.result(60)
        until(lambda: not service.busy)
        assert service.counters.jobs < 2 * 500, "not all votes of both"
        with pytest.raises(CancelledError):
            first.result(0)


def test_closing_finishes_what_was_taken_and_ends_the_processes(
    purifier: edgepure.Purifier, images: np.ndarray
) -> None:
    threads = threading.active_count()
    service = Service(purifier, UNIFORM, lanes=2)
    processes = service.processes
    futures = [service.submit(image) for image in images]
    service.close()
    assert all(future.result(0).unet_calls == 3 for future in futures)
    assert not any(map(alive, processes)) and threading.active_count() == threads
    with raises_code("E-service-closed"):
        service.submit(images[0])
    service.close()


def test_a_callback_may_close_the_service(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    service = Service(purifier, UNIFORM, lanes=2)
    futures = [service.submit(image) for image in images]
    futures[0].add_done_callback(lambda _: service.close())
    assert all(future.result(60).unet_calls == 3 for future in futures)
    until(lambda: not any(map(alive, service.processes)))


def test_closing_without_draining_cancels_those_that_wait(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    service = Service(purifier, {**LONG, "votes": {"count": 3}}, lanes=2)
    futures = [service.submit(image) for image in images]
    until(lambda: all(busy for _, busy in service.moves))
    service.close(drain=False)
    ends = [future.cancelled() for future in futures]
    assert any(ends) and not all(ends)


def test_closing_does_not_wait_for_a_process_that_cannot_begin(images: np.ndarray, tmp_path: Path) -> None:
    """Its bundle has become another one: it is not served under the name of the old one."""
    bundle = Path(shutil.copytree(edgepure.demo_bundle(), tmp_path / "bundle"))
    with edgepure.load(bundle, threads=1) as purifier:
        service = Service(purifier, UNIFORM, lanes=2)
        manifest = bundle / "bundle.json"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
        for process in service.processes:
            os.kill(process, signal.SIGKILL)
        lanes: Any = service._lanes
        until(lambda: all(lane.failed is not None for lane in lanes))
        assert {lane.failed.code for lane in lanes} == {"E-lane-bundle"}
        late = service.submit(images[0], deadline=time.monotonic() + 0.2)
        assert isinstance(late.exception(30), OverdueError), "it is told so without a process, too"
        waiting = service.submit(images[0])
        service.close()
        error: Any = waiting.exception(0)
        assert error.code == "E-service-closed"


def test_what_is_wrong_is_told_at_once(purifier: edgepure.Purifier) -> None:
    with raises_code("E-monitor-ssni"):
        Service(purifier, UNIFORM, monitor=purifier.monitor(0.05), lanes=2)
    own = edgepure.Purifier(purifier.bundle, opens=lambda *_: purifier.engine("classifier"))
    with raises_code("E-config-lanes-opener"):
        Service(own, UNIFORM, lanes=2)
    with pytest.warns(PrecisionWarning), Service(purifier, {**UNIFORM, "precision": "int8"}, lanes=2):
        pass


def test_processes_end_with_the_one_that_started_them() -> None:
    """Also where another one was forked from it."""
    program = """
        import os, time, edgepure
        service = edgepure.Service(edgepure.load(edgepure.demo_bundle(), threads=1), lanes=2)
        if forked := os.fork():
            print(forked, *service.processes, flush=True)
        else:
            os.close(1)
        time.sleep(600)
    """
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True, env=environment()
    )
    assert running.stdout is not None
    forked, *processes = [int(number) for number in running.stdout.readline().split()]
    assert len(processes) == 2 and all(map(alive, processes))
    running.kill()
    running.communicate()
    try:
        until(lambda: not any(map(alive, processes)))
        assert alive(forked)
    finally:
        os.kill(forked, signal.SIGKILL)


def test_messages_come_in_any_pieces() -> None:
    sent = [Drop(1), Drop(2**40), Drop(3)]
    data = b"".join(map(packed, sent))
    for size in (1, 7, 100, len(data)):
        inbox = Inbox()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        assert [message for piece in pieces for message in inbox.put(piece)] == sent


def test_more_than_the_socket_takes_is_sent_later(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    with Service(purifier, UNIFORM, lanes=2) as service:
        lanes: Any = service._lanes
        for lane in lanes:
            lane.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        futures = [service.submit(image) for image in np.tile(images, (5, 1, 1, 1))]
        assert all(future.result(60).unet_calls == 3 for future in futures)


def test_errors_of_libraries_become_words() -> None:
    class OwnError(Exception):
        """Of a class that another process cannot know."""

    found = sendable(OwnError("it broke"))
    assert type(found) is RuntimeError and "OwnError: it broke" in str(found)
    assert sendable(OverdueError("late", code="E-late")).code == "E-late"  # type: ignore[attr-defined]


def test_an_event_loop_may_listen(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    """Then its thread gives the results out, and there is no other; lost lanes, too, are its business."""
    threads: set[int] = set()

    async def ask(service: Service) -> list[Any]:
        futures = [service.submit(image, noise=i) for i, image in enumerate(images)]
        for future in futures:
            future.add_done_callback(lambda _: threads.add(threading.get_ident()))
        return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))

    async def main() -> None:
        before = threading.active_count()
        service = Service(purifier, SSNI, lanes=2)
        service.attach(asyncio.get_running_loop())
        assert threading.active_count() == before
        found = await ask(service)
        for i, (image, shared) in enumerate(zip(images, found, strict=True)):
            np.testing.assert_allclose(shared.image, purifier.run(image[None], SSNI, noise=i)[0].image, atol=2e-5)
        assert threads == {threading.get_ident()}
        victim = service.processes[0]
        os.kill(victim, signal.SIGKILL)
        while victim in service.processes or not all(lane.up for lane in service._crew.lanes):  # type: ignore[union-attr]
            await asyncio.sleep(0.01)
        assert len(await ask(service)) == len(images)
        waiting = [service.submit(image) for image in images]
        await asyncio.to_thread(service.close)  # another thread closes it while the loop goes on
        assert all(future.done() and future.exception() is None for future in waiting)
        assert not any(map(alive, service.processes))

    asyncio.run(main())


@pytest.mark.parametrize("where", ["in the loop", "in a callback", "after the loop"])
def test_an_attached_service_is_closed_anywhere(purifier: edgepure.Purifier, images: np.ndarray, where: str) -> None:
    service = Service(purifier, UNIFORM, lanes=2)

    async def main() -> list[Any]:
        service.attach(asyncio.get_running_loop())
        futures = [service.submit(image) for image in images]
        if where == "in the loop":
            service.close()
            assert all(future.done() for future in futures)
        elif where == "in a callback":
            futures[0].add_done_callback(lambda _: service.close())
            await asyncio.gather(*map(asyncio.wrap_future, futures))
        return futures

    futures = asyncio.run(main())
    service.close()
    assert all(future.result(0).unet_calls == 3 for future in futures)
    until(lambda: not any(map(alive, service.processes)))


def test_a_callback_may_close_the_service_in_submit(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    """An image that is overdue when another one's caller hands out."""
    service = Service(purifier, {**LONG, "votes": {"count": 3}}, lanes=2)
    held, done = threading.Event(), threading.Event()
    for image in images[:6]:  # as many as the processes take
        service.submit(image).add_done_callback(lambda _: (held.set(), done.wait(30)))
    late, threads = service.submit(images[0]), list[threading.Thread]()
    late.add_done_callback(lambda _: (threads.append(threading.current_thread()), service.close()))
    (waiting,) = service._line
    assert held.wait(60) and not late.done()
    waiting.deadline = time.monotonic() - 1.0
    caller = threading.Thread(target=service.submit, args=(images[0],), daemon=True)
    caller.start()
    caller.join(30)
    done.set()
    assert not caller.is_alive() and threads == [caller]
    until(lambda: not any(map(alive, service.processes)))


def test_a_process_that_the_system_has_no_room_for_is_tried_again(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(purifier, UNIFORM, lanes=2) as service:
        lanes: Any = service._lanes

        def refused(*_: Any, **__: Any) -> None:
            raise OSError(24, "Too many open files")

        with monkeypatch.context() as scarce:
            scarce.setattr(subprocess, "Popen", refused)
            os.kill(service.processes[0], signal.SIGKILL)
            until(lambda: isinstance(lanes[0].failed, OSError))
        assert service.submit(images[0]).result(30) is not None, "by the other one"
        until(lambda: lanes[0].up)


def test_who_waits_for_a_stopped_process_is_told_in_time(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it does not keep the service, when nobody waits for it any more."""
    service = Service(purifier, LONG, lanes=3)
    late = service.submit(images[0], deadline=time.monotonic() + 1.0)  # before the pace is known
    cancelled = service.submit(images[1])
    until(lambda: sum(busy for _, busy in service.moves) == 2)
    for process in service.processes:
        os.kill(process, signal.SIGSTOP)
    assert isinstance(late.exception(30), OverdueError) and cancelled.cancel()
    assert not wait([cancelled], timeout=30).not_done
    monkeypatch.setattr(crew, "_LAST", 1.0)
    began = time.monotonic()
    service.close()
    assert time.monotonic() - began < 2.5, "one time for all"
    assert not any(map(alive, service.processes))


def test_whoever_cancels_while_the_result_comes_is_woken(images: np.ndarray) -> None:
    submission = Submission(images[0], "", SeededNoise(1))
    submission.start()
    submission.future.cancel()
    submission.finish(OverdueError("it has come"))
    assert not wait([submission.future], timeout=5.0).not_done


def test_a_loop_may_be_closed_before_the_service(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    with Service(purifier, UNIFORM, waiting=2, lanes=2) as service:
        futures = []

        async def main() -> None:
            service.attach(asyncio.get_running_loop())
            futures.extend(service.submit(image) for image in images[:8])  # the line is full

        asyncio.run(main())

        def again() -> bool:
            with suppress(BusyError):
                futures.append(service.submit(images[0]))
            return len(futures) > 8

        until(again)
        assert all(future.result(30).unet_calls == 3 for future in futures)


def test_a_loop_goes_on_after_the_service(
    purifier: edgepure.Purifier, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Any] = []
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))

    async def ask(service: Service) -> None:
        service.attach(loop)
        service.attach(loop)
        await asyncio.wrap_future(service.submit(images[0]))

    stopped, inside = Service(purifier, UNIFORM, lanes=2), Service(purifier, UNIFORM, lanes=2)
    loop.run_until_complete(ask(stopped))
    stopped.close()  # while the loop does not run

    async def main() -> None:
        await ask(inside)
        inside.close()
        inside.attach(loop)
        await asyncio.sleep(0.6)

    loop.run_until_complete(main())
    loop.close()
    assert not faults
    with monkeypatch.context() as forked, raises_code("E-forked"):
        forked.setattr(purifier.turns, "_process", 0)
        inside.attach(loop)


def test_a_loop_does_not_wait_for_processes_that_end(purifier: edgepure.Purifier) -> None:
    longest = 0.0

    async def main() -> None:
        nonlocal longest
        service = Service(purifier, UNIFORM, lanes=2)
        service.attach(asyncio.get_running_loop())
        victim = service.processes[0]
        os.kill(victim, signal.SIGKILL)
        while victim in service.processes:
            await asyncio.sleep(0.001)
        for process in service.processes:  # one that still opens its engines, and one that takes its time to end
            os.kill(process, signal.SIGSTOP)
        closing = asyncio.create_task(asyncio.to_thread(service.close))
        while not closing.done():
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began)
        assert not any(map(alive, service.processes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crew, "_LAST", 2.0)
        asyncio.run(main())
    assert longest < 1.0


def test_a_callback_that_is_told_of_the_end_may_close(images: np.ndarray, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(edgepure.demo_bundle(), tmp_path / "bundle"))
    faults: list[Any] = []

    async def main(service: Service) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: faults.append(context))
        service.attach(loop)
        (bundle / "bundle.json").unlink()
        for process in service.processes:
            os.kill(process, signal.SIGKILL)
        lanes: Any = service._lanes
        while not all(lane.failed for lane in lanes):
            await asyncio.sleep(0.01)
        waiting = service.submit(images[0])
        waiting.add_done_callback(lambda _: service.close())
        await asyncio.to_thread(service.close)
        assert getattr(waiting.exception(0), "code", "") == "E-service-closed"

    with edgepure.load(bundle, threads=1) as purifier:
        asyncio.run(main(Service(purifier, UNIFORM, lanes=2)))
    assert not faults

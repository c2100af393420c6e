"""Several users of one purifier: none starves, none ends another; and sources that never end."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure.purify.results import Failure, Result


@pytest.fixture
def purifier(tiny_bundle: object) -> Iterator[edgepure.Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=2) as found:  # type: ignore[arg-type]
        yield found


def test_a_busy_service_lets_others_have_their_turn(purifier: edgepure.Purifier) -> None:
    stop, image = threading.Event(), images(1)[0]
    with edgepure.Service(purifier, "uniform") as busy, edgepure.Service(purifier, "uniform") as other:

        def again(_: object) -> None:
            if not stop.is_set():
                busy.submit(image).add_done_callback(again)

        for _ in range(8):
            busy.submit(image).add_done_callback(again)
        for _ in range(3):
            other.submit(image).result(timeout=60)
            purifier.classify(image[None], "uniform")
        stop.set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_callback_that_exits_ends_nobody_else(purifier: edgepure.Purifier) -> None:
    with edgepure.Service(purifier, "uniform") as service:
        heard = threading.Event()
        first = service.submit(images(1)[0])
        first.add_done_callback(lambda _: sys.exit(3))
        first.add_done_callback(lambda _: heard.set())
        assert all(service.submit(image).result(timeout=60) for image in images(4))
        assert heard.wait(60)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent(purifier: edgepure.Purifier) -> None:
    with edgepure.Service(purifier, "uniform") as service, service._lock:
        child = os.fork()
        if not child:
            try:
                _ = service.waiting
            except edgepure.EdgepureError as error:
                os._exit(0 if error.code == "E-forked" else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_stream_without_end(purifier: edgepure.Purifier) -> None:
    taken: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for number in itertools.count():
            taken.append(number)
            yield images(3)[number % 3] if number != 1 else np.zeros((5, 5), np.float32)

    answers = purifier.stream(camera(), "uniform", noise=7)
    assert taken == []
    found = list(itertools.islice(answers, 4))
    assert taken == [0, 1, 2, 3], "none is read ahead"
    assert [type(answer) for answer in found] == [Result, Failure, Result, Result]
    assert [answer.name for answer in found] == ["0", "1", "2", "3"]
    whole = purifier.run(images(3), "uniform", noise=7, ids=[0, 1, 2])
    assert isinstance(found[2], Result)
    np.testing.assert_allclose(found[2].image, whole[2].image, atol=1e-5)


def test_a_stream_says_at_once_what_is_wrong(purifier: edgepure.Purifier) -> None:
    with raises_code("E-config-option"):
        purifier.stream(3)  # type: ignore[arg-type]
    with pytest.raises(edgepure.ConfigError):
        purifier.stream([], "none of this name")

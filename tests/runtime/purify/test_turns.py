"""One purifier among threads, callbacks and processes: it waits, or says what is wrong; it never mixes images up."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import edgepure
from edgepure.errors import ConfigError, EdgepureError, ImageError

UNIFORM = {"method": {"method": "uniform", "t_star": 60, "steps": 3}}


@pytest.fixture
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=5) as opened:
        yield opened


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.load(edgepure.demo_bundle().parent / "digits_images.npz")["clean"][:24]


@pytest.mark.parametrize("what", ["classify", "score_norms", "close"])
def test_a_callback_may_not_take_the_slots(purifier: edgepure.Purifier, images: np.ndarray, what: str) -> None:
    """16 images are classified, and reported, while others are still in their slots."""
    actions: dict[str, Callable[[], Any]] = {
        "classify": lambda: purifier.classify(images[:3], UNIFORM),
        "score_norms": lambda: purifier.score_norms(images[:3], "uniform-ssni"),
        "close": purifier.close,
    }
    refused: list[str] = []

    def callback(done: int, of: int) -> None:
        assert purifier.logits(images[:1]).shape == (1, 10), "other engines may be used"
        try:
            actions[what]()
        except EdgepureError as error:
            refused.append(str(error))

    expected = purifier.run(images, UNIFORM, noise=3)
    found = purifier.run(images, UNIFORM, noise=3, on_progress=callback)
    assert len(refused) == len(images) and "a callback or signal handler cannot purify or close" in refused[0]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("hook", ["on_progress", "on_rows"])
def test_what_a_callback_raises_ends_the_call_and_nothing_else(
    purifier: edgepure.Purifier, images: np.ndarray, hook: str
) -> None:
    expected = purifier.run(images, UNIFORM, noise=3)

    def stop(*_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        purifier.run(images, UNIFORM, noise=4, **{hook: stop})
    for one, other in zip(purifier.run(images, UNIFORM, noise=3), expected, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_close_waits_for_other_threads_and_the_next_call_opens_anew(
    purifier: edgepure.Purifier, images: np.ndarray
) -> None:
    inside, results = threading.Event(), []
    worker = threading.Thread(
        target=lambda: results.extend(purifier.run(images, UNIFORM, noise=3, on_rows=lambda rows: inside.set()))
    )
    worker.start()
    assert inside.wait(30)
    purifier.close()
    worker.join()
    purifier.close()
    with purifier:
        again = purifier.run(images, UNIFORM, noise=3)
    assert [r.label for r in results] == [r.label for r in again] and len(again) == len(images)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_opens_its_own(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    """Engines have threads, which a fork does not copy: OpenVINO would wait for them for ever."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = []
        for call in (lambda: purifier.run(images), lambda: purifier.logits(images)):
            try:
                call()
            except EdgepureError as error:
                said.append(str(error))
        purifier.close()
        with edgepure.load(edgepure.demo_bundle(), threads=1) as own:
            said.append(str(own.logits(images[:2]).shape))
        os.write(write, "\n".join(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        first, second, third = pipe.read().splitlines()
    assert os.waitpid(child, 0)[1] == 0
    assert first == second and "opened before the process was forked" in first
    assert third == "(2, 10)"
    assert purifier.logits(images[:1]).shape == (1, 10)


def test_results_travel_and_purifiers_do_not(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    bad = np.full((1, 16, 16), 2.0, np.float32)
    results = purifier.classify([images[0], bad], UNIFORM, on_error="collect")
    sent = pickle.loads(pickle.dumps(results))
    assert sent.failures == results.failures and len(sent.failures) == 1
    assert sent[0].to_dict() == results[0].to_dict()
    np.testing.assert_array_equal(sent[0].image, results[0].image)
    assert results[0] in results and results[0] != sent[0] and len({results[0], sent[0]}) == 2
    with pytest.raises(TypeError, match=r"a Purifier cannot be pickled: .* load it there"):
        pickle.dumps(purifier)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, x: p.run(x[:, :, :1, :1], UNIFORM), ImageError, "expected float32 [B, 1, 16, 16]"),
        (lambda p, x: p.run((255 * x).astype(np.uint8), UNIFORM), ImageError, "the batch is uint8"),
        (lambda p, x: p.run(x[0], UNIFORM), ImageError, "float32 [1, 16, 16]"),
        (lambda p, x: p.run(x * np.nan, UNIFORM), ImageError, "image 0 of the batch has pixels that are NaN"),
        (lambda p, x: p.score_norms(x.astype(float), "uniform-ssni"), ImageError, "the batch is float64"),
        (lambda p, x: p.run(x, UNIFORM, ids=[1, 2]), ConfigError, "2 ids for 24 images"),
        (lambda p, x: p.run(x, UNIFORM, names=["a"]), ConfigError, "1 names for 24 images"),
    ],
)
def test_a_batch_that_would_be_stretched_or_misread_is_refused(
    purifier: edgepure.Purifier, images: np.ndarray, call: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call(purifier, images)
    assert words in str(caught.value)


def test_no_images(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    none = images[:0]
    assert purifier.run(none) == [] and purifier.logits(none).shape == (0, 10)
    assert purifier.score_norms(none, "uniform-ssni").shape == (0,)
    mask = purifier.preset("heterogeneous").mask
    assert mask is not None and purifier.attention(none, mask)["mask"].shape == (0, 1, 16, 16)

"""A track: levels and masks that hold over frames, noise that never does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure import Purifier, Result, Track
from edgepure.purify.track import Measured
from edgepure.types import Float32

HETEROGENEOUS_SSNI: dict[str, Any] = {
    "method": {"method": "heterogeneous", "t_l": 60, "t_s": 30, "stage1_steps": 2, "stage2_steps": 2},
    "mask": {"threshold": 0.5},
    "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "probe": {"probes": 5}},
}


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=8) as opened:
        yield opened


def shot(count: int, seed: int = 0) -> list[Float32]:
    """One scene, a little noise on every frame."""
    rng = np.random.default_rng(seed)
    return [np.clip(images(1)[0] + 0.01 * rng.random((1, 16, 16), np.float32), 0.0, 1.0) for _ in range(count)]


def answers(purifier: Purifier, frames: Any, preset: Any, **more: Any) -> list[Result]:
    found = list(purifier.stream(frames, preset, **more))
    assert all(isinstance(one, Result) for one in found)
    return [one for one in found if isinstance(one, Result)]


def test_the_probe_is_saved_on_held_frames(purifier: Purifier) -> None:
    track = Track(every=3)
    found = answers(purifier, shot(7), HETEROGENEOUS_SSNI, noise=1, track=track)
    assert [r.held for r in found] == [False, True, True, False, True, True, False]
    assert (track.measured, track.held) == (3, 4)
    for first, held in ((found[0], found[1]), (found[3], found[5])):
        assert held.score_norm == first.score_norm and held.levels == first.levels
        assert held.mask is not None and first.mask is not None and np.array_equal(held.mask, first.mask)
        assert held.unet_calls == first.unet_calls - 5
    assert found[0].score_norm != found[3].score_norm


def test_noise_is_fresh_for_every_frame(purifier: Purifier) -> None:
    still = [images(1)[0]] * 3
    for noise in (None, 5):
        found = [r.image for r in answers(purifier, still, HETEROGENEOUS_SSNI, noise=noise, track=Track())]
        assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[1], found[2])


def test_a_held_frame_is_purified_as_the_measures_say(purifier: Purifier) -> None:
    """Bit for bit what `run` gives a frame whose own measures are the same."""
    still = [images(1)[0]] * 2
    held = answers(purifier, still, "heterogeneous", noise=5, track=Track())[1]
    alone = purifier.run(images(1), "heterogeneous", noise=5, ids=[1])[0]
    assert held.held and not alone.held
    assert np.array_equal(held.image, alone.image)


def test_what_changes_is_measured(purifier: Purifier) -> None:
    dark, bright = images(2)
    track = Track(every=100, change=0.1)
    found = answers(purifier, [dark, dark, bright, bright], "adaptive", noise=1, track=track)
    assert [r.held for r in found] == [False, True, False, True]
    track.reset()
    assert not answers(purifier, [bright], "adaptive", noise=1, track=track)[0].held
    assert not answers(purifier, [bright], HETEROGENEOUS_SSNI, noise=1, track=track)[0].held, "another preset"


def test_a_small_object_is_a_change() -> None:
    preset = edgepure.Preset.parse({"method": {"method": "uniform"}})
    frame = np.zeros((3, 64, 80), np.float32)
    track = Track(change=0.1)
    track.keep(frame, preset, Measured())
    assert track.holds(frame + np.float32(0.05), preset) is not None
    frame[:, 10:18, 20:30] = 1.0  # less than two percent of the picture
    assert track.holds(frame, preset) is None
    assert track.holds(frame[:, :32], preset) is None


def test_frames_hold_the_levels_of_their_tiles(purifier: Purifier) -> None:
    frame = np.random.default_rng(0).random((1, 30, 40), np.float32)
    track = Track(every=2)
    found = [purifier.purify_frame(frame, HETEROGENEOUS_SSNI, noise=1, number=n, track=track) for n in range(3)]
    assert [f.held for f in found] == [False, True, False]
    assert found[1].score_norms == found[0].score_norms != found[2].score_norms
    tiles = found[0].tiles[0] * found[0].tiles[1]
    assert found[1].unet_calls == found[0].unet_calls - 5 * tiles
    assert not np.array_equal(found[0].image, found[1].image)
    mask = np.zeros((30, 40), bool)
    given = purifier.purify_frame(frame, HETEROGENEOUS_SSNI, noise=1, mask=mask, track=track)
    assert given.held and given.mask is not None and not given.mask.any()


@pytest.mark.parametrize("preset", ["heterogeneous", HETEROGENEOUS_SSNI], ids=["mask", "mask-ssni"])
def test_the_callers_mask_does_not_hold(purifier: Purifier, preset: Any) -> None:
    """A frame that comes without one gets the preset's own mask, not the last caller's and not none."""
    frame, image = np.random.default_rng(0).random((1, 30, 40), np.float32), images(1)
    track, wanted = Track(), purifier.purify_frame(frame, preset, noise=1)
    first = purifier.purify_frame(frame, preset, mask=np.zeros((30, 40), bool), noise=1, track=track)
    found = purifier.purify_frame(frame, preset, noise=1, track=track)
    assert not found.held and np.array_equal(found.image, wanted.image)
    assert first.score_norms == found.score_norms

    track, alone = Track(), purifier.run(image, preset, noise=1)[0]
    mine = np.zeros((1, 1, 16, 16), np.float32)
    purifier.run(image, preset, noise=1, masks=mine, track=track)
    again = purifier.run(image, preset, noise=1, track=track)[0]
    assert not again.held and np.array_equal(again.image, alone.image)
    given = purifier.run(image, preset, noise=1, masks=mine, track=track)[0]
    assert given.held and given.mask is not None and not given.mask.any(), "what was measured holds"


def test_a_monitor_does_not_count_a_measure_twice() -> None:
    digits = edgepure.demo_images()
    with edgepure.load(edgepure.demo_bundle(), threads=1) as purifier:
        monitor = purifier.monitor(0.05, probe=True)
        found = answers(purifier, [digits.clean[0]] * 3, "uniform", noise=1, track=Track(), monitor=monitor)
    assert monitor.to_dict()["images"] == 1
    assert [r.held for r in found] == [False, True, True]
    assert found[2].p_value == found[0].p_value and found[2].flagged is found[0].flagged is not None


def test_options_out_of_range_are_refused(purifier: Purifier) -> None:
    for options in ({"every": 0}, {"every": 2.5}, {"change": -0.1}, {"change": 2}, {"every": True}):
        with raises_code("E-track-option"):
            Track(**options)  # type: ignore[arg-type]
    with raises_code("E-track-option"):
        purifier.run(images(2), track=Track())

"""`Purifier.purify_frame`: every method on frames of any size; masks and score norms by tiles and for the frame."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure import Purifier
from edgepure.images.tiles import Tiling
from edgepure.types import Float32

SHAPE = (1, 40, 53)
TILED = {"overlap": 0.5}
HETEROGENEOUS = {
    "method": {"method": "heterogeneous", "t_l": 60, "t_s": 30, "stage1_steps": 2, "stage2_steps": 2},
    "mask": {"threshold": 0.5},
}
SSNI = {
    "method": {"method": "uniform", "t_star": 40, "steps": 4, "sampler": "ddim"},
    "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "levels": 4, "probe": {"probes": 2}},
}


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=8) as opened:
        yield opened


def frame(shape: tuple[int, int, int] = SHAPE) -> Float32:
    """Dark on the left, bright on the right."""
    rng = np.random.default_rng(0)
    slope = np.linspace(0.0, 0.6, shape[2], dtype=np.float32)
    return (slope + 0.3 * rng.random(shape, dtype=np.float32)).astype(np.float32)


def tiles(**spec: Any) -> dict[str, Any]:
    return {"tiles": {**TILED, **spec}}


@pytest.mark.parametrize("preset", ["uniform", "heterogeneous", "adaptive"])
def test_a_frame_of_the_networks_size_is_purified_as_an_image(purifier: Purifier, preset: str) -> None:
    image = images(1)[0]
    found, wanted = purifier.purify_frame(image, preset, noise=4), purifier.purify(image, preset, noise=4)[0]
    assert np.array_equal(found.image, wanted.image)
    assert (found.unet_calls, dict(found.levels)) == (wanted.unet_calls, dict(wanted.levels))
    assert (found.mask is None) == (wanted.mask is None)
    if found.mask is not None:
        assert np.array_equal(found.mask, wanted.mask)


@pytest.mark.parametrize(
    "method",
    [
        {"method": "gdmp", "purify_steps": 2, "rounds": 2},
        {"method": "gnsp", "max_timesteps": [20, 40], "num_denoising_steps": [2, 2]},
        {"method": "repaint", "respacing": "25", "t_T": 3, "jump_length": 1, "jump_n_sample": 2},
        {"method": "smooth", "sigma": 0.25},
        HETEROGENEOUS["method"],
    ],
    ids=lambda m: m["method"],
)
def test_every_method_does_frames_whatever_the_slots(purifier: Purifier, tiny_bundle: Path, method: Any) -> None:
    preset = {"method": method, "mask": {"threshold": 0.5}, **tiles()}
    found = purifier.purify_frame(frame(), preset, noise=4)
    assert found.image.shape == SHAPE and found.tiles == (4, 6)
    assert found.unet_calls == 24 * purifier.plan(preset).unet_calls
    with edgepure.load(tiny_bundle, threads=1, slots=3) as other:
        np.testing.assert_allclose(other.purify_frame(frame(), preset, noise=4).image, found.image, atol=2e-6)


def test_noise_is_the_keys_and_secret_noise_is_fresh(purifier: Purifier) -> None:
    one, same, other = (purifier.purify_frame(frame(), noise=n).image for n in (1, 1, 2))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert not np.array_equal(purifier.purify_frame(frame(), noise=1, number=1).image, one)
    assert not np.array_equal(purifier.purify_frame(frame()).image, purifier.purify_frame(frame()).image)


def test_the_mask_of_tiles_is_what_any_of_them_attends_to(purifier: Purifier) -> None:
    found = purifier.purify_frame(frame(), {**HETEROGENEOUS, **tiles()}, noise=4)
    tiling, wanted = Tiling(SHAPE[1:], (16, 16), 0.5), np.zeros(SHAPE[1:], bool)
    for i in range(len(tiling)):
        under = tiling.cut(frame(), i)[0]
        scaled = (under - under.min()) / (under.max() - under.min() + 1e-6)
        tiling.cut(wanted, i)[...] |= scaled >= 0.5  # type: ignore[arg-type]
    assert found.mask is not None and found.mask_area is not None
    assert np.mean(found.mask != wanted) < 0.01 and 0.3 < found.mask_area < 1.0


def test_the_mask_of_the_frame_is_seen_small(purifier: Purifier) -> None:
    """The bright half of the whole frame, not the bright half of every tile."""
    found = purifier.purify_frame(frame(), {**HETEROGENEOUS, **tiles(mask="frame")}, noise=4).mask
    assert found is not None and found.shape == SHAPE[1:]
    assert found[:, 40:].mean() > 0.9 and found[:, :15].mean() < 0.1


def test_the_callers_mask_is_taken_as_it_is(purifier: Purifier) -> None:
    mask = np.zeros(SHAPE[1:], bool)
    mask[10:20, 5:50] = True
    found = purifier.purify_frame(frame(), {**HETEROGENEOUS, **tiles()}, mask=mask, noise=4)
    assert found.mask is not None and np.array_equal(found.mask, mask)
    as_numbers = purifier.purify_frame(frame(), {**HETEROGENEOUS, **tiles()}, mask=mask.astype(np.uint8), noise=4)
    assert np.array_equal(as_numbers.image, found.image)
    bad: list[Any] = [mask[:-1], [[0, 1], [1]], mask.astype(np.float32) * 0.5]
    for given, code in zip(bad, ("E-mask-shape", "E-mask-shape", "E-mask-values"), strict=True):
        with raises_code(code):
            purifier.purify_frame(frame(), HETEROGENEOUS, mask=given)
    with raises_code("E-mask-unused"):
        purifier.purify_frame(frame(), "uniform", mask=mask)
    asks = {**HETEROGENEOUS, "mask": {"source": "caller"}}
    with raises_code("E-mask-missing"):
        purifier.purify_frame(frame(), asks)
    assert np.array_equal(purifier.purify_frame(frame(), {**asks, **tiles()}, mask=mask, noise=4).image, found.image)


def test_every_tile_has_the_noise_level_of_its_score_norm(purifier: Purifier) -> None:
    found = purifier.purify_frame(frame(), {**SSNI, **tiles()}, noise=4)
    norms = found.score_norms
    assert norms is not None and len(norms) == 24
    calls = [purifier.plan(SSNI, norm).unet_calls for norm in norms]
    assert len(set(calls)) > 1, "the tiles should differ"
    assert found.unet_calls == 24 * 2 + sum(calls)
    strongest = max(purifier.plan(SSNI, norm).levels.get("t_star", 0.0) for norm in norms)
    assert dict(found.levels) == {"t_star": strongest}
    assert found.image.shape == SHAPE and np.isfinite(found.image).all()


def test_a_tile_without_noise_passes_as_it_is(purifier: Purifier) -> None:
    spec = {**SSNI, "ssni": {**SSNI["ssni"], "xi_min": 1e3, "xi_max": 2e3}}
    found = purifier.purify_frame(frame(), {**spec, **tiles()}, noise=4)
    np.testing.assert_allclose(found.image, frame(), atol=1e-6)
    assert found.unet_calls == 48


def test_the_score_norm_of_the_frame_is_that_of_a_pixel_times_a_tiles(purifier: Purifier) -> None:
    """So that it compares with what was calibrated on images of the network's size."""
    by_tiles = purifier.purify_frame(frame(), {**SSNI, **tiles()}, noise=4).score_norms
    found = purifier.purify_frame(frame(), {**SSNI, **tiles(score_norm="frame")}, noise=4)
    assert by_tiles is not None and found.score_norms is not None and len(found.score_norms) == 1
    assert min(by_tiles) < found.score_norms[0] < max(by_tiles)
    plan = purifier.plan(SSNI, found.score_norms[0])
    assert found.unet_calls == 24 * (2 + plan.unet_calls)


def test_small_frames_are_padded_and_cut_again(purifier: Purifier) -> None:
    small = frame((1, 10, 30))
    with raises_code("E-frame-size"):
        purifier.purify_frame(small)
    assert purifier.purify_frame(small, pad="reflect", noise=1).image.shape == (1, 10, 30)
    mask = np.ones((10, 30), bool)
    found = purifier.purify_frame(small, HETEROGENEOUS, pad="black", mask=mask, noise=1)
    assert found.mask is not None and found.mask.all() and found.mask.shape == (10, 30)


def test_the_frame_may_be_resized_on_purpose(purifier: Purifier) -> None:
    assert purifier.purify_frame(frame(), size=20, noise=1).image.shape == (1, 20, 26)
    assert purifier.purify_frame(frame(), size=(30, 20), noise=1).image.shape == (1, 30, 20)


def test_progress_ends_at_the_end(purifier: Purifier) -> None:
    shares: list[float] = []
    purifier.purify_frame(frame(), {**SSNI, **tiles()}, noise=1, on_progress=lambda share, words: shares.append(share))
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_what_is_said_of_a_frame(purifier: Purifier) -> None:
    found = purifier.purify_frame(frame(), "heterogeneous", noise=1).to_dict()
    assert (found["height"], found["width"], found["tiles"]) == (40, 53, [3, 5])
    assert found["score_norms"] is None and 0.0 < found["mask_area"] <= 1.0


def seams(overlap: float) -> float:
    """How much larger steps are at the borders of tiles, or in the middle of their overlaps, than at other places like
    them, on frames of digits that lie anywhere."""
    digits = edgepure.demo_images().clean
    rng, size, steps = np.random.default_rng(1), (64, 64), np.zeros(63)
    with edgepure.load(edgepure.demo_bundle(), threads=1) as purifier:
        preset = purifier.preset("uniform").model_copy(update={"tiles": edgepure.TileSpec(overlap=overlap)})
        starts = Tiling(size, (16, 16), overlap).starts[0]
        for number in range(30):
            canvas = np.zeros((1, *size), np.float32)
            for digit in digits[12 * (number % 20) :][:12]:
                top, left = rng.integers(0, 49, 2)
                under = canvas[:, top : top + 16, left : left + 16]
                np.maximum(under, digit, out=under)
            canvas = np.roll(canvas, tuple(rng.integers(0, 64, 2)), (1, 2))
            added = purifier.purify_frame(canvas, preset, noise=number).image[0] - canvas[0]
            for axis in (0, 1):
                steps += np.abs(np.diff(added, axis=axis)).mean(axis=1 - axis)
    alike = set(range(7, 57, 4))  # the network itself has larger steps every four pixels, where it has shrunk the image
    borders = {s - 1 for s in starts[1:]} | {s + 15 for s in starts[:-1]}  # from there to the next pixel
    middles = {(before + 16 + after) // 2 - 1 for before, after in itertools.pairwise(starts)}
    found = []
    for places in (borders & alike, middles & alike):
        if places:
            found.append(steps[sorted(places)].mean() / steps[sorted(alike - places)].mean())
    return float(max(found))


def test_no_seam_is_seen_on_the_digits() -> None:
    """Blended tiles have steps at their borders as everywhere; tiles side by side have seams."""
    assert max(seams(0.5), seams(0.25)) < 1.12 < 1.15 < seams(0.0)

"""Masks of the source ``residual``: what does not come back of a restoration is the patch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import epsilon, images

import edgepure
from edgepure import MaskSpec, Preset, Purifier, Track
from edgepure.methods.restore import MASK_VOTE, RestoreSpec, residual_map, residual_mask
from edgepure.purify.residual import residual_masks
from edgepure.rows.noise import SeededNoise
from edgepure.types import Float32

RESIDUAL: dict[str, Any] = {
    "method": {"method": "heterogeneous", "t_l": 60, "t_s": 30, "stage1_steps": 2, "stage2_steps": 2},
    "mask": {"source": "residual", "area": 0.2, "residual": {"levels": [50, 120], "window": 3}},
}
SPEC = MaskSpec.model_validate(RESIDUAL["mask"])


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=8) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits() -> Iterator[Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1) as opened:
        yield opened


def by_hand(purifier: Purifier, image: Float32, number: int, seed: int) -> Float32:
    """The module's formulas in float64 loops, around the tiny bundle's network."""
    schedule, ref = purifier.schedule, 2.0 * image.astype(np.float64) - 1.0
    plan = SPEC.residual.compile(schedule, image.size)
    noise = SeededNoise(seed).for_image(plan, number, MASK_VOTE, None, image.shape, probe=True)
    restored = np.zeros_like(ref)
    for row, t in enumerate(SPEC.residual.levels):
        a, s = schedule.sqrt_alpha_bar(t), schedule.sigma(t)
        z = a * ref + s * noise.row(row)
        eps = epsilon(z[None].astype(np.float32), np.array([t], np.float32))[0]
        restored += np.clip((z - s * eps) / a, -1.0, 1.0) / 2
    r = np.abs(restored - ref).mean(axis=0) / 2
    height, width = r.shape
    means = np.zeros_like(r)
    for y in range(height):
        for x in range(width):
            means[y, x] = r[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean()
    return means


def test_the_mask_is_what_the_formulas_say(purifier: Purifier) -> None:
    data = images(3)
    found = purifier.run(data, RESIDUAL, noise=7)
    apart = residual_masks(purifier, data, SPEC, 7)
    for i, result in enumerate(found):
        means = by_hand(purifier, data[i], i, 7)
        wanted = means >= np.sort(means.ravel())[-math.floor(256 * 0.2)]
        assert result.mask is not None
        assert np.mean(result.mask != wanted) <= 2 / 256, "rounding may turn a pixel at the cut"
        assert np.array_equal(apart[i, 0] > 0.5, result.mask)
        rows = purifier.plan(RESIDUAL).unet_calls
        assert result.unet_calls == rows + 2 == purifier.planner.unet_calls(Preset.parse(RESIDUAL))


def test_images_do_not_depend_on_each_other(purifier: Purifier, tiny_bundle: Path) -> None:
    data = images(5)
    together = purifier.run(data, RESIDUAL, noise=7)
    with edgepure.load(tiny_bundle, threads=1, slots=2) as other:
        alone = other.run(data[3:4], RESIDUAL, noise=7, ids=[3])[0]
    assert np.array_equal(alone.mask, together[3].mask)  # type: ignore[arg-type]
    np.testing.assert_allclose(alone.image, together[3].image, atol=2e-6)


def test_votes_and_ssni_share_one_mask(purifier: Purifier) -> None:
    ssni = {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "probe": {"probes": 3}}
    preset = {**RESIDUAL, "ssni": ssni, "votes": {"count": 3}}
    found = purifier.run(images(2), preset, noise=7)
    plain = purifier.run(images(2), RESIDUAL, noise=7)
    for result, other in zip(found, plain, strict=True):
        assert result.score_norm is not None and np.array_equal(result.mask, other.mask)  # type: ignore[arg-type]
        rows = purifier.plan(preset, result.score_norm).unet_calls
        assert result.unet_calls == 2 + 3 + 3 * rows


def test_a_service_and_a_track_know_it(purifier: Purifier) -> None:
    data = images(1)
    wanted = purifier.run(data, RESIDUAL, noise=7)[0]
    with edgepure.Service(purifier, RESIDUAL) as service:
        served = service.submit(data[0], noise=7).result(timeout=60)
    assert np.array_equal(served.image, wanted.image)
    held = list(purifier.stream([data[0]] * 2, RESIDUAL, noise=7, track=Track()))[1]
    assert isinstance(held, edgepure.Result) and held.held
    assert held.unet_calls == wanted.unet_calls - 2 and np.array_equal(held.mask, wanted.mask)  # type: ignore[arg-type]


def patched(kind: str) -> tuple[Float32, np.ndarray]:
    """Sixty clean digits with a square of 4 x 4 pixels pasted, and where it is."""
    digits = edgepure.demo_images().clean[:60].copy()
    rng, truth = np.random.default_rng(5), np.zeros((60, 16, 16), bool)
    for image, place in zip(digits, truth, strict=True):
        top, left = rng.integers(0, 13, 2)
        square = rng.random((4, 4)) if kind == "random" else np.indices((4, 4)).sum(axis=0) % 2
        image[0, top : top + 4, left : left + 4] = square
        place[top : top + 4, left : left + 4] = True
    return digits, truth


@pytest.mark.parametrize("kind", ["random", "chequered"])
def test_a_pasted_patch_is_found_on_digits(digits: Purifier, kind: str) -> None:
    """A tenth of the pixels are inside the mask; most of the patch is, and far more of it than of the rest."""
    data, truth = patched(kind)
    masks = residual_masks(digits, data, MaskSpec(source="residual", area=0.1), 3)[:, 0] > 0.5
    found = np.array([mask[place].mean() for mask, place in zip(masks, truth, strict=True)])
    elsewhere = np.array([mask[~place].mean() for mask, place in zip(masks, truth, strict=True)])
    assert found.mean() > 0.6
    assert found.mean() > 8 * elsewhere.mean()
    assert np.mean(found >= 0.5) > 0.7


def test_a_threshold_leaves_clean_digits_alone(digits: Purifier) -> None:
    spec = MaskSpec(source="residual", threshold=0.25)
    clean = residual_masks(digits, edgepure.demo_images().clean[:60], spec, 3)
    attacked, truth = patched("chequered")
    found = residual_masks(digits, attacked, spec, 3)[:, 0] > 0.5
    assert clean.mean() < 0.02 < 0.3 < np.mean([m[t].mean() for m, t in zip(found, truth, strict=True)])


def test_a_patch_on_a_frame_is_found_by_tiles(digits: Purifier) -> None:
    canvas, truth = np.zeros((1, 48, 64), np.float32), np.zeros((48, 64), bool)
    for i, (top, left) in enumerate([(2, 3), (20, 30), (30, 5)]):
        canvas[:, top : top + 16, left : left + 16] = edgepure.demo_images().clean[i]
    canvas[0, 24:29, 50:55] = np.indices((5, 5)).sum(axis=0) % 2
    truth[24:29, 50:55] = True
    preset = {"method": {"method": "heterogeneous", "t_l": 60, "t_s": 30}, "mask": {"source": "residual", "area": 0.02}}
    found = digits.purify_frame(canvas, preset, noise=2)
    assert found.mask is not None and found.mask[truth].mean() > 0.6
    tiles = found.tiles[0] * found.tiles[1]
    assert found.unet_calls == tiles * (2 + digits.plan(preset).unet_calls)


def test_the_window_is_cut_at_the_border_and_ties_are_inside() -> None:
    ref, restored = np.zeros((2, 4, 5), np.float32), np.zeros((2, 4, 5), np.float32)
    restored[:, 0, 0] = 1.0
    found = residual_map(restored, ref, 3)
    assert found.shape == (1, 4, 5)
    assert found[0, 0, 0] == pytest.approx(0.5 / 4) and found[0, 1, 1] == pytest.approx(0.5 / 9)
    assert residual_map(restored, ref, 1)[0, 0, 0] == 0.5
    assert residual_mask(found, None, 0.1).sum() == 3  # the second largest value stands twice
    assert residual_mask(found, 0.1, None).sum() == 1
    assert residual_mask(found, None, 0.001).sum() == 0


def test_what_cannot_be_is_refused(purifier: Purifier) -> None:
    for wrong in ({"levels": []}, {"window": 4}, {"levels": [-1]}):
        with raises_code("E-preset"):
            Preset.parse({**RESIDUAL, "mask": {"source": "residual", "area": 0.2, "residual": wrong}})
    with raises_code("E-timestep"):
        purifier.plan(RESIDUAL)
        residual_masks(purifier, images(1), MaskSpec(source="residual", area=0.1, residual=RestoreSpec(levels=(5000,))))
    with raises_code("E-mask-source"):
        residual_masks(purifier, images(1), MaskSpec(area=0.1))
    with raises_code("E-mask-source"):
        purifier.attention(images(1), SPEC)

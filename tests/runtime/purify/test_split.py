"""The mask of a noised copy on an engine: every vote has its own, and nothing sees the image itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure import Purifier
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan

SPLIT: dict[str, Any] = {"method": {"method": "split", "sigma": 0.4, "weak_steps": 2}, "mask": {"threshold": 0.5}}


@pytest.fixture(scope="module")
def purifier(tiny_bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(tiny_bundle, threads=1, slots=4) as opened:
        yield opened


class Shifted:
    """Noise that hides a change of the image: in each view of the input it is shifted by what the change adds there."""

    seed = None

    def __init__(self, seed: int, change: np.ndarray, mask: np.ndarray) -> None:
        self._inner, self._change, self._mask = SeededNoise(seed), change, mask.astype(np.float32)

    def for_image(self, plan: Plan, image: int, vote: int, mask: Any, shape: Any, *, probe: bool = False) -> Any:
        inner, change, own = (
            self._inner.for_image(plan, image, vote, mask, shape, probe=probe),
            self._change,
            self._mask,
        )

        class Rows:
            def row(self, index: int) -> np.ndarray:
                row = plan.rows[index]
                noise = inner.row(index).astype(np.float64)
                for inside, where in ((row.w_in, own), (row.w_out, 1.0 - own)):
                    if inside:
                        noise -= where * 2.0 * change * row.jump_a * row.known_a / row.std(0.0)
                return noise.astype(np.float32)

            def closing(self) -> np.ndarray:
                return inner.closing()

        return Rows()


def test_the_answer_depends_on_the_image_through_the_noised_copies_alone(purifier: Purifier) -> None:
    """60 random images, changes and noises: with the change taken out of the noise nothing is left of it, the mask
    included. Were the image itself used anywhere, the result would be another one."""
    rng, told_apart = np.random.default_rng(1), 0
    for seed in range(60):
        image = (0.3 + 0.4 * rng.random((1, 1, 16, 16))).astype(np.float32)
        change = (0.1 * rng.standard_normal(image.shape[1:])).astype(np.float32)
        (before,) = purifier.run(image, SPLIT, noise=seed)
        (plain,) = purifier.run(image + change, SPLIT, noise=seed)
        (after,) = purifier.run(image + change, SPLIT, noise=Shifted(seed, change, before.mask[None]))
        np.testing.assert_array_equal(after.mask, before.mask)
        np.testing.assert_allclose(after.image, before.image, atol=2e-5)
        assert after.unet_calls == before.unet_calls == 3
        told_apart += bool((plain.mask != before.mask).any())
    assert told_apart > 30  # the change does move the mask when it is not hidden


def test_every_vote_has_its_own_mask_and_certify_counts_what_classify_votes(purifier: Purifier) -> None:
    data = images(3, seed=4) * np.float32(0.3) + np.float32(0.3)
    votes = purifier.run(data, {**SPLIT, "votes": {"count": 30, "rule": "majority"}}, noise=5)
    masks = [purifier.run(data[:1], SPLIT, noise=seed)[0].mask for seed in (5, 6)]
    np.testing.assert_array_equal(votes[0].mask, masks[0])
    assert (masks[0] != masks[1]).any()
    assert votes[0].unet_calls == 90
    found = purifier.certify(data, SPLIT, n=20, n0=10, alpha=0.01, noise=5)
    for certificate, result in zip(found, votes, strict=True):
        label = int(np.bincount(result.vote_labels[:10]).argmax())
        assert (certificate.count, certificate.samples) == (result.vote_labels[10:].count(label), 20)
        assert not certificate.exact and certificate.sigma == pytest.approx(0.4, rel=1e-6)


def test_a_mask_of_the_caller_takes_its_place_and_frames_have_none(purifier: Purifier) -> None:
    mask = np.zeros((16, 16), bool)
    mask[4:9, 2:7] = True
    (given,) = purifier.classify(images(1), SPLIT, noise=1, mask=mask)
    np.testing.assert_array_equal(given.mask, mask)
    with raises_code("E-frame-mask"):
        purifier.purify_frame(np.zeros((1, 40, 40), np.float32), SPLIT, noise=1)
    with edgepure.Service(purifier, SPLIT) as service:
        alone = service.submit(images(1)[0], noise=3).result()
    np.testing.assert_array_equal(alone.image, purifier.run(images(1), SPLIT, noise=3)[0].image)

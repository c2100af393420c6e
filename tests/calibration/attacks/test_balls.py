"""Every attack stays in its ball and in [0, 1], and beats a classifier that is known to be weak."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from edgepure_calibration.attacks import APGD, PGD, Ball, LowFrequency, Patch, Square
from edgepure_calibration.attacks.low_frequency import apply_field

EPS = 0.1


class Weak(torch.nn.Module):
    """Three classes by the brightness of the left, the middle and the right third: a small change decides."""

    def forward(self, image: Tensor) -> Tensor:
        thirds = image.mean((1, 2)).split(4, dim=1)
        return 40.0 * torch.stack([third.mean(1) for third in thirds], dim=1)


@pytest.fixture
def images() -> Tensor:
    """Random ones with the third of their class a little brighter; some pixels lie at 0 and at 1."""
    rng = np.random.RandomState(0)
    made = rng.uniform(0.0, 1.0, (9, 1, 12, 12)).round(1).astype(np.float32)
    for i in range(9):
        third = slice(4 * (i % 3), 4 * (i % 3) + 4)
        made[i, :, :, third] = np.clip(made[i, :, :, third] + 0.15, 0.0, 1.0)
    return torch.from_numpy(made)


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2] * 3)


def accuracy(images: Tensor, labels: Tensor) -> float:
    return float((Weak()(images).argmax(1) == labels).float().mean())


def test_the_weak_classifier_reads_the_clean_images(images: Tensor, labels: Tensor) -> None:
    assert accuracy(images, labels) > 0.8


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("make", [PGD, APGD, lambda **k: APGD(loss="dlr", **k)], ids=["pgd", "apgd-ce", "apgd-dlr"])
def test_gradient_attacks(make: Callable[..., Any], norm: Any, images: Tensor, labels: Tensor) -> None:
    eps = EPS if norm == "linf" else 1.5
    adversarial = make(eps=eps, steps=12, norm=norm, eot=2)(Weak(), images, labels)
    change = (adversarial - images).flatten(1)
    assert float(change.abs().max() if norm == "linf" else change.norm(dim=1).max()) <= eps + 1e-5
    assert float(adversarial.min()) >= 0.0
    assert float(adversarial.max()) <= 1.0
    assert accuracy(adversarial, labels) == 0.0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_projection_and_start(norm: Any, images: Tensor) -> None:
    ball = Ball(norm, 0.7)
    far = images + 3.0 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for point in (ball.project(far, images), ball.start(images, 4)):
        change = (point - images).flatten(1)
        assert float(change.abs().max() if norm == "linf" else change.norm(dim=1).max()) <= 0.7 + 1e-5
        assert 0.0 <= float(point.min()) <= float(point.max()) <= 1.0
    torch.testing.assert_close(ball.start(images, 4), ball.start(images, 4), rtol=0, atol=0)
    assert not torch.equal(ball.start(images, 4), ball.start(images, 5))
    inside = (images + 0.001).clamp(0.0, 1.0)
    torch.testing.assert_close(ball.project(inside, images), inside)


def test_low_frequency_changes_no_pixel_by_more_than_its_field(images: Tensor, labels: Tensor) -> None:
    adversarial = LowFrequency(eps=0.25, steps=12, grid=4)(Weak(), images, labels)
    change = adversarial - images
    assert float(change.abs().max()) <= 0.25 + 1e-6
    assert 0.0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1.0
    assert accuracy(adversarial, labels) == 0.0
    inner = torch.full((1, 1, 12, 12), 0.5)
    ramp = torch.linspace(-0.2, 0.2, 4).expand(1, 1, 4, 4)
    smooth = apply_field(inner, ramp) - inner
    assert float((smooth[..., 1:] - smooth[..., :-1]).abs().max()) < 0.4 / 11 + 1e-5  # linear between the values


def test_a_patch_changes_its_square_and_nothing_else(images: Tensor, labels: Tensor) -> None:
    patch = Patch(share=0.12, steps=12, seed=3)
    adversarial = patch(Weak(), images, labels)
    inside = patch.places(images).bool()
    assert patch.side(12, 12) == 4
    assert inside.shape == (9, 1, 12, 12) and inside.flatten(1).sum(1).tolist() == [16] * 9
    assert len({tuple(place.nonzero()[0].tolist()) for place in inside}) > 3, "places differ from image to image"
    assert torch.equal(adversarial[~inside], images[~inside])
    assert 0.0 <= float(adversarial.min()) <= float(adversarial.max()) <= 1.0
    assert float((adversarial - images).abs().max()) > 0.5
    assert accuracy(adversarial, labels) < 0.4 < accuracy(images, labels)
    assert torch.equal(patch(Weak(), images, labels), adversarial)
    assert not torch.equal(Patch(share=0.12, steps=12, seed=4).places(images), patch.places(images))


def test_a_patch_fits_any_image() -> None:
    narrow = torch.zeros(50, 3, 5, 30)
    inside = Patch(share=0.9, steps=1).places(narrow).bool()
    assert inside.flatten(1).sum(1).tolist() == [25] * 50
    columns = inside[:, 0, 0].float().argmax(1)
    assert int(columns.min()) == 0 and int(columns.max()) == 25, "every place is possible"


def test_square_stays_in_the_ball_counts_its_queries_and_wins(images: Tensor, labels: Tensor) -> None:
    asked: list[int] = []
    reported: list[int] = []

    def answers(batch: Any) -> Any:
        asked.append(len(batch))
        return Weak()(torch.from_numpy(batch)).numpy()

    found = Square(EPS, queries=300, seed=3)(answers, images.numpy(), labels.numpy(), reported.append)
    assert found.queries == 300
    assert asked == [9] * 300
    assert reported == list(range(2, 301))
    change = found.images - images.numpy()
    assert np.abs(change).max() <= EPS + 1e-6
    assert found.images.min() >= 0.0 and found.images.max() <= 1.0
    assert accuracy(torch.from_numpy(found.images), labels) <= 0.2
    right = Weak()(torch.from_numpy(found.images)).argmax(1).numpy() == labels.numpy()
    np.testing.assert_array_equal(found.margins > 0, right)
    again = Square(EPS, queries=300, seed=3)(answers, images.numpy(), labels.numpy())
    np.testing.assert_array_equal(again.images, found.images)


def test_square_wastes_no_query_on_a_square_that_changes_nothing() -> None:
    """With one channel every second square has the sign that is there already; each query has to try something."""
    last: dict[str, Any] = {}

    def answers(batch: Any) -> Any:
        last["same"] = last.get("same", 0) + int((batch == last.get("best", batch + 1.0)).all())
        last.setdefault("best", batch.copy())  # nothing is ever better than the start
        return np.stack([np.ones(len(batch)), np.zeros(len(batch))], axis=1)

    images, labels = np.full((1, 1, 8, 8), 0.5, np.float32), np.zeros(1, np.int64)
    Square(EPS, queries=200, recheck=0)(answers, images, labels)
    assert last["same"] == 0
    # Where nothing can be changed the attack ends all the same.
    found = Square(1e-9, queries=20)(answers, np.ones((1, 1, 8, 8), np.float32), labels)
    assert found.queries == 20


def test_square_asks_again_where_an_answer_was_lucky() -> None:
    """Answers are random: without a second look the first lucky one would be believed for ever."""
    rng = np.random.default_rng(0)

    def answers(batch: Any) -> Any:
        return np.stack([rng.normal(0.0, 1.0, len(batch)), np.zeros(len(batch))], axis=1)

    images, labels = np.full((40, 1, 6, 6), 0.5, np.float32), np.zeros(40, np.int64)
    believed = Square(EPS, queries=100, recheck=0)(answers, images, labels).margins.mean()
    checked = Square(EPS, queries=100, recheck=1)(answers, images, labels).margins.mean()
    assert believed < -2.0  # the smallest of a hundred
    assert checked > believed + 0.7


def test_square_shrinks_with_the_queries() -> None:
    attack = Square(EPS, queries=1000)
    sides = [attack.side(used, 32, 32) for used in (1, 2, 6, 21, 101, 500, 999)]
    assert sides[0] == round(np.sqrt(0.8 * 32 * 32))
    assert sides == sorted(sides, reverse=True)
    assert sides[-1] >= 1

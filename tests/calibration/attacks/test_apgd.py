"""Auto-PGD's step-size rule (Croce & Hein 2020, section 3.1), its losses, and the choice among candidates."""

from __future__ import annotations

import pytest
import torch
from codes import raises_code
from torch import Tensor

from edgepure_calibration.attacks import APGD, PGD, Ball, select_worst
from edgepure_calibration.attacks.apgd import StepRule, checkpoints
from edgepure_calibration.attacks.expectation import expected
from edgepure_calibration.attacks.losses import cross_entropy, dlr, margin


def test_checkpoints_are_those_of_the_paper() -> None:
    # p: 0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 (the last ones 0.06 apart)
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000)[:4] == [220, 410, 570, 700]
    assert checkpoints(1) == [1]


def test_the_step_is_halved_where_too_few_steps_helped() -> None:
    rule = StepRule(0.1, 100, torch.zeros(2))
    assert rule.size.tolist() == pytest.approx([0.2, 0.2])
    best = torch.zeros(2)
    for step in range(1, 23):
        helped = torch.tensor([True, step % 2 == 0])  # 22 of 22, and 11 of 22: fewer than 75 %
        best = best + torch.tensor([1.0, 1.0])
        halved = rule.after(step, helped, best)
        assert (halved is None) == (step != 22)
    assert halved is not None and halved.tolist() == [False, True]
    assert rule.size.tolist() == pytest.approx([0.2, 0.1])


def test_the_step_is_halved_where_the_best_loss_stands_still_but_not_twice_in_a_row() -> None:
    rule = StepRule(0.1, 100, torch.zeros(1))
    sizes = []
    for step in range(1, 100):
        # every step increases the loss over the one before, yet none beats the best
        if rule.after(step, torch.tensor([True]), torch.zeros(1)) is not None:
            sizes.append(float(rule.size))
    assert sizes[:4] == pytest.approx([0.1, 0.1, 0.05, 0.05])  # halved, kept because it has just been halved, halved


def test_it_finds_more_loss_than_pgd_where_the_step_matters() -> None:
    """A narrow peak away from the corners: PGD's constant step jumps over it."""
    peak = torch.tensor([0.513, 0.487]).reshape(1, 1, 1, 2)

    def logits(images: Tensor) -> Tensor:
        away = (images - peak).abs().sum((1, 2, 3))
        return torch.stack([50.0 * away, torch.zeros_like(away), torch.zeros_like(away)], dim=1)

    images, labels = torch.full((1, 1, 1, 2), 0.5), torch.tensor([0])
    losses = [
        float(cross_entropy(logits(attack(logits, images, labels)), labels))
        for attack in (PGD(eps=0.1, steps=30, step_size=0.05), APGD(eps=0.1, steps=30))
    ]
    assert losses[1] > losses[0]


def test_the_result_is_the_best_iterate_seen() -> None:
    seen: list[tuple[float, Tensor]] = []

    def logits(images: Tensor) -> Tensor:
        score = torch.sin(40.0 * images.sum((1, 2, 3)))
        answers = torch.stack([score, -score, 0 * score], dim=1)
        seen.append((float(cross_entropy(answers, torch.tensor([0])).detach()), images.detach()))
        return answers

    best = APGD(eps=0.2, steps=15, seed=2)(logits, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    assert len(seen) == 16  # the start and every step
    torch.testing.assert_close(best, max(seen, key=lambda pair: pair[0])[1])


def test_a_wrong_answer_counts_more_than_a_larger_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dark images are read wrong with 40 % for the truth, bright ones right with 30 %, which is the larger loss.
    AutoAttack keeps the first answer; whoever keeps the largest loss calls the image robust."""
    wrong, right = torch.tensor([0.4, 0.5, 0.05, 0.05]).log(), torch.tensor([0.3, 0.24, 0.23, 0.23]).log()
    seen: list[int] = []

    def logits(images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))[:, None]
        answers = torch.where(bright > 0.52, right, wrong) + bright * torch.tensor([-0.01, 0.0, 0.0, 0.0])
        seen.append(int(answers.argmax()))
        return answers

    monkeypatch.setattr(Ball, "start", lambda self, centre, seed: centre)
    found = APGD(eps=0.1, steps=4)(logits, torch.full((1, 1, 2, 2), 0.5), torch.tensor([0]))
    assert set(seen) == {0, 1}
    assert int(logits(found).argmax()) == 1


@pytest.mark.parametrize("margin_of_truth", [0.0, 5.0, 20.0, 60.0, -30.0])
def test_cross_entropy_keeps_its_gradient_where_the_classifier_is_sure(margin_of_truth: float) -> None:
    """Compared with float64. The usual way gives the true logit no gradient in float32 from a margin of 17 on."""
    logits = torch.tensor([[margin_of_truth, 0.0, -1.0]], requires_grad=True)
    (found,) = torch.autograd.grad(cross_entropy(logits, torch.tensor([0])).sum(), logits)
    exact = logits.detach().double()
    # Of the others p_j, of the truth minus their sum.
    others = exact.softmax(1)[:, 1:]
    wanted = torch.cat([-others.sum(1, keepdim=True), others], dim=1).float()
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=0.0)
    loss = torch.nn.functional.cross_entropy(exact, torch.tensor([0]), reduction="none").float()
    torch.testing.assert_close(cross_entropy(logits, torch.tensor([0])).detach(), loss, rtol=1e-4, atol=1e-12)


def test_dlr_does_not_change_with_the_scale_and_needs_three_classes() -> None:
    logits, labels = torch.tensor([[3.0, 1.0, 0.5, -1.0], [0.0, 2.0, 1.0, 0.0]]), torch.tensor([0, 2])
    assert dlr(logits, labels).tolist() == pytest.approx([-(3.0 - 1.0) / (3.0 - 0.5), -(1.0 - 2.0) / (2.0 - 0.0)])
    torch.testing.assert_close(dlr(7.0 * logits + 3.0, labels), dlr(logits, labels))
    assert margin(logits, labels).tolist() == [2.0, -1.0]
    with raises_code("E-attack-classes"):
        dlr(logits[:, :2], torch.tensor([0, 1]))


def test_copies_side_by_side_or_one_after_another_and_the_penalty() -> None:
    def logits(images: Tensor) -> Tensor:
        score = images.flatten(1).sum(1)
        return torch.stack([score, -score, 0 * score], dim=1)

    images, labels = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 2])
    together = expected(logits, images, labels, cross_entropy, eot=5, batch=2)
    apart = expected(logits, images, labels, cross_entropy, eot=5, batch=2, copies=2)
    torch.testing.assert_close(together.loss, apart.loss)
    torch.testing.assert_close(together.gradient, apart.gradient)
    less = expected(logits, images, labels, cross_entropy, eot=5, copies=2, penalty=lambda x: 3.0 * x.flatten(1).sum(1))
    torch.testing.assert_close(less.gradient, together.gradient - 3.0)


def test_the_worst_candidate_is_chosen_by_several_answers_not_by_a_lucky_one() -> None:
    """Candidate 0 is read wrong once, by luck, then right; candidate 1 is read wrong every second time."""
    calls = {0: 0, 1: 0}

    def logits(images: Tensor) -> Tensor:
        which = int(images[0, 0, 0, 0])
        calls[which] += 1
        wrong = calls[which] == 1 if which == 0 else calls[which] % 2 == 0
        return torch.tensor([[-1.0, 1.0] if wrong else [1.0, -1.0]]).repeat(len(images), 1)

    candidates = [torch.zeros(3, 1, 1, 1), torch.ones(3, 1, 1, 1)]
    chosen, which = select_worst(logits, candidates, torch.zeros(3, dtype=torch.long), evaluations=10)
    assert which.tolist() == [1, 1, 1]
    torch.testing.assert_close(chosen, candidates[1])


def test_among_equals_the_smaller_margin_decides() -> None:
    candidates = [torch.full((1, 1, 1, 1), value) for value in (3.0, 1.0, 2.0)]

    def logits(images: Tensor) -> Tensor:
        return torch.cat([images.flatten(1), torch.zeros(len(images), 1)], dim=1)

    _, which = select_worst(logits, candidates, torch.tensor([0]), evaluations=2)
    assert which.tolist() == [1]

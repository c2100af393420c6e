"""Expectation over transformation (Athalye et al. 2018): loss and gradient, averaged over a defence's randomness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .losses import Loss, margin

#: Images [B, C, H, W] in [0, 1] -> logits [B, N], differentiable. A randomised defence draws new noise for every
#: image of every call.
Logits = Callable[[Tensor], Tensor]
#: Images [B, C, H, W] -> [B], differentiable: what is subtracted from the loss.
Penalty = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Expected:
    """Of each image: the mean loss ``[B]`` over the copies, its gradient ``[B, C, H, W]``, the share ``[B]`` of the
    copies that were read wrong, and the margin ``[B]`` of their soft vote: log-probability of the truth less that of
    the best other class, of the mean softmax."""

    loss: Tensor
    gradient: Tensor
    wrong: Tensor
    margin: Tensor


def expected(
    logits: Logits,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    *,
    eot: int = 1,
    batch: int = 64,
    copies: int | None = None,
    penalty: Penalty | None = None,
) -> Expected:
    """The mean of ``loss`` over ``eot`` copies of every image, less ``penalty``, and its gradient.

    Images are not averaged with each other: an image's gradient does not depend on its batch-mates.

    Args:
        logits: the defended classifier. The backward pass has to use the noise of the forward pass.
        images: ``[B, C, H, W]`` in [0, 1].
        labels: ``[B]`` int64.
        eot: copies of each image that are averaged.
        batch: images that are differentiated at a time. It bounds the memory and changes nothing else.
        copies: copies of them that go through the defence side by side; None: all. It bounds the memory too.
    """
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    shares: list[Tensor] = []
    margins: list[Tensor] = []
    for first in range(0, len(images), batch):
        truth = labels[first : first + batch]
        point = images[first : first + batch].detach().requires_grad_(True)
        total = torch.zeros(len(point), dtype=point.dtype, device=point.device)
        gradient = torch.zeros_like(point)
        wrong = torch.zeros(len(point), device=point.device)
        votes: list[Tensor] = []
        for begun in range(0, eot, copies or eot):
            count = min(copies or eot, eot - begun)
            answers = logits(point.repeat(count, 1, 1, 1))
            mean = loss(answers, truth.repeat(count)).reshape(count, -1).sum(0) / eot
            if penalty is not None and begun == 0:
                mean = mean - penalty(point)
            gradient = gradient + torch.autograd.grad(mean.sum(), point)[0]
            total = total + mean.detach()
            votes.append(answers.detach().log_softmax(1).reshape(count, len(point), -1))
            wrong = wrong + (answers.argmax(1) != truth.repeat(count)).reshape(count, -1).sum(0)
        losses.append(total)
        gradients.append(gradient)
        shares.append(wrong / eot)
        margins.append(margin(torch.cat(votes).logsumexp(0), truth))
    return Expected(torch.cat(losses), torch.cat(gradients), torch.cat(shares), torch.cat(margins))

"""Which of several adversarial versions of an image is the worst? One answer of a randomised defence cannot say.

AutoAttack keeps a version as soon as one evaluation reads it wrong, which for a randomised defence picks lucky
misreadings. Here every candidate is evaluated several times with fresh noise (Liu et al. 2025 evaluate so).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .expectation import Logits
from .losses import margin


@torch.no_grad()
def select_worst(
    logits: Logits,
    candidates: Sequence[Tensor],
    labels: Tensor,
    evaluations: int,
    batch: int = 64,
    on_step: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """Of every image the candidate that is read right least often; among equals that with the smallest mean margin.

    Args:
        candidates: several ``[B, C, H, W]``.
        evaluations: how often each candidate goes through the defence.
        on_step: called after each evaluation of each candidate with their number, from 1.

    Returns:
        The chosen images ``[B, C, H, W]``, and the number ``[B]`` of the candidate that each is.
    """
    right = torch.zeros(len(candidates), len(labels))
    margins = torch.zeros(len(candidates), len(labels))
    done = 0
    for number, images in enumerate(candidates):
        for _ in range(evaluations):
            for first in range(0, len(labels), batch):
                part = slice(first, first + batch)
                found = margin(logits(images[part]), labels[part]).cpu()
                right[number, part] += found > 0
                margins[number, part] += found / evaluations
            done += 1
            if on_step is not None:
                on_step(done)
    # Counts are whole numbers: squeezing the margin into (-1/2, 1/2) lets it decide only among equal counts.
    order = right + torch.atan(margins) / torch.pi
    chosen = order.argmin(dim=0)
    stacked = torch.stack(list(candidates))
    return stacked[chosen.to(stacked.device), torch.arange(len(labels), device=stacked.device)], chosen

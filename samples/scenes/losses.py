"""The losses that the scenes' networks are trained with, and attacked by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def segmentation_loss(logits: Tensor, pixels: Tensor) -> Tensor:
    """Cross-entropy of every pixel: logits [B, K, H, W], classes [B, H, W]."""
    return F.cross_entropy(logits, pixels)


def detection_loss(boxes: Tensor, logits: Tensor, true: Tensor, digits: Tensor) -> Tensor:
    """Candidates whose middle lies within 4 pixels of that of a true box are to be it, and the others to be nothing.

    Args:
        boxes: ``[B, M, 4]`` of the candidates, in pixels.
        logits: ``[B, M, K]``.
        true: ``[B, T, 4]``.
        digits: ``[B, T]``, -1 where there is no box.
    """
    cells = cell_middles(boxes.shape[1], boxes.device)
    middles = 0.5 * (true[..., :2] + true[..., 2:])
    away = (cells[None, :, None] - middles[:, None]).abs().amax(-1)  # [B, M, T]
    away = torch.where(digits[:, None] >= 0, away, 1e9)
    nearest = away.argmin(-1)
    positive = away.amin(-1) <= 4.0
    target = F.one_hot(digits.gather(1, nearest).clamp_min(0), logits.shape[2]).to(logits.dtype) * positive[..., None]
    p = torch.sigmoid(logits)
    focal = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (p - target).abs() ** 2
    wanted = true.gather(1, nearest[..., None].expand(-1, -1, 4))
    distance = F.smooth_l1_loss(boxes, wanted, reduction="none").mean(-1) * positive
    count = positive.sum().clamp_min(1)
    return focal.sum() / count + 0.2 * distance.sum() / count


def detection_loss_of_outputs(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """`detection_loss` of what the exported detector gives, whose scores are probabilities: what an attack
    maximises."""
    logits = torch.logit(outputs["scores"], eps=1e-6)
    return detection_loss(outputs["boxes"], logits, truth["boxes"], truth["labels"])


def cell_middles(count: int, device: Any) -> Tensor:
    """``[M, 2]``: x and y of the middles of M cells on a square."""
    side = round(count**0.5)
    along = (torch.arange(side, device=device) + 0.5) * (48.0 / side)
    ys, xs = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([xs, ys], -1).reshape(-1, 2)

"""From an attention map to the mask: cut at a threshold or at an area, with a soft surrogate for gradients."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

#: Gradient of the mask. ``soft``: the mask itself becomes a sigmoid; ``straight_through``: hard values, that gradient.
MaskGradient = Literal["none", "soft", "straight_through"]

#: Each round of the area search divides the interval by 8; 10 rounds resolve 2^-30 of the map's range.
_SPLITS, _ROUNDS = 8, 10


def cut_map(
    attention: Tensor,
    score: Tensor,
    threshold: Tensor,
    area: Tensor,
    rule: Tensor,
    gradient: MaskGradient = "none",
    temperature: float = 0.05,
) -> Tensor:
    """The mask of an attention map.

    The surrogate is ``sigmoid(margin / temperature)``, ``margin`` being the distance of a pixel from the cut in units
    of the map's maximum (threshold) or of its range (area). The cut itself, the maximum and the range have no gradient.

    Args:
        attention: [B, 1, H, W], which thresholds refer to.
        score: [B, 1, H, W], which orders the pixels in the same way; its highest values are an area.
        threshold, area, rule: [B, 1, 1, 1], see `edgepure_export.graphs.attention.AttentionHead`.
        gradient: see `MaskGradient`.
        temperature: width of the sigmoid.

    Returns:
        [B, 1, H, W], exactly 0 or 1 unless ``gradient="soft"``.
    """
    # Cut at an area: bisection on the map scaled to [0, 1]. There is no TopK: TensorRT's stops at 3840 elements.
    low = score.amin((2, 3), keepdim=True)
    span = score.amax((2, 3), keepdim=True) - low
    level = (score - low) / torch.where(span > 0, span, 1.0)
    pixels = score.shape[2] * score.shape[3]
    # The factor keeps float32 from turning 0.53 * 100 = 53 into 52.
    count = torch.floor(area * (pixels * (1.0 + 1e-7)))
    cut = area_cut(level.detach().flatten(2), count.flatten(2)).unsqueeze(3)
    by_area = (level >= cut) & (count >= 1.0)

    # Logic instead of torch.where: ONNX Runtime has no Where for booleans.
    by_threshold = (attention > threshold) | ((attention >= threshold) & (rule <= 0.5))
    use_area = area > 0
    mask = ((by_area & use_area) | (by_threshold & ~use_area)).to(attention.dtype)
    if gradient == "none":
        return mask

    top = attention.detach().amax((2, 3), keepdim=True).clamp_min(torch.finfo(attention.dtype).tiny)
    margin = torch.where(use_area, level - cut, (attention - threshold) / top)
    soft = torch.sigmoid(margin / temperature)
    return soft if gradient == "soft" else mask + (soft - soft.detach())


def area_cut(level: Tensor, count: Tensor) -> Tensor:
    """The largest cut with at least ``count`` values at or above it: level [B, 1, N] in [0, 1], count [B, 1, 1] ->
    [B, 1, 1], by bisection.

    Every round tries seven cuts at once, so ten rounds resolve 2^-30.
    """
    steps = torch.arange(1, _SPLITS, dtype=level.dtype, device=level.device).reshape(1, -1, 1) / _SPLITS
    cut = count * 0.0  # zeros that take the dynamic batch from `count`, in one node
    for i in range(_ROUNDS):
        width = float(_SPLITS) ** -i
        reached = (level >= cut + width * steps).to(level.dtype).sum(2, keepdim=True)
        passed = (reached >= count).to(level.dtype).sum(1, keepdim=True)
        cut = cut + passed * (width / _SPLITS)
    return cut

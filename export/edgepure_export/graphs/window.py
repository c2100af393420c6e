"""What a network sees of an image: all of it, or the middle that its preprocessing cuts out.

A map of the network lies in that window and not in the whole image. Outside the network looks nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Window:
    """Edges of the window in pixels of the image, not always whole ones; it may reach beyond the image (bars).

    Attributes:
        rows: top and bottom.
        columns: left and right.
    """

    rows: tuple[float, float]
    columns: tuple[float, float]

    def place(self, found: Tensor, size: tuple[int, int]) -> Tensor:
        """A map [B, 1, h, w] of the window on an image of this size, bilinear with half-pixel centres; outside the
        least that it is inside."""
        sides = [
            _weights(n, int(m), edges)
            for n, m, edges in zip(size, found.shape[2:], (self.rows, self.columns), strict=True)
        ]
        placed = torch.matmul(torch.matmul(torch.tensor(sides[0]), found), torch.tensor(sides[1]).t())
        inside = torch.tensor([[_within(y, self.rows) and _within(x, self.columns) for x in range(size[1])]
                               for y in range(size[0])])  # fmt: skip
        least = torch.where(inside, placed, torch.finfo(placed.dtype).max).amin((2, 3), keepdim=True)
        return torch.where(inside, placed, least)


def window_of(classifier: nn.Module, size: tuple[int, int]) -> Window | None:
    """What the classifier says of its preprocessing (its ``window``); None: it sees all of the image."""
    windows = (getattr(module, "window", None) for module in classifier.modules())
    found = next((window for window in windows if isinstance(window, Window)), None)
    return None if found == Window((0.0, float(size[0])), (0.0, float(size[1]))) else found


def resized(maps: Sequence[Tensor], size: tuple[int, int], window: Window | None) -> Tensor:
    """Maps [B, 1, h, w] of any sizes on the image, [B, maps, H, W]."""
    if window is not None:
        return torch.cat([window.place(m, size) for m in maps], dim=1)
    return torch.cat(
        [
            m
            if tuple(m.shape[2:]) == size
            else F.interpolate(m, size=size, mode="bilinear", align_corners=False, antialias=False)
            for m in maps
        ],
        dim=1,
    )


def _weights(pixels: int, values: int, edges: tuple[float, float]) -> list[list[float]]:
    """``[pixels, values]``: of which values, and how much of each, a pixel is made."""
    rows = []
    for pixel in range(pixels):
        place = (pixel + 0.5 - edges[0]) / (edges[1] - edges[0]) * values - 0.5
        place = min(max(place, 0.0), values - 1.0)
        low = min(int(place), max(values - 2, 0))
        row = [0.0] * values
        row[low] += 1.0 - (place - low)
        if values > 1:
            row[low + 1] += place - low
        rows.append(row)
    return rows


def _within(pixel: int, edges: tuple[float, float]) -> bool:
    return edges[0] <= pixel + 0.5 <= edges[1]

"""What the cases share: fixed weights, images as tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

Case = Callable[[Tensor], Tensor]
CHANNELS, HEIGHT, WIDTH = 4, 9, 11


@cache
def weights(*shape: int, seed: int = 0) -> Tensor:
    """Fixed numbers, scaled as weights are; made before a network is traced, so constants of its graph."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 3.0


def layer(make: Callable[[], nn.Module]) -> Case:
    """A module with fixed weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval()


def tokens(x: Tensor) -> Tensor:
    """``[B, 9, 44]``."""
    return x.permute(0, 2, 1, 3).flatten(2)


def ints(x: Tensor) -> Tensor:
    """Whole numbers, some of them negative."""
    return (x * 5.0).to(torch.int64)

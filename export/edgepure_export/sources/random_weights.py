"""Random weights of a true architecture, to measure speed and to try a recipe without the files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

#: Spread of what replaces a weight that its library sets to one value, for example the zeros of a last convolution.
SPREAD = 0.02


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """The same random numbers every time, without touching the caller's generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def with_random_weights(build: Callable[[], Module], seed: int = 0) -> Module:
    """A network with its library's own initialisation, in which no weight is constant.

    Blocks that start as the identity (a zero convolution at their end) would otherwise compute nothing: a parity check
    on them would prove little, and a constant folder could remove them.
    """
    with seeded(seed), torch.no_grad():
        network = build()
        for parameter in network.parameters():
            if parameter.ndim > 1 and parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.normal_(0.0, SPREAD)
            elif parameter.ndim == 1 and parameter.numel() > 1 and bool((parameter == parameter[0]).all()):
                parameter.add_(torch.randn(parameter.shape) * SPREAD)
    return network.requires_grad_(False).eval()

"""Noise for a batch of purifications as PyTorch tensors: the same in the forward pass and in the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from edgepure.errors import ConfigError
from edgepure.rows.noise import NoiseSource, RowNoise
from edgepure.rows.plan import Plan


@runtime_checkable
class BatchNoise(Protocol):
    """The noises of a batch; every tensor is [B, C, H, W]. A row asked for twice gives the same tensor twice."""

    def row(self, index: int) -> Tensor:
        """Merged noise of row ``index``."""

    def out(self, index: int) -> Tensor:
        """Second noise of row ``index``, for learned-variance networks."""

    def closing(self) -> Tensor:
        """Noise owed after the last row."""


#: What the reference accepts: tensors [rows, B, C, H, W], a function of the row, or the full protocol.
Noise = BatchNoise | Tensor | Callable[[int], Tensor]


@dataclass(frozen=True)
class RecordedNoise:
    """Noise held in memory.

    Attributes:
        rows: [rows, B, C, H, W].
        outs: the same for the second noise of learned-variance networks.
        last: [B, C, H, W], the closing noise.
    """

    rows: Tensor
    outs: Tensor | None = None
    last: Tensor | None = None

    def row(self, index: int) -> Tensor:
        if index >= len(self.rows):
            raise ConfigError(
                f"the plan has a row {index}, but noise was given for {len(self.rows)} rows", code="E-twin-noise-rows"
            )
        return self.rows[index]

    def out(self, index: int) -> Tensor:
        if self.outs is None or index >= len(self.outs):
            raise ConfigError(
                f"row {index} of the plan needs a second noise (learned variance), which was not given",
                code="E-twin-noise-second",
            )
        return self.outs[index]

    def closing(self) -> Tensor:
        if self.last is None:
            raise ConfigError(
                "the plan ends with a closing noise, which was not given; give it too", code="E-twin-noise-closing"
            )
        return self.last


class SourceNoise:
    """Noise of a runtime source (`edgepure.SeededNoise` and the others), image i of the batch being image
    ``first_image + i`` of the stream. Counter-based streams give a row again whenever it is asked for."""

    def __init__(
        self,
        source: NoiseSource,
        plans: Sequence[Plan],
        like: Tensor,
        *,
        mask: Tensor | None = None,
        vote: int = 0,
        probe: bool = False,
        first_image: int = 0,
    ) -> None:
        masks = None if mask is None else mask.detach().to("cpu", torch.float32).numpy()
        shape = tuple(like.shape[1:])
        self._like = like.detach()
        self._images: list[RowNoise] = [
            source.for_image(plan, first_image + i, vote, None if masks is None else masks[i], shape, probe=probe)
            for i, plan in enumerate(plans)
        ]
        self._plans = plans

    def row(self, index: int) -> Tensor:
        return self._stack([n.row(index) if index < len(p.rows) else None for n, p in self._pairs()])

    def out(self, index: int) -> Tensor:
        return self._stack([n.out(index) if index < len(p.rows) else None for n, p in self._pairs()])

    def closing(self) -> Tensor:
        return self._stack([n.closing() if p.closing else None for n, p in self._pairs()])

    def _pairs(self) -> list[tuple[RowNoise, Plan]]:
        return list(zip(self._images, self._plans, strict=True))

    def _stack(self, parts: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None]) -> Tensor:
        shape = self._like.shape[1:]
        arrays = [np.zeros(tuple(shape), np.float32) if part is None else part for part in parts]
        return torch.from_numpy(np.stack(arrays)).to(self._like)


def draw_noise(plan: Plan, like: Tensor, generator: torch.Generator | None = None) -> RecordedNoise:
    """Fresh noise for one plan and a batch like ``like`` [B, C, H, W], for attacks that average over it (EOT)."""

    def normal(*leading: int) -> Tensor:
        shape = (*leading, *like.shape)
        return torch.randn(shape, generator=generator, device=like.device, dtype=like.dtype)

    return RecordedNoise(
        normal(len(plan.rows)),
        normal(len(plan.rows)) if plan.learned_variance else None,
        normal() if plan.closing else None,
    )


def as_batch_noise(noise: Noise) -> BatchNoise:
    """Whatever `Noise` allows, as the protocol."""
    if isinstance(noise, Tensor):
        return RecordedNoise(noise)
    return noise if isinstance(noise, BatchNoise) else _FunctionNoise(noise)


class _FunctionNoise:
    def __init__(self, function: Callable[[int], Tensor]) -> None:
        self._function = function

    def row(self, index: int) -> Tensor:
        return self._function(index)

    def out(self, index: int) -> Tensor:
        raise ConfigError(
            "a noise function gives the merged noise only; use RecordedNoise for learned variance",
            code="E-twin-noise-learned",
        )

    def closing(self) -> Tensor:
        raise ConfigError(
            "a noise function gives the merged noise only; use RecordedNoise for a plan with closing noise",
            code="E-twin-noise-closing",
        )

"""Recorded noises in place of drawn ones, for goldens and audits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..errors import ConfigError
from ..types import Float32
from .noise import RowNoise
from .plan import Draw, Plan

#: Finds the recorded array ``[C, H, W]`` of one draw of one image.
Recording = Callable[[Draw, int], Float32]


class Replay:
    """Recorded noises, for goldens and audits.

    A row merges several independent noises of the method into one tensor; replay composes the recorded ones with
    their exact weights: ``n = sum(c * recorded) / std`` inside and outside the mask.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def seed(self) -> int | None:
        return None

    def for_image(
        self, plan: Plan, image: int, vote: int, mask: Float32 | None, shape: tuple[int, ...], *, probe: bool = False
    ) -> RowNoise:
        return _ReplayNoise(self._recording, plan, image, mask, shape)


class _ReplayNoise:
    def __init__(
        self, recording: Recording, plan: Plan, image: int, mask: Float32 | None, shape: tuple[int, ...]
    ) -> None:
        self._recording, self._plan, self._image, self._shape = recording, plan, image, shape
        inside = np.ones((1, *shape[1:])) if mask is None else mask.astype(np.float64)
        if not np.all((inside == 0.0) | (inside == 1.0)):
            raise ConfigError(
                "replayed noise needs a binary mask: a merged noise has one weight inside and one outside",
                code="E-replay-mask",
            )
        self._inside = inside

    def _compose(self, draws: tuple[Draw, ...], std_in: float, std_out: float) -> Float32:
        total = np.zeros(self._shape, dtype=np.float64)
        for draw in draws:
            inside = draw.c_in / std_in if std_in > 0.0 else 0.0
            outside = draw.c_out / std_out if std_out > 0.0 else 0.0
            weight = inside * self._inside + outside * (1.0 - self._inside)
            total += weight * self._recording(draw, self._image)
        return total.astype(np.float32)

    def row(self, index: int) -> Float32:
        row = self._plan.rows[index]
        return self._compose(row.draws, row.std(1.0), row.std(0.0))

    def out(self, index: int) -> Float32:
        draw = self._plan.rows[index].out_draw
        if draw is None or self._plan.rows[index].out_noise == 0.0:
            return np.zeros(self._shape, dtype=np.float32)
        return np.asarray(self._recording(draw, self._image), dtype=np.float32)

    def closing(self) -> Float32:
        return self._compose(self._plan.closing, self._plan.closing_std, self._plan.closing_std)

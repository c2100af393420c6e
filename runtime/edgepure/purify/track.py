"""Frames of a video that show the same: what was measured of one holds for those that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..types import Float32

#: Two frames are compared by the means of so many cells below and beside each other.
CELLS = 8


@dataclass(frozen=True, eq=False)
class Measured:
    """What SSNI and the classifier said of a frame before it was purified.

    Attributes:
        mask: ``[1, H, W]`` float32, 1 inside; None for methods without a mask, and where the caller gave his.
        score_norms: of the frame, or of each of its tiles; None without a probe.
        p_value, flagged: the monitor's, of that frame.
    """

    mask: Float32 | None = None
    score_norms: tuple[float, ...] | None = None
    p_value: float | None = None
    flagged: bool | None = None


class Track:
    """Holds the noise level and the mask over the frames of one scene or object; the noise is fresh for every frame.

    A frame whose measures are held saves the probe's UNet calls and the attention. It is measured anew after ``every``
    frames, when the picture has changed, when the preset or the size is another one, and after `reset`.

    A held level is that of an earlier frame: an attack that begins between two measures is met with the noise of the
    frame before it. ``every`` says for how long, and ``minimum`` of an SSNI preset how weak that noise may be.

    Args:
        every: measure at the latest every so many frames; 1: every frame.
        change: measure when the mean of any of 8 x 8 cells of the picture has moved by more than this since the last
            measure, in [0, 1]. It sees scenes and objects, not attacks, which are made to be small.

    Attributes:
        measured, held: frames that were measured, and that were not.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(self, every: int = 30, change: float = 0.1) -> None:
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ConfigError(f"every is {every!r:.40}, expected a number of frames from 1", code="E-track-option")
        if isinstance(change, bool) or not isinstance(change, int | float) or not 0.0 <= change <= 1.0:
            raise ConfigError(f"change is {change!r:.40}, expected a number from 0 to 1", code="E-track-option")
        self.every, self.change = every, float(change)
        self.measured = self.held = 0
        self._kept: tuple[object, tuple[int, ...], NDArray[np.float64], Measured] | None = None
        self._age = 0

    def reset(self) -> None:
        """Measure the next frame: a cut, another camera, another object."""
        self._kept = None

    def holds(self, frame: Float32, way: object, *, masked: bool = False) -> Measured | None:
        """What is held for a frame ``[C, H, W]`` in [0, 1]; None: it has to be measured.

        Args:
            way: how it is measured, the preset first of all; what was measured in another way does not hold.
            masked: a mask is asked for, which a frame that came with the caller's has not left.
        """
        if self._kept is None or self._age >= self.every:
            return None
        known, shape, cells, found = self._kept
        if masked and found.mask is None:
            return None
        if known != way or shape != frame.shape or np.abs(_cells(frame) - cells).max() > self.change:
            return None
        self._age += 1
        self.held += 1
        return found

    def keep(self, frame: Float32, way: object, found: Measured) -> None:
        """Hold what was measured of a frame."""
        self._kept, self._age = (way, frame.shape, _cells(frame), found), 1
        self.measured += 1


def _cells(frame: Float32) -> NDArray[np.float64]:
    """The mean of each cell and channel."""
    height, width = frame.shape[1:]
    down, across = (np.arange(min(CELLS, n)) * n // min(CELLS, n) for n in (height, width))
    sums = np.add.reduceat(np.add.reduceat(frame.astype(np.float64), down, axis=1), across, axis=2)
    rows, columns = np.diff([*down, height]), np.diff([*across, width])
    cells: NDArray[np.float64] = sums / (rows[:, None] * columns)
    return cells

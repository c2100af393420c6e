"""Timestep grids: which noise levels a purification visits.

Every function returns timesteps in *descending* order, the order in which they are visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..errors import ConfigError


def strided(timesteps: int, ddim_steps: int, strength: float) -> list[int]:
    """Grid of the heterogeneous method's authors: a fixed stride over all of T, truncated by strength.

    Entries 0, stride, 2*stride, ... below T-1 with ``stride = T // ddim_steps``; the first
    ``int(ddim_steps * strength) + 1`` of them are kept (the float product is truncated, as the authors do).
    ``strength`` is t_l / T in (0, 1].
    """
    if not 1 <= ddim_steps <= timesteps:
        raise ConfigError(f"ddim_steps {ddim_steps} must lie between 1 and T = {timesteps}", code="E-grid-ddim-steps")
    if not 0.0 < strength <= 1.0:
        raise ConfigError(
            f"strength {strength} must lie in (0, 1]; it is the noise level divided by T", code="E-grid-strength"
        )
    every = list(range(0, timesteps - 1, timesteps // ddim_steps))
    return every[: int(ddim_steps * strength) + 1][::-1]


def even(t_star: int, steps: int) -> list[int]:
    """``steps`` evenly spaced timesteps of [0, t_star), the highest is ``t_star - 1``.

    For a divisor of t_star this is the list of Lee & Kim 2023: (100, 10) gives 99, 89, ..., 9.
    """
    if t_star < 1:
        raise ConfigError(f"t_star {t_star} must be at least 1", code="E-grid-t-star")
    if not 1 <= steps <= t_star:
        raise ConfigError(
            f"steps {steps} must lie between 1 and t_star = {t_star}; a timestep is visited once", code="E-grid-steps"
        )
    return [round(t_star * k / steps) - 1 for k in range(steps, 0, -1)]


def between(high: int, low: int, steps: int) -> list[int]:
    """``steps`` evenly spaced timesteps from ``high`` down to just above ``low``; ``low`` itself is left out."""
    if not low < high:
        raise ConfigError(f"the upper timestep {high} must lie above the lower one {low}", code="E-grid-interval")
    if not 1 <= steps <= high - low:
        raise ConfigError(
            f"steps {steps} must lie between 1 and {high - low}, the distance from {high} to {low}",
            code="E-grid-interval-steps",
        )
    return [low + round((high - low) * k / steps) for k in range(steps, 0, -1)]


def lee_kim(t_star: int, steps: int) -> list[int]:
    """The list exactly as Lee & Kim's GNSP code makes it: if ``steps`` does not divide ``t_star`` it may have more
    entries than ``steps`` and need not start at ``t_star - 1``."""
    if not 1 <= steps <= t_star:
        raise ConfigError(f"steps {steps} must lie between 1 and the noise level {t_star}", code="E-grid-steps")
    stride = t_star // steps
    return [k - 1 for k in range(stride, t_star + 1, stride)][::-1]


def respaced(timesteps: int, respacing: str) -> list[int]:
    """Timesteps kept by a guided-diffusion respacing string, descending.

    ``"ddimN"``: 0, s, 2s, ... with the smallest stride that gives exactly N entries. ``"a,b,c"``: T split into as many
    nearly equal sections as there are numbers, each with that many entries spread evenly over it.
    """
    text = respacing.strip()
    if text.startswith("ddim"):
        count = _positive_int(text[4:], respacing)
        for stride in range(1, timesteps):
            kept = range(0, timesteps, stride)
            if len(kept) == count:
                return list(kept)[::-1]
        raise ConfigError(
            f"no integer stride gives exactly {count} of {timesteps} timesteps (respacing {respacing!r}); "
            "choose another number",
            code="E-grid-stride",
        )
    counts = [_positive_int(part, respacing) for part in text.split(",")]
    size, extra = divmod(timesteps, len(counts))
    kept_all: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        length = size + (1 if section < extra else 0)
        if count > length:
            raise ConfigError(
                f"respacing {respacing!r}: cannot keep {count} of the {length} timesteps of section {section}; "
                "keep fewer",
                code="E-grid-section",
            )
        step = 1.0 if count <= 1 else (length - 1) / (count - 1)
        position = 0.0
        for _ in range(count):  # repeated addition, not multiplication: the published lists were made so
            kept_all.append(start + round(position))
            position += step
        start += length
    return sorted(set(kept_all), reverse=True)


def explicit(values: Sequence[int], timesteps: int) -> list[int]:
    """Check a list given by hand: strictly descending timesteps in 0 .. T-1."""
    grid = [int(v) for v in values]
    if not grid:
        raise ConfigError("an explicit timestep grid is empty; give at least one timestep", code="E-grid-empty")
    if any(not 0 <= t < timesteps for t in grid):
        raise ConfigError(f"explicit timesteps must lie in 0 .. {timesteps - 1}, got {grid}", code="E-grid-range")
    if any(a <= b for a, b in pairwise(grid)):
        raise ConfigError(f"explicit timesteps must be strictly descending, got {grid}", code="E-grid-order")
    return grid


def _positive_int(text: str, whole: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(
            f"respacing {whole!r} is not understood; write 'ddimN' or numbers such as '250' or '10,10,5'",
            code="E-grid-respacing",
        )
    return value

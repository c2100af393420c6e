"""Frames of any size: read one, give it another size on purpose, pad what is smaller than the network."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np

from ..errors import ConfigError, ImageError
from ..types import Float32
from .load import Order, called, check_options, read_one, resize_to, single_items
from .spec import ImageSpec

#: What a frame may be resized to: its shorter side (the aspect stays), or height and width (it is squashed).
Size = int | tuple[int, int] | None


def load_frame(frame: Any, channels: int, *, size: Size = None, order: Order = "rgb") -> tuple[str, Float32]:
    """The name and the pixels ``[C, H, W]`` float32 in [0, 1] of one frame of any size.

    Args:
        frame: one image as `edgepure.images.load_images` takes it.
        channels: that the bundle takes.
        size: the length of its shorter side, or ``(height, width)``, to which it is resized by bilinear interpolation
            (Pillow's, which averages when it shrinks). None: it stays as it is.
        order: of the colours in arrays.

    Raises:
        ImageError: it cannot be used, or there is not exactly one.
        ConfigError: ``size`` or ``order`` is none of these.
    """
    check_options(False, order, "raise")
    found = list(single_items(frame))
    if len(found) != 1:
        raise ImageError(f"expected one frame, got {len(found)} images; give them one by one", code="E-frame-count")
    name, item = found[0]
    try:
        # the height and width of this spec are not looked at
        pixels = read_one(item, ImageSpec(channels=channels, height=1, width=1), True, order)
    except ImageError as error:
        raise ImageError(f"{called(name, item)}: {error}", code=error.code) from error.__cause__
    if size is None:
        return name, pixels
    height, width = _target(size, cast("tuple[int, int]", pixels.shape[1:]))
    return name, resized(pixels, ImageSpec(channels=channels, height=height, width=width))


def resized(frame: Float32, spec: ImageSpec) -> Float32:
    """``[C, H, W]`` with both sides stretched to those of ``spec``."""
    return resize_to(frame, spec, "squash") if frame.shape[1:] != spec.shape[1:] else frame


def fitted(
    frame: Float32, least: tuple[int, int], pad: Literal["no", "reflect", "black"]
) -> tuple[Float32, tuple[slice, slice, slice]]:
    """A frame ``[C, H, W]`` with sides of at least ``least``, as the network needs, and where the given one lies in it.

    ``pad``: ``reflect`` mirrors the frame at its borders, ``black`` puts zeros around it, half on each side; ``no``
    refuses.

    Raises:
        ImageError: a side is shorter, and ``pad`` is ``no``.
        ConfigError: ``pad`` is none of these.
    """
    if pad not in ("no", "reflect", "black"):
        raise ConfigError(f"pad is {pad!r:.80}, expected 'no', 'reflect' or 'black'", code="E-config-option")
    height, width = frame.shape[1:]
    missing = [max(side - have, 0) for side, have in zip(least, (height, width), strict=True)]
    if any(missing) and pad == "no":
        raise ImageError(
            f"the frame is {width} x {height} pixels (width x height), expected at least {least[1]} x {least[0]}, as "
            "the network needs; pad it (pad='reflect', --pad reflect), or resize it (size=..., --size)",
            code="E-frame-size",
        )
    before = [n // 2 for n in missing]
    inner = (slice(None), slice(before[0], before[0] + height), slice(before[1], before[1] + width))
    if not any(missing):
        return frame, inner
    around = ((0, 0), *((b, n - b) for b, n in zip(before, missing, strict=True)))
    return (np.pad(frame, around, mode="reflect") if pad == "reflect" else np.pad(frame, around)), inner


def _target(size: object, have: tuple[int, int]) -> tuple[int, int]:
    pair = size if isinstance(size, tuple | list) else (size,)
    good = len(pair) in (1, 2) and all(
        isinstance(n, int | np.integer) and not isinstance(n, bool) and 1 <= n <= 16384 for n in pair
    )
    if not good:
        raise ConfigError(
            f"size is {size!r:.80}, expected the length of the shorter side or (height, width), from 1 to 16384",
            code="E-config-option",
        )
    if len(pair) == 2:
        return int(pair[0]), int(pair[1])
    scale = int(pair[0]) / min(have)
    return max(1, round(have[0] * scale)), max(1, round(have[1] * scale))

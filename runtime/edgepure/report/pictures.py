"""Images inside a page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..types import Float32

#: Tint of the pixels inside a mask, RGB in 0..1.
MASK_TINT = np.array([0.93, 0.35, 0.16], dtype=np.float32)


@dataclass(frozen=True)
class Picture:
    """One image of a page.

    Attributes:
        pixels: ``[C, H, W]`` float32 in [0, 1], C = 1 or 3.
        title: what it is ("clean", "purified").
        verdict: what the classifier says of it; empty for none.
        right: whether that is the truth; None for pictures without a verdict.
        mask: ``[H, W]`` bool, drawn over the pixels.
    """

    pixels: Float32
    title: str
    verdict: str = ""
    right: bool | None = None
    mask: NDArray[np.bool_] | None = None

    @property
    def uri(self) -> str:
        """See `png_data_uri`."""
        return png_data_uri(self)

    @property
    def tone(self) -> str:
        """``good`` or ``bad``, as the verdict is right or wrong."""
        return "" if self.right is None else "good" if self.right else "bad"


def png_data_uri(picture: Picture) -> str:
    """The pixels (with the mask's tint, if there is one) as a PNG inside a data URI."""
    pixels = np.clip(picture.pixels, 0.0, 1.0).transpose(1, 2, 0)
    if picture.mask is not None:
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)
        tinted = 0.4 * pixels + 0.6 * MASK_TINT
        pixels = np.where(picture.mask[:, :, None], tinted, pixels)
    eight_bit = np.rint(255.0 * pixels).astype(np.uint8)
    image = Image.fromarray(eight_bit[:, :, 0] if eight_bit.shape[2] == 1 else eight_bit)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

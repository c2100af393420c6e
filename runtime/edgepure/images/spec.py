"""The size of the images that a bundle takes."""

from __future__ import annotations

from pydantic import Field

from ..validation import Entry


class ImageSpec(Entry):
    """Size of the images. They are [0, 1] outside the graphs and ``x = 2 * image - 1`` inside the diffusion."""

    channels: int = Field(ge=1, le=64, description="1 for gray, 3 for RGB")
    height: int = Field(ge=1, le=16384)
    width: int = Field(ge=1, le=16384)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)``."""
        return (self.channels, self.height, self.width)

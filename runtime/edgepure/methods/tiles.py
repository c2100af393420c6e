"""How a preset treats frames of another size than the network's: part of `edgepure.methods.presets.Preset`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..validation import Entry


class TileSpec(Entry):
    """A frame is purified by overlapping tiles of the network's size.

    ``mask``: ``tile``, the classifier looks at every tile, and a pixel is inside the mask if it is in any tile that
    covers it; ``frame``, it looks at the whole frame, shrunk to the network's size. ``score_norm`` (SSNI): ``tile``,
    every tile has its own noise level; ``frame``, the whole frame has one, by its mean score a pixel.
    """

    overlap: float = Field(
        0.25, ge=0.0, le=0.75, description="share of a tile's side that neighbours have in common, at least"
    )
    mask: Literal["tile", "frame"] = "tile"
    score_norm: Literal["tile", "frame"] = "tile"

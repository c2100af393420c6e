"""What a frame costs on paper: its tiles, their UNet calls, and those times the time of a call."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from ..bundle.manifest import Manifest
from ..errors import ConfigError
from ..images.tiles import Tiling
from ..methods.planner import Planner
from ..methods.presets import Preset


@dataclass(frozen=True)
class FrameCost:
    """One frame, purified once at the full noise level.

    Attributes:
        width, height: of the frame, in pixels.
        tile_width, tile_height: of the network's images.
        across, down: tiles beside and below each other.
        unet_calls: rows and probes of all tiles; tiles that share a call count one each.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    across: int
    down: int
    unet_calls: int

    def seconds(self, ms: float) -> float:
        """Seconds of one frame, if one call of one tile takes ``ms`` milliseconds."""
        return 1e-3 * ms * self.unet_calls

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def sentence(self) -> str:
        """One line for people."""
        tiles = self.across * self.down
        return (
            f"frame {self.width} x {self.height}: {self.across} x {self.down} = {tiles} tiles of {self.tile_width} x "
            f"{self.tile_height}, {tiles} x {self.unet_calls // tiles} = {self.unet_calls} UNet calls for one frame"
        )


def parse_frame(text: str, option: str) -> tuple[int, int]:
    """Height and width of ``WIDTHxHEIGHT``; ConfigError if it is none."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text.lower())
    if found is None:
        raise ConfigError(f"{option} {text!r}: expected WIDTHxHEIGHT, for example 1920x1080", code="E-frame-option")
    return int(found[2]), int(found[1])


def frame_of(manifest: Manifest) -> str | None:
    """The frames that a bundle's task takes, as ``WIDTHxHEIGHT``; None: it takes none."""
    return f"{manifest.task_image.width}x{manifest.task_image.height}" if manifest.framed else None


def frame_cost(text: str, image: tuple[int, int, int], planner: Planner, preset: Preset) -> FrameCost:
    """The cost of a frame ``WIDTHxHEIGHT`` with a preset, through a network for images ``(C, H, W)``.

    Raises:
        ConfigError: the size is none, or smaller than the network's images.
    """
    height, width = parse_frame(text, "--frame")
    if height < image[1] or width < image[2]:
        raise ConfigError(
            f"--frame {text}: it is smaller than the network's images, {image[2]} x {image[1]}; it would be padded",
            code="E-frame-option",
        )
    down, across = Tiling((height, width), image[1:], preset.tiles.overlap).grid
    calls = planner.before(preset) + planner.plan(preset).unet_calls
    return FrameCost(width, height, image[2], image[1], across, down, across * down * calls)

"""Frames purified by tiles in PyTorch, with gradients: the rows of `edgepure.purify.tiled` once more.

Masks and noise levels are discrete. They are what the deployed engine measures of the frame as it is, and have no
gradient here; everything in the rows has one, the blending of the tiles too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgepure.images.tiles import Tiling
from edgepure.methods.presets import Preset
from edgepure.purify.frames import FrameRequest, Part
from edgepure.purify.graphs import OpenGraphs
from edgepure.purify.tiled import TRACE
from edgepure.rows.noise import NoiseSource
from edgepure.types import Float32

from .noise_batches import SourceNoise
from .reference import TorchReference
from .torch_rows import coefficients

#: Tiles that share a call of PyTorch.
BATCH = 64


def purify_frames(
    twin: TorchReference, graphs: OpenGraphs, frames: Tensor, preset: Preset, noise: NoiseSource
) -> Tensor:
    """Frames [B, C, H, W] in [0, 1], purified by tiles as `Purifier.predict` purifies them; frame i is image i of the
    stream of noise.

    Args:
        twin: of the bundle.
        graphs: of the deployment, which measures masks and score norms.

    Raises:
        ImageError, ConfigError: as `FrameRequest`.
    """
    done = []
    for i, frame in enumerate(frames):
        seen = np.ascontiguousarray(frame.detach().to("cpu", torch.float32).numpy())
        request = FrameRequest(graphs, seen, preset, noise, image=i)
        found = request.measured()
        mask = None if found.mask is None else torch.from_numpy(found.mask).to(frame)[None]
        ref, parts = 2.0 * frame[None] - 1.0, request.parts(found.score_norms)
        result = torch.zeros_like(ref)
        for part in parts:
            x = _run(twin, part, ref, mask, request.tiling, noise, i)
            if len(parts) == 1:
                result = x
            else:
                tiles = part.tiles or ()
                under = torch.cat([_cut(x, request.tiling, tile) for tile in tiles])
                windows = np.stack([request.tiling.window(tile) for tile in tiles])
                result = result + _blend(under, windows, request.tiling, tiles, x)
        done.append((0.5 * result + 0.5).clamp(0.0, 1.0))
    return torch.cat(done)


def _run(
    twin: TorchReference,
    part: Part,
    ref: Tensor,
    mask: Tensor | None,
    tiling: Tiling,
    noise: NoiseSource,
    image: int,
) -> Tensor:
    """The rows of a part on a frame [1, C, H, W] in model range."""
    plan = part.plan
    tiles = tuple(range(len(tiling))) if part.tiles is None else part.tiles
    windows: Float32 = np.stack([tiling.window(tile) for tile in tiles])
    if part.tiles is not None:  # they do not add up to 1, and every pixel that a tile sees needs a state
        windows = np.maximum(windows, TRACE)
        covered = np.zeros(tiling.frame, np.float32)
        for tile, window in zip(tiles, windows, strict=True):
            tiling.cut(covered, tile)[...] += window
        shares = [tiling.cut(covered, tile) for tile in tiles]
        windows = np.asarray(windows / np.stack(shares), np.float32)
    draws = SourceNoise(noise, [plan], ref, mask=mask, first_image=image)
    inside = torch.ones_like(ref[:, :1]) if mask is None else mask
    x = ref if plan.start == "ref" else torch.zeros_like(ref)
    table = coefficients(plan, ref.dtype).to(ref.device)
    for row in range(len(plan.rows)):
        noises = [draws.row(row), *([draws.out(row)] if plan.learned_variance else [])]
        after = []
        for first in range(0, len(tiles), BATCH):
            some = tiles[first : first + BATCH]
            cut = [torch.cat([_cut(whole, tiling, tile) for tile in some]) for whole in (x, ref, inside, *noises)]
            after.append(twin.row(cut[0], cut[1], cut[2], table[row].expand(len(some), -1), cut[3:]))
        x = _blend(torch.cat(after), windows, tiling, tiles, x)
    return x + plan.closing_std * draws.closing() if plan.closing else x


def _cut(whole: Tensor, tiling: Tiling, tile: int) -> Tensor:
    (top, left), (height, width) = tiling.place(tile), tiling.tile
    return whole[..., top : top + height, left : left + width]


def _blend(after: Tensor, windows: Float32, tiling: Tiling, tiles: Sequence[int], like: Tensor) -> Tensor:
    """The sum of tiles [T, C, h, w] times their windows, in their places."""
    weighted = after * torch.from_numpy(windows).to(after)[:, None]
    places = [tiling.place(tile) for tile in tiles]
    height, width = tiling.tile
    found = torch.zeros_like(like)
    for one, (top, left) in zip(weighted, places, strict=True):
        below, right = like.shape[2] - top - height, like.shape[3] - left - width
        found = found + torch.nn.functional.pad(one, (left, right, top, below))[None]
    return found

"""Frames that are purified by tiles, and then given to a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..methods.presets import Preset
from ..rows.noise import NoiseSource
from ..types import Float32, Progress
from .frames import FrameRequest
from .graphs import OpenGraphs
from .heads import Head, P
from .inflight import Counters
from .results import Results
from .track import Track


def answer_frames(
    graphs: OpenGraphs,
    head: Head[P],
    frames: Float32,
    preset: Preset,
    noise: NoiseSource,
    names: Sequence[str] | None = None,
    ids: Sequence[int] | None = None,
    on_progress: Progress | None = None,
    on_rows: Callable[[int], None] | None = None,
    masks: Float32 | None = None,
    track: Track | None = None,
) -> tuple[Results[P], Counters]:
    """What a head makes of frames ``[B, C, H, W]``, each purified by tiles for every vote; and what was done.

    Args:
        noise: of which frame i is image ``ids[i]``.
        names, ids: None: 0, 1, 2, ...
        masks: ``[B, 1, H, W]``, the caller's in place of the preset's.
        on_progress: called with the share of the frames, and words.
        track: of one frame: holds what was measured of it for those after it.
        on_rows: called after each purification with the number of rows that it executed.
    """
    head.check(preset)
    if track is not None and len(frames) != 1:
        raise ConfigError(f"a track holds one image at a time, got {len(frames)}", code="E-track-option")
    found, counters = [], Counters()
    numbers = range(len(frames)) if ids is None else ids
    for i, frame in enumerate(frames):
        request = FrameRequest(
            graphs, frame, preset, noise, image=numbers[i], mask=None if masks is None else masks[i, 0], track=track
        )
        votes = []
        for vote in range(preset.votes.count):
            votes.append(request.result(str(numbers[i]), vote))
            if on_rows is not None:
                on_rows(votes[-1].unet_calls)
        first, norms = votes[0], votes[0].score_norms
        common: dict[str, Any] = {
            "name": names[i] if names is not None else str(numbers[i]),
            "levels": first.levels,
            "score_norm": norms[0] if norms is not None and len(norms) == 1 else None,
            "mask": first.mask,
            "unet_calls": sum(v.unet_calls for v in votes),
            "seconds": sum(v.seconds for v in votes),
            "image": first.image,
            "held": first.held,
        }
        answers = head.read(np.stack([v.image for v in votes]))
        found.append(head.settle(answers, preset.votes, common, {}))
        counters.ticks += request.counters.ticks
        counters.rows += request.counters.rows
        if on_progress is not None:
            on_progress((i + 1) / len(frames), f"{i + 1} of {len(frames)} frames")
    return Results(found), counters

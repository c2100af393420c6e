"""Frames that are purified by tiles, and then given to a task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic

import numpy as np

from ..errors import ConfigError
from ..methods.presets import Preset
from ..rows.noise import NoiseSource
from ..types import Float32, Progress
from .frames import FrameRequest
from .graphs import OpenGraphs
from .heads import Head, P
from .inflight import Counters, Job
from .request import Tag
from .results import Results
from .submissions import Status, Submission
from .tiled import Stage, Stages
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
        name = names[i] if names is not None else str(numbers[i])
        found.append(request.wait(_answer(request, head, preset, name, on_rows)))
        counters.ticks += request.counters.ticks
        counters.rows += request.counters.rows
        if on_progress is not None:
            on_progress((i + 1) / len(frames), f"{i + 1} of {len(frames)} frames")
    return Results(found), counters


def _answer(
    request: FrameRequest, head: Head[P], preset: Preset, name: str, on_rows: Callable[[int], None] | None = None
) -> Stages[P]:
    """The work on a frame: every vote, and what the head makes of them."""
    votes = []
    for vote in range(preset.votes.count):
        votes.append((yield from request.stages(name, vote)))
        if on_rows is not None:
            on_rows(votes[-1].unet_calls)
    first, norms = votes[0], votes[0].score_norms
    common: dict[str, Any] = {
        "name": name,
        "levels": first.levels,
        "score_norm": norms[0] if norms is not None and len(norms) == 1 else None,
        "mask": first.mask,
        "unet_calls": sum(v.unet_calls for v in votes),
        "seconds": sum(v.seconds for v in votes),
        "image": first.image,
        "held": first.held,
    }
    return head.settle(head.read(np.stack([v.image for v in votes])), preset.votes, common, {})


class ServedFrame(Generic[P]):
    """A frame of a `Service`, in the slots beside others: as `Request` is there for images.

    When the last tile of a row is done, those of the next row follow.
    """

    def __init__(self, graphs: OpenGraphs, preset: Preset, head: Head[P], submission: Submission) -> None:
        head.check(preset)
        self._submission = submission
        self._frame = FrameRequest(graphs, submission.image, preset, submission.source)
        self._work: Stages[P] = _answer(self._frame, head, preset, submission.name)
        self._stage: Stage | None = None
        self._left = 0

    def jobs(self) -> Iterator[Job]:
        """Those of the next stage; there are none after the last one, and then there is the result."""
        while not self._left and not self._submission.over():
            try:
                self._stage = next(self._work)
            except StopIteration as end:
                self._submission.finish(end.value)
                return
            self._left = self._stage.count
            for job in self._stage.jobs:
                if self._submission.over():
                    return
                job.tag = Tag(self, 0, job.tag)
                yield job

    def done(self, job: Job, x: Float32) -> Iterable[Job]:
        """Take the result of a job; the jobs that follow from it."""
        if self._stage is None or self._submission.over():
            return ()
        job.tag = job.tag.vote
        self._frame.counters.rows += len(job.todo)
        self._left -= 1
        self._stage.take(job, x)
        return () if self._left else self.jobs()

    @property
    def running(self) -> int:
        """1 while the frame has no result, then 0."""
        return int(self._submission.status is not Status.DONE)

    def more(self) -> Iterable[Job]:
        """There are none that follow from nothing."""
        return ()

    def dropped(self, index: int) -> bool:
        """Whether its jobs need not be finished."""
        return self._submission.over()

    def give_out(self) -> bool:
        """Whether the frame has its result."""
        return self._submission.status is Status.DONE

    def fail(self, error: BaseException, index: int | None = None) -> None:
        """End the frame with this error."""
        self._submission.finish(error)

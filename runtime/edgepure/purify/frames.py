"""Purify frames larger than the network: masks, score norms and noise levels, by tiles or for the whole frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..images.frames import fitted, resized
from ..images.spec import ImageSpec
from ..images.tiles import Tiling
from ..methods.presets import MaskSpec, Preset
from ..methods.restore import MASK_VOTE, residual_map, residual_mask
from ..rows.cut_noise import cut_noise
from ..rows.noise import NoiseSource, RowNoise
from ..rows.plan import Plan
from ..types import Float32, Progress
from ..validation import expect
from .arguments import warn_of_precision
from .graphs import OpenGraphs
from .inflight import Counters, Job
from .masks import caller_masks, check_mask_use
from .results import FrameResult
from .tiled import Stage, Stages, T, run_stages, tiled_rows
from .track import Measured, Track

#: What is done with a side that is shorter than the network's.
Pad = Literal["no", "reflect", "black"]


@dataclass(frozen=True)
class Part:
    """Tiles with one plan; None: all tiles of the frame."""

    plan: Plan
    tiles: tuple[int, ...] | None


class FrameRequest:
    """One frame that is purified.

    Args:
        graphs: what computes.
        frame: ``[C, H, W]`` float32 in [0, 1].
        preset: what is done with it; `Preset.tiles` says how it is cut, and what is decided by tiles.
        noise: of which the frame is image ``image``.
        mask: ``[H, W]``, the caller's in place of the preset's.
        pad: what is done with a side that is shorter than the network's.
        whole: do without tiles, by the graph that takes any size; masks of the classifier are those of tiles all the
            same. Sides that are no multiple of what it takes are padded, too.
        on_progress: called after each call.
        track: holds what was measured of a frame for those after it.

    Attributes:
        tiling: of the frame.
        counters: what was done so far.

    Raises:
        ImageError: the frame is smaller than the network, and is not to be padded.
        ConfigError: the mask does not fit the frame, or the bundle cannot make one.
    """

    def __init__(
        self,
        graphs: OpenGraphs,
        frame: Float32,
        preset: Preset,
        noise: NoiseSource,
        *,
        image: int = 0,
        mask: NDArray[Any] | None = None,
        pad: Pad = "no",
        whole: bool = False,
        on_progress: Progress | None = None,
        track: Track | None = None,
    ) -> None:
        expect(track=(track, Track, None))
        if preset.method.mask_of_view and mask is None:
            raise ConfigError(
                f"method {preset.method.method!r} computes its mask in the middle of the rows, which frames by tiles "
                "do not; choose another method, or give the mask (mask=, --mask)",
                code="E-frame-mask",
            )
        warn_of_precision(preset, graphs.precision)
        self._graphs, self._preset, self._noise, self._image = graphs, preset, noise, image
        self._progress, self._track, self._total = on_progress, track, 0
        tile, sides = graphs.image_shape[1:], frame.shape[1:]
        entry = graphs.bundle.manifest.any_size
        multiple = entry.multiple if whole and entry is not None else 1
        least = [max(side, -(-n // multiple) * multiple if whole else 0) for side, n in zip(tile, sides, strict=True)]
        self._least = (least[0], least[1])
        self._frame, self._inner = fitted(frame, self._least, pad)
        self._shape = (self._frame.shape[0], self._frame.shape[1], self._frame.shape[2])
        self.tiling = self._seen = Tiling(self._shape[1:], tile, preset.tiles.overlap)
        if whole:  # one tile
            self.tiling = Tiling(self._shape[1:], self._shape[1:], 0.0)
        check_mask_use(preset, mask is not None)
        given = None if mask is None else caller_masks(mask, 1, (sides[0], sides[1]))[0]
        self._given = None if given is None else fitted(given, self._least, pad)[0]
        self._stepper = graphs.whole(self._shape[1:], preset) if whole else graphs.stepper(graphs.step_graph(preset))
        self.counters = Counters()
        self._found: Measured | None = None
        self._held = False

    def measured(self) -> Measured:
        """Mask and score norms of the frame: measured once, or those of an earlier frame of the track."""
        return self.wait(self._measuring())

    def result(self, name: str) -> FrameResult:
        """Run it, and wait for it."""
        return self.wait(self.stages(name))

    def stages(self, name: str, vote: int = 0) -> Stages[FrameResult]:
        """The work with the noise of a vote. What was measured holds for all votes."""
        self._graphs.check_files()
        start, inner, before = perf_counter(), self._inner, self.counters.rows
        found = yield from self._measuring()
        mask, norms = found.mask if self._given is None else self._given, found.score_norms
        parts = self.parts(norms)
        tiles = len(self.tiling)
        self._total = self.counters.rows + sum(
            len(p.plan.rows) * (tiles if p.tiles is None else len(p.tiles)) for p in parts
        )
        purified = yield from self._blended(parts, 2.0 * self._frame - 1.0, mask, vote)
        strongest = max(parts, key=lambda part: max(part.plan.levels.values(), default=0.0))
        return FrameResult(
            name=name,
            image=np.clip(0.5 * purified + 0.5, 0.0, 1.0)[inner],
            levels=dict(strongest.plan.levels),
            tiles=self.tiling.grid,
            unet_calls=self.counters.rows - before,
            seconds=perf_counter() - start,
            mask=None if mask is None else mask[inner][0] > 0.5,
            score_norms=norms,
            held=self._held,
        )

    def wait(self, stages: Stages[T]) -> T:
        """Do work on the frame, and wait for it."""
        found, counters = run_stages(stages, self._stepper, self._follow)
        self.counters.ticks += counters.ticks
        return found

    def _follow(self, rows: int) -> None:
        self.counters.rows += rows
        if self._progress is not None and self._total:
            done = self.counters.rows
            self._progress(min(done / self._total, 1.0), f"{done} of {self._total} rows of {len(self.tiling)} tiles")

    def _measuring(self) -> Stages[Measured]:
        if self._found is None:
            way = self._preset, self.tiling.grid
            masked = self._given is None and self._preset.mask is not None
            known = None if self._track is None else self._track.holds(self._frame, way, masked=masked)
            self._held = known is not None
            if known is None:
                mask = yield from self._mask()
                known = Measured(mask, (yield from self._score_norms()))
                if self._track is not None:
                    self._track.keep(self._frame, way, known)
            self._found = known
        return self._found

    def _blended(self, parts: Sequence[Part], ref: Float32, mask: Float32 | None, vote: int) -> Stages[Float32]:
        """All parts, one after another: a frame with one noise level is one part, blended in every row; where levels
        differ, finished parts are blended by the same windows."""
        result = np.zeros_like(ref) if len(parts) > 1 else ref
        for part in parts:
            noise = self._noise.for_image(part.plan, self._image, vote, mask, self._shape)
            x = yield from tiled_rows(part.plan, noise, ref, mask, self.tiling, part.tiles)
            if len(parts) == 1:
                return x
            assert part.tiles is not None
            for tile in part.tiles:
                self.tiling.cut(result, tile)[...] += self.tiling.window(tile) * self.tiling.cut(x, tile)
        return result

    # ---- masks --------------------------------------------------------------------------------------------------

    def _mask(self) -> Stages[Float32 | None]:
        """The preset's, ``[1, H, W]`` of 0 and 1; None where the caller's is taken, too."""
        spec = self._preset.mask
        if self._given is not None or spec is None:
            return None
        if spec.source == "residual":
            return residual_mask((yield from self._residuals(spec)), spec.threshold, spec.area)
        if self._preset.tiles.mask == "frame":
            c, h, w = self._graphs.image_shape
            small = resized(self._frame, ImageSpec(channels=c, height=h, width=w))
            seen = self._graphs.attention(small[None], spec)["mask"][0]
            rows, columns = (np.arange(n) * side // n for n, side in zip(self._shape[1:], (h, w), strict=True))
            return np.ascontiguousarray(seen[:, rows[:, None], columns])
        mask = np.zeros((1, *self._shape[1:]), np.float32)
        for first in range(0, len(self._seen), self._graphs.slots):
            some = range(first, min(first + self._graphs.slots, len(self._seen)))
            found = self._graphs.attention(np.stack([self._seen.cut(self._frame, i) for i in some]), spec)
            for tile, one in zip(some, found["mask"], strict=True):
                under = self._seen.cut(mask, tile)
                np.maximum(under, one, out=under)
        return mask

    def _residuals(self, spec: MaskSpec) -> Stages[Float32]:
        """How far the frame is from what comes back of its tiles: their maps, blended by the windows."""
        plan, found = self._graphs.planner.rows(spec.residual), np.zeros((1, *self._shape[1:]), np.float32)
        noise = self._noise.for_image(plan, self._image, MASK_VOTE, None, self._shape, probe=True)

        def done(job: Job, x: Float32) -> None:
            maps[job.tag] = residual_map(x, job.ref, spec.residual.window)
            while (tile := len(added)) in maps:  # in the order of the tiles, as rows are blended
                self.tiling.cut(found, tile)[...] += self.tiling.window(tile) * maps.pop(tile)
                added.append(tile)

        maps: dict[int, Float32] = {}
        added: list[int] = []
        yield self._measure(plan, noise, done)
        return found

    def _measure(self, plan: Plan, noise: RowNoise, take: Callable[[Job, Float32], None]) -> Stage:
        """The rows of a measurement on every tile, each for itself."""

        def jobs() -> Iterator[Job]:
            for tile in range(len(self.tiling)):
                under = cut_noise(noise, self._shape, self.tiling.place(tile), self.tiling.tile)
                yield Job(plan, under, 2.0 * self.tiling.cut(self._frame, tile) - 1.0, tag=tile)

        return Stage(jobs(), len(self.tiling), take)

    # ---- noise levels -------------------------------------------------------------------------------------------

    def _score_norms(self) -> Stages[tuple[float, ...] | None]:
        """Of each tile, as calibration measures them of an image; or of the frame, per pixel the same measure."""
        probe = self._graphs.planner.probe(self._preset)
        if probe is None:
            return None
        noise = self._noise.for_image(probe, self._image, 0, None, self._shape, probe=True)
        norms, shares = np.zeros(len(self.tiling)), np.zeros(len(self.tiling))

        def done(job: Job, x: Float32) -> None:
            square = x.astype(np.float64) ** 2
            norms[job.tag] = np.sqrt(square.sum())
            shares[job.tag] = (square * self.tiling.window(job.tag)).sum()

        yield self._measure(probe, noise, done)
        if self._preset.tiles.score_norm == "tile" and self.tiling is self._seen:
            return tuple(norms.tolist())
        pixels = self._shape[1] * self._shape[2] / (self._seen.tile[0] * self._seen.tile[1])
        return (float(np.sqrt(shares.sum() / pixels)),)

    def parts(self, norms: tuple[float, ...] | None) -> list[Part]:
        """The tiles by their plans, whose order is that in which they are blended."""
        planner = self._graphs.planner
        if norms is None or len(norms) == 1:
            return [Part(planner.plan(self._preset, None if norms is None else norms[0]), None)]
        found: list[tuple[Plan, list[int]]] = []
        for tile, norm in enumerate(norms):
            plan = planner.plan(self._preset, norm)
            same = next((tiles for known, tiles in found if known is plan), None)
            if same is None:
                found.append((plan, [tile]))
            else:
                same.append(tile)
        return [Part(p, tuple(tiles) if len(found) > 1 else None) for p, tiles in found]

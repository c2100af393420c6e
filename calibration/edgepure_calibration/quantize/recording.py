"""What the step graph sees and gives along real trajectories, recorded through the runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.engines.base import Stepper
from edgepure.images.tiles import Tiling
from edgepure.methods.presets import Preset
from edgepure.purify.inflight import run_images
from edgepure.purify.masks import middle_mask
from edgepure.purify.purifier import Purifier
from edgepure.purify.residual import residual_masks
from edgepure.rows.noise import RowNoise, SeededNoise
from edgepure.rows.plan import Plan
from edgepure.types import Float32

#: Inputs of one call of a step graph by name, batch first.
Feeds = dict[str, Float32]
#: Called with (row, numbers of the images, feeds, x after the row).
OnRow = Callable[[int, Sequence[int], Feeds, Float32], None]


class RecordingStepper(Stepper):
    """A stepper that passes everything on to another one, and reports each call."""

    def __init__(self, inner: Stepper, on_step: Callable[[Feeds, Float32], None]) -> None:
        self.capacity, self.image_shape = inner.capacity, inner.image_shape
        self.coeffs, self.noise, self.noise_out = inner.coeffs, inner.noise, inner.noise_out
        self._inner, self._on_step = inner, on_step
        _, height, width = inner.image_shape
        self._ref = np.zeros((inner.capacity, *inner.image_shape), np.float32)
        self._mask = np.ones((inner.capacity, 1, height, width), np.float32)
        # Made here once more: on a device the inner stepper's own noise need not be visible.
        self._noise = np.zeros_like(self._ref)
        self._noise_out = None if inner.noise_out is None else np.zeros_like(self._ref)

    def admit(self, slot: int, x: Float32, ref: Float32, mask: Float32 | None) -> None:
        self._ref[slot] = ref
        self._mask[slot] = 1.0 if mask is None else mask
        self._inner.admit(slot, x, ref, mask)

    def move(self, source: int, target: int) -> None:
        self._ref[target], self._mask[target] = self._ref[source], self._mask[source]
        self._inner.move(source, target)

    def load_noise(self, slot: int, noise: RowNoise, row: int) -> None:
        self._noise[slot] = noise.row(row)
        self._inner.load_noise(slot, noise, row)

    def load_noise_out(self, slot: int, noise: RowNoise, row: int) -> None:
        assert self._noise_out is not None
        self._noise_out[slot] = noise.out(row)
        self._inner.load_noise_out(slot, noise, row)

    def step(self, active: int) -> None:
        feeds = {
            "x": self._states(active),
            "ref": self._ref[:active].copy(),
            "mask": self._mask[:active].copy(),
            "noise": self._noise[:active].copy(),
            "coeffs": self.coeffs[:active].copy(),
        }
        if self._noise_out is not None:
            feeds["noise_out"] = self._noise_out[:active].copy()
        self._inner.step(active)
        self._on_step(feeds, self._states(active))

    def state(self, slot: int) -> Float32:
        return self._inner.state(slot)

    def _states(self, active: int) -> Float32:
        return np.stack([self._inner.state(slot) for slot in range(active)])


def tiling(purifier: Purifier, overlap: float = 0.25) -> Tiling:
    """The tiles of an image that is answered; one where it has the network's size."""
    manifest = purifier.bundle.manifest
    return Tiling(manifest.task_image.shape[1:], manifest.image.shape[1:], overlap)


def of_slots(purifier: Purifier, images: Float32) -> Float32:
    """Images of the network's size ``[N, C, H, W]``; of each frame one tile, another one each time."""
    tiles = tiling(purifier)
    if len(tiles) == 1:
        return images
    return np.stack([tiles.cut(image, i % len(tiles)) for i, image in enumerate(images)])


@dataclass(frozen=True)
class PlannedImages:
    """Images that follow one plan. ``probe``: the plan only measures their score norm."""

    plan: Plan
    images: tuple[int, ...]
    probe: bool = False


def planned(purifier: Purifier, preset: Preset, images: Float32, seed: int) -> list[PlannedImages]:
    """Which plan each image ``[N, C, H, W]`` follows; with SSNI that takes the probe's UNet calls."""
    everything = tuple(range(len(images)))
    probe = purifier.planner.probe(preset)
    if probe is None:
        return [PlannedImages(purifier.planner.plan(preset), everything)]
    groups: dict[int, PlannedImages] = {}
    for i, norm in enumerate(purifier.score_norms(images, preset, noise=seed)):
        plan = purifier.planner.plan(preset, float(norm))
        before = groups.get(id(plan), PlannedImages(plan, ()))
        groups[id(plan)] = PlannedImages(plan, (*before.images, i))
    return [PlannedImages(probe, everything, probe=True), *(g for g in groups.values() if g.plan.rows)]


def masks_of(purifier: Purifier, preset: Preset, images: Float32, seed: int) -> Float32 | None:
    """The masks ``[N, 1, H, W]``; None for presets without. Where a method computes its own on the way, those of the
    images stand in: here they only choose pixels, and are the same for both that are compared."""
    if preset.mask is None:
        return None
    if preset.mask.source == "residual":
        return residual_masks(purifier, images, preset.mask, seed)
    if preset.mask.source == "caller":
        return middle_mask(len(images), purifier.image_shape[1:])
    size = purifier.slots
    return np.concatenate(
        [purifier.attention(images[i : i + size], preset.mask)["mask"] for i in range(0, len(images), size)]
    )


def follow(
    purifier: Purifier,
    group: PlannedImages,
    images: Float32,
    masks: Float32 | None,
    seed: int,
    on_row: OnRow,
    graph: str | None = None,
) -> None:
    """Run a plan with seeded noise, all images of a batch in the same row, and report every row.

    ``graph``: None: the plan's own; ``step_learned`` executes ordinary plans, too.
    """
    source, slots = SeededNoise(seed), purifier.slots
    stepper = purifier.stepper(graph or group.plan.graph)
    for start in range(0, len(group.images), slots):
        chunk = group.images[start : start + slots]
        rows = iter(range(len(group.plan.rows)))

        def report(feeds: Feeds, after: Float32, rows: Iterator[int] = rows, chunk: Sequence[int] = chunk) -> None:
            on_row(next(rows), chunk, feeds, after)

        run_images(
            RecordingStepper(stepper, report),
            images[list(chunk)],
            [group.plan] * len(chunk),
            source,
            lambda image, x: None,
            masks=None if masks is None or group.probe else masks[list(chunk)],
            ids=chunk,
            probe=group.probe,
        )


@dataclass(frozen=True)
class Samples:
    """Calls of one step graph for single images, in no particular order.

    Attributes:
        feeds: inputs by name, ``[S, ...]`` float32.
        after: what the fp32 graph made of them, ``[S, C, H, W]``.
        rows: number of rows that they come from, over all plans.
    """

    feeds: Feeds
    after: Float32
    rows: int

    def __len__(self) -> int:
        return len(self.after)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays by name, to be kept."""
        feeds = {f"in/{name}": array for name, array in self.feeds.items()}
        return {**feeds, "after": self.after, "rows": np.array(self.rows)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]] | None) -> Samples | None:
        """The reverse; None for what is no such thing."""
        try:
            found = arrays or {}
            feeds = {key.removeprefix("in/"): array for key, array in found.items() if key.startswith("in/")}
            return cls(feeds, found["after"], int(found["rows"]))
        except (KeyError, TypeError, ValueError):
            return None

    def some(self, count: int) -> Samples:
        """``count`` of them, spread evenly over the timesteps."""
        order = np.argsort(self.feeds["coeffs"][:, 0], kind="stable")
        chosen = order[np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)]
        return Samples({k: v[chosen] for k, v in self.feeds.items()}, self.after[chosen], self.rows)


def record(
    purifier: Purifier,
    presets: Sequence[Preset],
    images: Float32,
    count: int,
    seed: int,
    graph: str = "step",
    on_progress: Callable[[float], None] | None = None,
) -> Samples:
    """About ``count`` calls of a step graph, drawn evenly over presets, rows and images.

    Args:
        purifier: the fp32 bundle.
        presets: whose trajectories are recorded; probes are rows too.
        images: ``[N, C, H, W]`` float32 in [0, 1].
        count: how many calls; every row is among them, and never more than twice as many.
        seed: of the noise.
        graph: which step graph runs them all; ``step_learned`` if a preset needs it.
        on_progress: called with the share done.
    """
    groups = [
        (group, masks_of(purifier, preset, images, seed))
        for preset in presets
        for group in planned(purifier, preset, images, seed)
    ]
    calls = sum(len(group.plan.rows) * len(group.images) for group, _ in groups)
    every = max(1, calls // max(count, 1))
    kept: list[tuple[Feeds, Float32]] = []
    done = 0
    for group, masks in groups:
        # with fewer images than the spacing, every row still gets its turn
        spacing = min(every, len(group.images))
        place = {image: position for position, image in enumerate(group.images)}

        def keep(
            row: int,
            chunk: Sequence[int],
            feeds: Feeds,
            after: Float32,
            spacing: int = spacing,
            place: dict[int, int] = place,
        ) -> None:
            nonlocal done
            done += len(chunk)
            picked = [slot for slot, i in enumerate(chunk) if (row + place[i]) % spacing == 0]
            if picked:
                kept.append(({name: array[picked] for name, array in feeds.items()}, after[picked]))
            if on_progress is not None:
                on_progress(done / calls)

        follow(purifier, group, images, masks, seed, keep, graph)
    found = Samples(
        {name: np.concatenate([feeds[name] for feeds, _ in kept]) for name in kept[0][0]},
        np.concatenate([after for _, after in kept]),
        sum(len(group.plan.rows) for group, _ in groups),
    )
    return found.some(2 * count) if len(found) > 2 * count else found

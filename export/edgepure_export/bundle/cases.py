"""Inputs of every graph for the parity check and the self-test: random, real, and rows of the presets' plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgepure.errors import ExportError
from edgepure.images.spec import ImageSpec
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset
from edgepure.rows.builder import RowBuilder
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS, Plan
from edgepure.rows.schedule import NoiseSchedule

from ..graphs.attention import RULES

#: Batch sizes of the cases: 1 and another than the batch that was traced.
BATCHES = (3, 1)
#: Rows of each plan that the parity check runs, spread over the plan.
ROWS_PER_PLAN = 6


def sample_batch(images: Any, image: ImageSpec, count: int) -> Tensor:
    """``count`` images [count, C, H, W] float32 in [0, 1], from the samples that were given (repeated if too few) or,
    without any, smooth random ones.

    Raises:
        ExportError: the samples have another shape or range.
    """
    if images is None:
        generator = torch.Generator().manual_seed(1)
        coarse = torch.rand((count, image.channels, 4, 4), generator=generator)
        size = (image.height, image.width)
        return torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)
    batch = torch.as_tensor(np.asarray(images))
    if batch.ndim != 4 or tuple(batch.shape[1:]) != image.shape or len(batch) == 0:
        raise ExportError(
            f"sample images have the shape {list(batch.shape)}, expected [B, {', '.join(map(str, image.shape))}]",
            code="E-sample-images",
        )
    batch = batch.to(torch.float32)
    if not bool(((batch >= 0.0) & (batch <= 1.0)).all()):
        raise ExportError(
            f"sample images lie in [{float(batch.min()):.3g}, {float(batch.max()):.3g}], expected [0, 1] without NaN",
            code="E-sample-images",
        )
    return batch[torch.arange(count) % len(batch)].contiguous()


class Cases:
    """Makes the cases of one bundle.

    Args:
        image: size of the images.
        schedule: of the diffusion model.
        presets: their plans give the rows of the step graphs.
        images: sample images in [0, 1], see `sample_batch`.
        other_size: of images that are not the bundle's, for the graph of any size; None: there is no such graph.
        frames: what the task takes, where it is larger. Then sample images may be of that size; the networks get what
            is in their middle.
    """

    def __init__(
        self,
        image: ImageSpec,
        schedule: NoiseSchedule,
        presets: Mapping[str, Preset],
        images: Any = None,
        other_size: tuple[int, int] | None = None,
        frames: ImageSpec | None = None,
    ) -> None:
        self._other: Cases | None = None
        if other_size is not None:
            other = image.model_copy(update={"height": other_size[0], "width": other_size[1]})
            self._other = Cases(other, schedule, presets)
        self.image = image
        self._frames: Cases | None = None
        if frames is not None and frames != image:
            framed = images is not None and tuple(np.shape(images)[1:]) == frames.shape
            self._frames = Cases(frames, schedule, {}, images if framed else None)
            images = _middle(images, image) if framed else images
        self.schedule = schedule
        self._samples = images
        planner = Planner(schedule, int(np.prod(image.shape)))
        plans = [planner.plan(preset) for preset in presets.values()]
        plans += [probe for preset in presets.values() if (probe := planner.probe(preset)) is not None]
        self._plans = [plan for plan in plans if plan.rows] + [general_plan(schedule)]

    def images(self, count: int) -> Tensor:
        """[count, C, H, W] in [0, 1]."""
        return sample_batch(self._samples, self.image, count)

    def frames(self, count: int) -> Tensor:
        """Images that the task takes, [count, C, H, W] in [0, 1]."""
        return self.images(count) if self._frames is None else self._frames.images(count)

    def image_of(self, graph: str) -> ImageSpec:
        """Size of the images that a graph takes."""
        return self._frames.image if graph == "task" and self._frames is not None else self.image

    def of(self, graph: str) -> list[dict[str, Tensor]]:
        """Cases of a graph by name; the first one has a batch of 3 real images."""
        if graph == "task" and self._frames is not None:
            return self._frames.of(graph)
        if graph in ("classifier", "task"):
            return [{"image": image} for image in self._image_batches()]
        if graph == "mask":
            return [self._mask(image) for image in self._image_batches()]
        if graph == "unet":
            return [self._unet(batch, seed) for seed, batch in enumerate(BATCHES)]
        if graph == "step_any":
            assert self._other is not None
            return [*self._other._steps(learned=False), *self._steps(learned=False)]
        return self._steps(learned=graph == "step_learned")

    def _image_batches(self) -> list[Tensor]:
        noise = [torch.rand((batch, *self.image.shape), generator=_generator(batch)) for batch in BATCHES]
        return [self.images(BATCHES[0]), *noise]

    def _mask(self, image: Tensor) -> dict[str, Tensor]:
        """Both rules, thresholds and areas mixed within the batch."""
        b = len(image)
        pixels = self.image.height * self.image.width
        settings = [
            (0.5, 0.0, RULES["minmax"]),
            (0.0, 0.15, RULES["minmax"]),
            (1.5 / pixels, 0.0, RULES["softmax"]),
            (0.0, 0.3, RULES["softmax"]),
        ]
        chosen = torch.tensor([settings[(i + b) % len(settings)] for i in range(b)], dtype=torch.float32)
        return {"image": image, "threshold": chosen[:, 0], "area": chosen[:, 1], "rule": chosen[:, 2]}

    def _unet(self, batch: int, seed: int) -> dict[str, Tensor]:
        last = len(self.schedule) - 1
        levels = np.linspace(0.1, 0.9, batch) * last if batch > 1 else np.array([0.31 * last])
        return {
            "x": torch.cat([self._noised(int(level), seed + i) for i, level in enumerate(levels)]),
            "t": torch.tensor(levels, dtype=torch.float32),
        }

    def _noised(self, level: int, seed: int) -> Tensor:
        x0 = 2.0 * self.images(1) - 1.0
        noise = torch.randn(x0.shape, generator=_generator(100 + seed))
        return self.schedule.sqrt_alpha_bar(level) * x0 + self.schedule.sigma(level) * noise

    def _steps(self, learned: bool) -> list[dict[str, Tensor]]:
        """Rows of every plan, a few in a batch, so that images with different coefficients share a call."""
        rows = [(plan, i) for plan in self._plans for i in _spread(len(plan.rows), ROWS_PER_PLAN)]
        if not learned:
            rows = [(plan, i) for plan, i in rows if not plan.learned_variance] or [(self._plans[-1], 0)]
        first, rest = BATCHES[0], max(1, -(-len(rows) // BATCHES[0]))
        groups = [rows[k::rest] for k in range(rest)]
        groups[0] = (groups[0] * first)[:first]
        return [self._step(group, seed, learned) for seed, group in enumerate(groups)] + [
            self._step(rows[:1], 99, learned)
        ]

    def _step(self, rows: Sequence[tuple[Plan, int]], seed: int, learned: bool) -> dict[str, Tensor]:
        b, (c, h, w) = len(rows), self.image.shape
        generator = _generator(200 + seed)
        columns = COLUMNS + LEARNED_COLUMNS if learned else COLUMNS
        coeffs = torch.zeros((b, len(columns)))
        for i, (plan, row) in enumerate(rows):
            values = torch.from_numpy(plan.coeffs[row].copy())
            coeffs[i, : len(values)] = values
        if learned:
            # Rows of ordinary plans in the learned graph have no second noise; these exercise it.
            fill = torch.tensor([-4.0, -6.0, 1.0, 0.1, -0.1])
            coeffs[1::2, len(COLUMNS) :] = fill
        ref = 2.0 * self.images(b) - 1.0
        levels = [min(max(int(plan.rows[row].t), 0), len(self.schedule) - 1) for plan, row in rows]
        case = {
            "x": torch.cat([self._noised(level, seed + i) for i, level in enumerate(levels)]),
            "ref": ref,
            "noise": torch.randn((b, c, h, w), generator=generator),
            "mask": (torch.rand((b, 1, h, w), generator=generator) > 0.5).to(torch.float32),
            "coeffs": coeffs,
        }
        if learned:
            case["noise_out"] = torch.randn((b, c, h, w), generator=generator)
        return case


def _middle(images: Any, image: ImageSpec) -> Any:
    top, left = (np.shape(images)[2] - image.height) // 2, (np.shape(images)[3] - image.width) // 2
    return np.asarray(images)[:, :, top : top + image.height, left : left + image.width]


def general_plan(schedule: NoiseSchedule) -> Plan:
    """A plan that uses every column: injection outside the mask, jumps, clip, carried noise, pull to the input."""
    last = len(schedule) - 1
    builder = RowBuilder("parity")
    levels = [round(share * last) for share in (0.5, 0.2, 0.05)]
    top = levels[0]
    builder.diffuse_ref(schedule.sqrt_alpha_bar(top), schedule.sigma(top), top)
    for number, level in enumerate(levels):
        up = min(level + 3, last)
        if number < 2:
            builder.inject_outside(schedule.sqrt_alpha_bar(level), schedule.sigma(level), level)
        builder.jump(*schedule.jump(level, up), up)
        builder.call(
            up + 0.25,
            alpha=schedule.sqrt_alpha_bar(up),
            sigma=schedule.sigma(up),
            clip=1.0,
            owes=[("step", level, 0.1)],
            out_x=0.05,
            out_z=0.3,
            out_x0=0.6,
            out_eps=0.1,
            out_ref=0.05,
        )
    return builder.finish()


def _spread(count: int, most: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)

"""What callers give to a purifier, read and checked."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ..errors import ConfigError, ImageError, PrecisionWarning
from ..images.load import LoadedImages, Order, Resize, check_options, load_images
from ..images.spec import ImageSpec
from ..methods.presets import Preset
from ..types import Float32
from ..validation import expect
from .masks import caller_masks
from .results import Failure

#: More threads than any processor has cores only take memory; so do more slots.
MOST_THREADS, MOST_SLOTS = 512, 4096
#: Lanes of a service at most.
MAX_LANES = 64


@dataclass(frozen=True)
class Reading:
    """How images are read: ``resize``, ``order`` and ``on_error`` of `Purifier.classify`."""

    resize: Resize = False
    order: Order = "rgb"
    on_error: str = "raise"

    def check(self) -> None:
        """Raise ConfigError unless these are options of `load_images`."""
        check_options(self.resize, self.order, self.on_error)

    def load(self, images: Any, spec: ImageSpec) -> LoadedImages:
        """The images as the bundle takes them. Raises as `load_images`."""
        return load_images(images, spec, resize=self.resize, order=self.order, on_error=self.on_error)


def masks_of(mask: Any, loaded: LoadedImages, size: tuple[int, int]) -> Float32 | None:
    """The caller's masks of the images that could be read, ``[B, 1, H, W]``; None where he gave none."""
    if mask is None:
        return None
    return caller_masks(mask, len(loaded) + len(loaded.failures), size)[list(loaded.indices)]


def failures_of(loaded: LoadedImages) -> list[Failure]:
    """The inputs that could not be read."""
    return [Failure(f.name, f.reason) for f in loaded.failures]


def checked_votes(votes: object) -> int:
    """A number of votes. Raises ConfigError."""
    if isinstance(votes, bool) or not isinstance(votes, int | np.integer) or not 1 <= votes <= 1000:
        raise ConfigError(f"votes is {votes!r:.40}, expected a number from 1 to 1000", code="E-config-votes")
    return int(votes)


def check_counts(threads: object, slots: object) -> None:
    """Raise ConfigError unless these are numbers of threads (or None) and of slots that a machine can have."""
    for name, value, most, what, code in (
        ("threads", threads, MOST_THREADS, "it is the number of CPU threads of one call, or None", "E-config-threads"),
        ("slots", slots, MOST_SLOTS, "it is the number of images that share a UNet call", "E-config-slots"),
    ):
        if value is None and name == "threads":
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise ConfigError(f"{name} is {value!r:.40}, expected 1 to {most}: {what}", code=code)


def check_lanes(lanes: object) -> None:
    """Raise ConfigError unless this is a number of lanes that a service can have."""
    if isinstance(lanes, bool) or not isinstance(lanes, int) or not 1 <= lanes <= MAX_LANES:
        raise ConfigError(
            f"lanes is {lanes!r:.40}, expected 1 to {MAX_LANES}: it is the number of banks of slots that compute",
            code="E-config-lanes",
        )


def check_ids(ids: Sequence[int] | None, count: int) -> None:
    """Raise ConfigError unless these are the places of so many images in the stream of noise."""
    expect(ids=(ids, Sequence, np.ndarray, None))
    for number in () if ids is None else ids:
        expect(ids=(number, Integral))
    if ids is not None and len(ids) != count:
        raise ConfigError(f"{len(ids)} ids for {count} images; give one for each", code="E-config-count")


def warn_of_precision(preset: Preset, precision: str) -> None:
    """Warn if a preset was tuned in another precision than it runs in."""
    if preset.precision not in (None, precision):
        warnings.warn(
            f"the preset was tuned in {preset.precision} and runs in {precision}, where what it was measured to do "
            f"need not hold; use precision {preset.precision}, or tune it in {precision}",
            PrecisionWarning,
            stacklevel=5,
        )


def check_images(images: Float32, shape: tuple[int, int, int]) -> None:
    """Raise ImageError unless ``images`` are a batch of float32 ``[B, C, H, W]`` without NaN."""
    if not isinstance(images, np.ndarray):
        raise ImageError(
            f"the batch is a {type(images).__name__}, expected an array; `classify` takes other kinds of images",
            code="E-batch-type",
        )
    if images.dtype != np.float32 or images.ndim != 4 or images.shape[1:] != shape:
        raise ImageError(
            f"the batch is {images.dtype} {list(images.shape)}, expected float32 [B, {', '.join(map(str, shape))}] in "
            "[0, 1]; `classify` takes other kinds of images",
            code="E-batch-shape",
        )
    bad = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if len(bad):
        raise ImageError(
            f"image {bad[0]} of the batch has pixels that are NaN or infinite, expected [0, 1]",
            code="E-batch-not-finite",
        )

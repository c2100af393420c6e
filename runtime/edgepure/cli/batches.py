"""Images in chunks, so that memory stays flat, and failures that do not stop the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import ImageError
from ..images.load import Order, Resize, load_images
from ..methods.presets import Preset
from ..purify.heads import Head, P
from ..purify.monitor import Monitor
from ..purify.purifier import Purifier
from ..purify.results import Failure
from ..rows.noise import NoiseSource
from ..types import Float32
from .sources import Source, item_of

#: Pixels of the images that are in memory at a time take at most about this many bytes.
CHUNK_BYTES = 64 << 20
MOST_IMAGES = 256


def run_chunks(
    purifier: Purifier,
    head: Head[P],
    preset: Preset,
    sources: Sequence[Source],
    *,
    noise: NoiseSource | int | None,
    resize: Resize,
    order: Order = "rgb",
    on_result: Callable[[int, P], None],
    on_share: Callable[[float], None],
    monitor: Monitor | None = None,
    masks: Callable[[Sequence[int]], Float32] | None = None,
    start: int = 0,
) -> list[Failure]:
    """Purify all sources, a chunk at a time.

    Args:
        head: what is made of them then.
        noise: a seed or source; source i of the list is image i of the stream, whatever fails and however the
            list is cut into chunks.
        resize, order: as `edgepure.images.load_images`.
        on_result: called with the position of a source and its result, in order within a chunk.
        on_share: called with the share of the UNet calls that is done.
        monitor: flags and counts the results.
        masks: the masks ``[B, 1, H, W]`` of the sources at these positions; None: those of the preset.
        start: of the noise, the number of the first source.

    Returns:
        The sources that could not be used.

    Raises:
        ImageError: there is no image at all.
    """
    if not sources:
        raise ImageError("there is no image; give at least one file, folder or array", code="E-image-count")
    failures: list[Failure] = []
    expected = float(purifier.planner.unet_calls(preset))
    counted = 0
    image = head.image(purifier.bundle.manifest)
    size = chunk_size(image.shape, purifier.slots)
    for first in range(0, len(sources), size):
        chunk = sources[first : first + size]
        loaded = load_images([item_of(s) for s in chunk], image, resize=resize, order=order, on_error="collect")
        failures += (Failure(chunk[f.index].name, f.reason) for f in loaded.failures)
        total = counted + expected * (len(sources) - first - len(loaded.failures))

        def rows_done(rows: int, *, total: float = total) -> None:
            nonlocal counted
            counted += rows
            on_share(counted / max(total, counted, 1.0))

        if len(loaded):
            positions = [first + index for index in loaded.indices]
            names = [sources[position].name for position in positions]
            results = purifier.run_head(
                head,
                loaded.images,
                preset,
                noise=noise,
                names=names,
                ids=[start + position for position in positions],
                on_rows=rows_done,
                monitor=monitor,
                masks=None if masks is None else masks(positions),
            )
            for position, result in zip(positions, results, strict=True):
                on_result(position, result)
            expected = sum(r.unet_calls for r in results) / len(results)  # with SSNI less than the plan says
    return failures


def chunk_size(shape: tuple[int, int, int], slots: int) -> int:
    """Images that are in memory at a time."""
    return max(slots, min(MOST_IMAGES, CHUNK_BYTES // (4 * int(np.prod(shape)))))

"""Images from the command line: names for the results, chunks so that memory stays flat, and failures that do not
stop the rest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from ..files.npz import ArrayError, Npz, is_npz, map_npy
from ..images.load import SUFFIXES, load_images
from ..methods.presets import Preset
from ..purify.monitor import Monitor
from ..purify.purifier import Purifier
from ..purify.results import Failure, Result
from ..rows.noise import NoiseSource

#: Pixels of the images that are in memory at a time take at most about this many bytes.
CHUNK_BYTES = 64 << 20
MOST_IMAGES = 256
#: Images of one array; each costs memory before its pixels are read.
MOST_OF_A_FILE = 1_000_000


@dataclass(frozen=True)
class Source:
    """One image that was named on the command line.

    Attributes:
        name: path, with the position in brackets for images of an array.
        stem: what a file made of it is called, without suffix.
        path: the file it comes from.
        item: what `load_images` takes; an ImageError if it is known to be bad.
    """

    name: str
    stem: str
    path: Path
    item: Any


def find_sources(paths: Sequence[Path]) -> list[Source]:
    """All images behind files, folders and arrays, in order. What cannot be read is a source that fails later."""
    return [source for path in paths for source in _sources(path)]


def output_names(sources: Sequence[Source]) -> list[str]:
    """A ``.png`` name for each source. Files that differ only in their suffix keep it (``a.jpg.png``).

    Raises:
        ConfigError: two sources would get the same name.
    """
    stems = [source.stem for source in sources]
    names = [
        f"{source.path.name if stems.count(source.stem) > 1 and source.path.stem == source.stem else source.stem}.png"
        for source in sources
    ]
    taken: dict[str, Source] = {}
    for name, source in zip(names, sources, strict=True):
        other = taken.setdefault(name, source)
        if other is not source:
            raise ConfigError(
                f"{other.name} and {source.name} would both be written to {name}; run them one after another with "
                "different folders"
            )
    return names


def run_chunks(
    purifier: Purifier,
    preset: Preset,
    sources: Sequence[Source],
    *,
    noise: NoiseSource | int | None,
    resize: bool,
    on_result: Callable[[int, Result], None],
    on_share: Callable[[float], None],
    monitor: Monitor | None = None,
) -> list[Failure]:
    """Purify and classify all sources, a chunk at a time.

    Args:
        noise: a seed or source; source i of the list is image i of the stream, whatever fails and however the
            list is cut into chunks.
        on_result: called with the position of a source and its result, in order within a chunk.
        on_share: called with the share of the UNet calls that is done.
        monitor: flags and counts the results.

    Returns:
        The sources that could not be used.

    Raises:
        ImageError: there is no image at all.
    """
    if not sources:
        raise ImageError("there is no image; give at least one file, folder or array")
    failures: list[Failure] = []
    expected = float(purifier.planner.unet_calls(preset))
    counted = 0
    size = chunk_size(purifier.image_shape, purifier.slots)
    for first in range(0, len(sources), size):
        chunk = sources[first : first + size]
        loaded = load_images([s.item for s in chunk], purifier.bundle.manifest.image, resize=resize, on_error="collect")
        failures += (Failure(chunk[f.index].name, f.reason) for f in loaded.failures)
        total = counted + expected * (len(sources) - first - len(loaded.failures))

        def rows_done(rows: int, *, total: float = total) -> None:
            nonlocal counted
            counted += rows
            on_share(counted / max(total, counted, 1.0))

        if len(loaded):
            positions = [first + index for index in loaded.indices]
            names = [sources[position].name for position in positions]
            results = purifier.run(
                loaded.images, preset, noise=noise, names=names, ids=positions, on_rows=rows_done, monitor=monitor
            )
            for position, result in zip(positions, results, strict=True):
                on_result(position, result)
            expected = sum(r.unet_calls for r in results) / len(results)  # with SSNI less than the plan says
    return failures


def chunk_size(shape: tuple[int, int, int], slots: int) -> int:
    """Images that are in memory at a time."""
    return max(slots, min(MOST_IMAGES, CHUNK_BYTES // (4 * int(np.prod(shape)))))


def _sources(path: Path) -> Iterator[Source]:
    named = re.fullmatch(r"(.+\.npz):(\w+)", str(path))
    file = Path(named[1]) if named else path
    if file.suffix.lower() in (".npy", ".npz"):
        try:
            images = _read_array(file, named[2] if named else None)
        except ImageError as error:
            yield Source(str(path), file.stem, file, error)
            return
        for i, image in enumerate(images):
            yield Source(f"{path}[{i}]", f"{file.stem}_{i:05d}", file, image)
    elif path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
        for file in files:
            yield Source(str(file), file.stem, file, file)
        if not files:
            yield Source(str(path), path.name, path, ImageError(f"the folder holds no image ({', '.join(SUFFIXES)})"))
    else:
        yield Source(str(path), path.stem, path, path)


def _read_array(path: Path, name: str | None) -> NDArray[Any]:
    """A batch of images, ``[N, ...]``, from ``.npy`` (mapped, not read) or ``.npz``. Nothing is unpickled."""
    try:
        if is_npz(path):
            with Npz(path) as arrays:
                array = arrays[_key(arrays.names, name)]
        else:
            array = map_npy(path)
    except ArrayError as error:
        raise ImageError(f"it cannot be read as an array of numbers ({error})") from None
    if array.ndim in (2, 3):
        array = array[None]
    if array.ndim != 4:
        raise ImageError(
            f"it has the shape {list(array.shape)}, expected images: uint8 [N, H, W, C] or float [N, C, H, W] in [0, 1]"
        )
    if len(array) > MOST_OF_A_FILE:
        raise ImageError(f"it holds {len(array)} images, at most {MOST_OF_A_FILE} are taken from one file; divide it")
    if len(array) == 0:
        raise ImageError("the batch is empty; give at least one image")
    return array


def _key(keys: Sequence[str], name: str | None) -> str:
    if name is not None and name in keys:
        return name
    if name is None and len(keys) == 1:
        return keys[0]
    if name is None and "images" in keys:
        return "images"
    wanted = "one, or one called `images`" if name is None else f"one called `{name}`"
    raise ImageError(
        f"it holds the arrays {', '.join(keys) or 'none'}; expected {wanted}, or give FILE.npz:NAME for the array NAME"
    )

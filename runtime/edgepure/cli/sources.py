"""What is named on the command line becomes images with names: files, folders and arrays."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..errors import ConfigError, ImageError
from ..files.npz import ArrayError, Npz, is_npz, map_npy
from ..images.dataset import check_array
from ..images.folders import image_files
from ..images.load import Resize
from ..images.spec import ImageSpec
from .options import RayOptions
from .output import note
from .stored import Stored, stored_images

#: Images of one array; each costs memory before its pixels are read.
MOST_OF_A_FILE = 1_000_000


@dataclass(frozen=True)
class Source:
    """One image that was named on the command line.

    Attributes:
        name: path, with the position in brackets for images of an array.
        stem: what a file made of it is called, without suffix.
        path: the file it comes from.
        item: what `load_images` takes; an ImageError if it is known to be bad; a `Stored` image, which is read when its
            turn comes.
    """

    name: str
    stem: str
    path: Path
    item: Any


def item_of(source: Source) -> Any:
    """What `load_images` takes."""
    return source.item.read() if isinstance(source.item, Stored) else source.item


def find_sources(paths: Sequence[Path], image: ImageSpec | None = None, resize: Resize = False) -> list[Source]:
    """All images behind files, folders and arrays, in order. What cannot be read is a source that fails later.

    ``image``, ``resize``: what is going to take them, so that an array of another kind takes no memory.
    """
    return [source for path in paths for source in _sources(path, image, resize)]


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
                "different folders",
                code="E-output-twice",
            )
    return names


def check_ray(options: RayOptions, others: Mapping[str, bool]) -> None:
    """Raise ConfigError for options that belong together, or do not. ``others``: whether what a cluster does not do was
    asked for, by its option."""
    if options.ray is None and (options.work is not None or options.workers is not None):
        raise ConfigError("--work and --workers belong to --ray ADDRESS; give that too", code="E-ray-option")
    for name, given in others.items():
        if given and options.ray is not None:
            raise ConfigError(f"{name} is not done on a cluster; leave it out, or --ray", code="E-ray-option")


def _sources(path: Path, image: ImageSpec | None, resize: Resize) -> Iterator[Source]:
    named = re.fullmatch(r"(.+\.(?:npz|parquet)):(\w+)", str(path))
    file = Path(named[1]) if named else path
    if file.suffix.lower() in (".npy", ".npz"):
        try:
            images = _read_array(file, named[2] if named else None, image, resize)
        except ImageError as error:
            yield Source(str(path), file.stem, file, error)
            return
        for i, one in enumerate(images):
            yield Source(f"{path}[{i}]", f"{file.stem}_{i:05d}", file, one)
    elif file.suffix.lower() in (".parquet", ".tar"):
        try:
            for name, stem, stored in stored_images(file, named[2] if named else None):
                yield Source(f"{path}[{name}]", stem, file, stored)
        except ImageError as error:
            yield Source(str(path), file.stem, file, error)
    elif path.is_dir():
        files = image_files(path, note)
        for file in files:
            stem = "_".join(file.relative_to(path).with_suffix("").parts)
            yield Source(str(file), stem, file, file)
        if not files:
            none = ImageError(
                "the folder holds no image, nor do its sub-folders; give a folder with PNG, JPEG or other images",
                code="E-image-none",
            )
            yield Source(str(path), path.name, path, none)
    else:
        yield Source(str(path), path.stem, path, path)


def _read_array(path: Path, name: str | None, image: ImageSpec | None, resize: Resize) -> NDArray[Any]:
    """A batch of images, ``[N, ...]``, from ``.npy`` (mapped, not read) or ``.npz``. Nothing is unpickled."""
    try:
        if is_npz(path):
            with Npz(path) as arrays:
                key = _key(arrays.names, name)
                if image is not None:
                    check_array(*arrays.header(key), image, resize)
                array = arrays[key]
        else:
            array = map_npy(path)
    except ArrayError as error:
        raise ImageError(
            f"it cannot be read as an array of numbers ({error}); save it with numpy.save or numpy.savez",
            code="E-image-array",
        ) from None
    if array.ndim in (2, 3):
        array = array[None]
    if array.ndim != 4:
        raise ImageError(
            f"it has the shape {list(array.shape)}, expected images: uint8 [N, H, W, C] or float [N, C, H, W] in "
            "[0, 1]",
            code="E-image-array",
        )
    if len(array) > MOST_OF_A_FILE:
        raise ImageError(
            f"it holds {len(array)} images, at most {MOST_OF_A_FILE} are taken from one file; divide it",
            code="E-image-many",
        )
    if len(array) == 0:
        raise ImageError("the batch is empty; give at least one image", code="E-image-count")
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
        f"it holds the arrays {', '.join(keys) or 'none'}; expected {wanted}, or give FILE.npz:NAME for the array NAME",
        code="E-image-array",
    )

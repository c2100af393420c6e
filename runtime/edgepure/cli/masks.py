"""``--mask``: masks of the caller's, one for all images or one for each, from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError, ImageError
from ..files.npz import ArrayError, map_npy
from ..images.load import load_images
from ..images.spec import ImageSpec
from ..purify.masks import caller_masks
from ..types import Float32
from .sources import Source, output_names


class GivenMasks:
    """The masks behind a file or a folder.

    Args:
        path: a black and white image (white: strong noise) or a ``.npy`` of 0 and 1 for all images, or a folder with
            one image for each, named as ``--mask-out`` names them.
        size: height and width that they must have.

    Raises:
        ConfigError: there is nothing at ``path``.
    """

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        if not path.exists():
            raise ConfigError(f"--mask {path}: there is no such file or folder; check the path", code="E-mask-missing")
        self._path, self._size = path, size

    def of(self, sources: Sequence[Source]) -> Callable[[Sequence[int]], Float32]:
        """What gives the masks ``[B, 1, H, W]`` of the sources at some positions.

        Raises:
            ConfigError: a source has no mask in the folder; all are looked for now.
        """
        if not self._path.is_dir():
            masks = self._file(self._path, len(sources))
            return lambda positions: masks[list(positions)]
        files = [self._path / name for name in output_names(sources)]
        missing = [source.name for source, file in zip(sources, files, strict=True) if not file.is_file()]
        if missing:
            raise ConfigError(
                f"--mask {self._path}: there is no mask for {missing[0]}"
                f"{f' and {len(missing) - 1} others' if len(missing) > 1 else ''}; expected NAME.png for each image",
                code="E-mask-missing",
            )
        return lambda positions: np.concatenate([self._file(files[position], 1) for position in positions])

    def _file(self, file: Path, images: int) -> Float32:
        """The mask or masks of a file, for so many images."""
        try:
            if file.suffix.lower() == ".npy":
                return caller_masks(map_npy(file), images, self._size)
            height, width = self._size
            found = load_images([file], ImageSpec(channels=1, height=height, width=width)).images
            return caller_masks(np.broadcast_to(found, (images, *found.shape[1:])), images, self._size)
        except ArrayError as error:
            raise ImageError(
                f"--mask {file} cannot be read as an array of numbers ({error})", code="E-image-array"
            ) from None
        except ImageError as error:
            raise ImageError(f"--mask {file}: {error}", code=error.code) from None

"""``--mask``: masks of the caller's, one for all images or one for each, from files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigError, ImageError
from ..files.npz import ArrayError, map_npy
from ..images.frames import load_frame
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

    def of_frames(self, sources: Sequence[Source]) -> Callable[[int], Float32]:
        """What gives the mask ``[H, W]`` of the source at a position, as large as the file is.

        Raises:
            ConfigError: as `of`.
        """
        if not self._path.is_dir():
            return lambda position: self._frame(self._path)
        files = self._files(sources)
        return lambda position: self._frame(files[position])

    def of(self, sources: Sequence[Source]) -> Callable[[Sequence[int]], Float32]:
        """What gives the masks ``[B, 1, H, W]`` of the sources at some positions.

        Raises:
            ConfigError: a source has no mask in the folder; all are looked for now.
        """
        if not self._path.is_dir():
            masks = self._file(self._path, len(sources))
            return lambda positions: masks[list(positions)]
        files = self._files(sources)
        return lambda positions: np.concatenate([self._file(files[position], 1) for position in positions])

    def _files(self, sources: Sequence[Source]) -> list[Path]:
        files = [self._path / name for name in output_names(sources)]
        missing = [source.name for source, file in zip(sources, files, strict=True) if not file.is_file()]
        if missing:
            raise ConfigError(
                f"--mask {self._path}: there is no mask for {missing[0]}"
                f"{f' and {len(missing) - 1} others' if len(missing) > 1 else ''}; expected NAME.png for each image",
                code="E-mask-missing",
            )
        return files

    def _frame(self, file: Path) -> Float32:
        """The mask of a file."""
        try:
            return np.asarray(map_npy(file) if file.suffix.lower() == ".npy" else load_frame(file, 1)[1][0])
        except ArrayError as error:
            raise _unreadable(file, error) from None
        except ImageError as error:
            raise _named(file, error) from None

    def _file(self, file: Path, images: int) -> Float32:
        """The mask or masks of a file, for so many images."""
        try:
            if file.suffix.lower() == ".npy":
                return caller_masks(map_npy(file), images, self._size)
            height, width = self._size
            found = load_images([file], ImageSpec(channels=1, height=height, width=width)).images
            return caller_masks(np.broadcast_to(found, (images, *found.shape[1:])), images, self._size)
        except ArrayError as error:
            raise _unreadable(file, error) from None
        except ImageError as error:
            raise _named(file, error) from None


def _unreadable(file: Path, error: ArrayError) -> ImageError:
    return ImageError(f"--mask {file} cannot be read as an array of numbers ({error})", code="E-image-array")


def _named(file: Path, error: ImageError) -> ImageError:
    return ImageError(f"--mask {file}: {str(error).removeprefix(f'{file}: ')}", code=error.code)

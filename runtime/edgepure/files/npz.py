"""Arrays in ``.npy`` and ``.npz`` files, which may come from strangers.

Nothing is unpickled, and what an array says of itself is compared with the file before any memory is taken for it.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import words_of
from ..machine.memory import available_memory


class ArrayError(ValueError):
    """Why a file of arrays cannot be read, in a few words; who asked for it names the file."""


class Npz:
    """The arrays of an ``.npz`` file, each read when it is asked for. Use as a context manager.

    Raises:
        ArrayError: there is no such file, or it is damaged; so does every access.
    """

    def __init__(self, path: Path) -> None:
        _check_regular(path)
        with _in_words():
            self._archive = zipfile.ZipFile(path)
        members = self._archive.infolist()
        self._members = {info.filename[: -len(".npy")]: info for info in members if info.filename.endswith(".npy")}
        #: Their names.
        self.names = tuple(self._members)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of an array, which is not read. Raises ArrayError."""
        with _in_words(), self._archive.open(self._members[name]) as file:
            shape, _, dtype = read_header(file)
            return shape, dtype

    def __getitem__(self, name: str) -> NDArray[Any]:
        info = self._members[name]
        with _in_words():
            with self._archive.open(info) as file:
                shape, _, dtype = read_header(file)
                count = math.prod(shape) * dtype.itemsize
                held = info.file_size - file.tell()
            if count != held:
                raise ArrayError(f"the array {name!r} announces {count} bytes, but has {held}")
            free = available_memory()
            if free is not None and count > free:
                raise ArrayError(f"the array {name!r} needs {count / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free")
            with self._archive.open(info) as file:
                array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                return array

    def __enter__(self) -> Npz:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()


def is_npz(path: Path) -> bool:
    """Whether a file begins as an ``.npz`` does, whatever its name."""
    try:
        _check_regular(path)
        with open(path, "rb") as file:
            return file.read(2) == b"PK"
    except (ArrayError, OSError):
        return False


def map_npy(path: Path) -> NDArray[Any]:
    """The array of an ``.npy`` file, mapped and not read.

    Raises:
        ArrayError: there is no such file, or it holds no array of numbers.
    """
    _check_regular(path)
    with _in_words():
        with open(path, "rb") as file:
            read_header(file)
        return np.lib.format.open_memmap(path, mode="r")


def read_all(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file. Raises ArrayError as `Npz` does."""
    with Npz(path) as arrays:
        return {name: arrays[name] for name in arrays.names}


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape of an ``.npy`` array, whether its first axis is the innermost (Fortran), and its type. The data come next.

    Raises:
        ArrayError: another version of the format, or no numbers.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ArrayError(f"it has the array format {version}, expected 1.0 or 2.0")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject or dtype.itemsize == 0:
        raise ArrayError(f"it holds elements of the type {dtype}, expected numbers")
    return shape, fortran, dtype


def _check_regular(path: Path) -> None:
    if not path.exists():
        raise ArrayError("there is no such file; check the path")
    if not path.is_file():
        raise ArrayError("it is not a regular file")


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except ArrayError:
        raise
    except MemoryError:
        raise ArrayError("it does not fit into the memory of this machine") from None
    except Exception as error:  # zipfile, zlib, tokenize and numpy.lib.format raise many unrelated classes
        raise ArrayError(words_of(error)) from error

"""Images inside larger files, read one by one when their turn comes: WebDataset's tar files, and Parquet."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ConfigError, ImageError
from ..images.decode import suffixes


class Stored:
    """Where an image lies."""

    def read(self) -> Any:
        """The bytes of its file; an ImageError, which is not raised, if they cannot be read."""
        raise NotImplementedError


@dataclass(frozen=True)
class TarMember(Stored):
    """A file inside a tar file that is not compressed."""

    path: Path
    offset: int
    size: int

    def read(self) -> Any:
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            return _unreadable(error)


@dataclass(frozen=True)
class ParquetRow(Stored):
    """A row of a Parquet file."""

    path: Path
    column: str
    group: int
    row: int

    def read(self) -> Any:
        try:
            value = _column(self.path, self.column, self.group)[self.row].as_py()
        except (OSError, ValueError) as error:  # pyarrow's errors are these
            return _unreadable(error)
        found = value.get("bytes") if isinstance(value, dict) else value
        return found if isinstance(found, bytes) else _unreadable("there is no image in this row")


def stored_images(path: Path, column: str | None = None) -> Iterator[tuple[str, str, Stored]]:
    """Of each image: how it is called inside, what a file made of it is called, and where it lies.

    Raises:
        ImageError: the file cannot be read as what its name says.
        ConfigError: pyarrow is not installed.
    """
    yield from _in_parquet(path, column) if path.suffix.lower() == ".parquet" else _in_tar(path)


def _in_tar(path: Path) -> Iterator[tuple[str, str, Stored]]:
    count = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                if member.isfile() and name.suffix.lower() in suffixes():
                    count += 1
                    stem = "_".join(part for part in name.with_suffix("").parts if part not in ("/", ".."))
                    yield member.name, stem, TarMember(path, member.offset_data, member.size)
    except (OSError, tarfile.TarError) as error:
        raise _fault(f"it cannot be read as a tar file that is not compressed ({error})") from None
    if not count:
        raise _fault("the tar file holds no image")


def _in_parquet(path: Path, column: str | None) -> Iterator[tuple[str, str, Stored]]:
    parquet = _parquet()
    try:
        file = parquet.ParquetFile(path)
        names = [field.name for field in file.schema_arrow if _holds_files(field.type)]
        rows = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except (OSError, ValueError) as error:
        raise _fault(f"it cannot be read as a Parquet file ({error})") from None
    chosen = column or ("image" if "image" in names else names[0] if len(names) == 1 else None)
    if chosen is None or chosen not in names:
        wanted = f"one called {column!r}" if column else "one, or one called 'image'"
        raise _fault(f"columns with image files in it: {', '.join(names) or 'none'}; expected {wanted} (FILE:COLUMN)")
    number = 0
    for group, count in enumerate(rows):
        for row in range(count):
            yield str(number), f"{path.stem}_{number:05d}", ParquetRow(path, chosen, group, row)
            number += 1


def _holds_files(kind: Any) -> bool:
    """Whether a column has bytes, or `{bytes, path}` as Hugging Face's image columns have."""
    words = str(kind)
    return words in ("binary", "large_binary") or words.startswith("struct<bytes: binary")


@lru_cache(maxsize=2)
def _column(path: Path, column: str, group: int) -> Any:
    return _parquet().ParquetFile(path).read_row_group(group, columns=[column]).column(0)


def _parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(
            "Parquet files are read by pyarrow, which is not installed; install it: pip install pyarrow",
            code="E-extra-missing",
        ) from None
    return pyarrow.parquet


def _fault(words: str) -> ImageError:
    return ImageError(f"{words}; give tar files as WebDataset has them, or Parquet with images", code="E-image-stored")


def _unreadable(error: object) -> ImageError:
    return _fault(f"the image cannot be read from it ({error})")

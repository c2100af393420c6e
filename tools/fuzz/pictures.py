"""Images: files of every format, arrays, data sets."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

import edgepure
from edgepure.images import ImageSpec, load_images, load_labelled

from .kind import Kind
from .mutate import damaged

#: Format, modes and options of the files.
_FILES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PNG", "RGB", {}), ("PNG", "L", {}), ("PNG", "P", {}), ("PNG", "I;16", {}), ("PNG", "RGBA", {}), ("PNG", "1", {}),
    ("JPEG", "RGB", {}), ("JPEG", "L", {"progressive": True}), ("JPEG", "CMYK", {}), ("WEBP", "RGB", {}),
    ("WEBP", "RGB", {"lossless": True}), ("GIF", "P", {}), ("BMP", "RGB", {}), ("BMP", "P", {}), ("TIFF", "RGB", {}),
    ("TIFF", "I;16", {}), ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("PPM", "RGB", {}), ("PPM", "L", {}),
    ("TGA", "RGB", {"compression": "tga_rle"}), ("ICO", "RGB", {}), ("PCX", "RGB", {}), ("SGI", "RGB", {}),
    ("JPEG2000", "RGB", {}), ("AVIF", "RGB", {}), ("DDS", "RGB", {}), ("SPIDER", "F", {}),
)  # fmt: skip
SPEC = {1: ImageSpec(channels=1, height=16, width=16), 3: ImageSpec(channels=3, height=16, width=16)}


def image_files() -> list[bytes]:
    """One small file of each format that this Pillow writes."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    found = []
    for form, mode, options in _FILES:
        picture = Image.fromarray(pixels).convert("L" if mode == "I;16" else mode)
        if mode == "I;16":
            picture = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
        data = io.BytesIO()
        try:
            picture.save(data, form, **options)
        except (OSError, KeyError, ValueError):  # not in this Pillow
            continue
        found.append(data.getvalue())
    found += [
        b"P5\n16 16\n4095\n" + bytes(512),
        b"P2\n2 2\n9\n1 2 3 4\n",
        b"P3 1 1 255 # x\n 1 2 3",
        b"P1\n2 2\n0 1 1 0",
    ]
    return found


class Images(Kind):
    """Image files."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._files = image_files()

    def attempt(self, random: Random) -> None:
        data = damaged(random.choice(self._files), random, random.choice(self._files))
        how: Any = random.choice((False, False, True, "crop", "pad"))
        load_images(io.BytesIO(data) if random.random() < 0.2 else data, SPEC[random.choice((1, 3))], resize=how)


class Arrays(Kind):
    """Arrays of any shape, type and values."""

    _TYPES = tuple("u1 u1 f4 f4 f4 f2 f8 >f4 >f8 i1 u2 i8 ? c8 O S3 U2 M8[s] V4 f16".split())  # noqa: SIM905

    def attempt(self, random: Random) -> None:
        dtype = np.dtype(random.choice(self._TYPES))
        numbers = (0, 1, 2, 3, 15, 16, 16, 16, 17, 40)
        shape: Any = random.choice(((16, 16), (1, 16, 16), (16, 16, 1), (2, 1, 16, 16), (2, 16, 16, 1), None))
        if shape is None:
            shape = tuple(random.choice(numbers) for _ in range(random.randrange(6)))
        values = np.random.default_rng(random.getrandbits(32)).random(shape)
        with np.errstate(all="ignore"):
            array = np.asarray(values * random.choice((1, 1, 1, 255, 2, -1, 1e300)))
            if random.random() < 0.2 and array.size:
                array.flat[random.randrange(array.size)] = random.choice((np.nan, np.inf, -np.inf, 1.0000001, -1e-9))
            array = array.astype(dtype) if dtype.kind not in "MV" else np.zeros(shape, dtype)
        if random.random() < 0.3:
            array = random.choice((array.T, np.flip(array), np.asfortranarray(array), np.broadcast_to(array, shape)))
        if random.random() < 0.1:
            array = np.ma.masked_array(array, mask=random.random() < 0.5)
        given = [array] if random.random() < 0.2 else array
        how: Any = random.choice((False, True, "crop", "pad"))
        load_images(given, SPEC[random.choice((1, 3))], resize=how)


class DataSets(Kind):
    """``.npz`` files of images and labels."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        digits = edgepure.demo_images()
        self._kinds = []
        for save in (np.savez, np.savez_compressed):
            data = io.BytesIO()
            save(data, images=digits.clean[:3], labels=digits.labels[:3])
            self._kinds.append(data.getvalue())
        self._file = folder / "data.npz"
        self._file.touch()

    def attempt(self, random: Random) -> None:
        self._file.write_bytes(damaged(random.choice(self._kinds), random, self._kinds[0]))
        key = random.choice(("", "", ":images", ":labels", ":other"))
        load_labelled(f"{self._file}{key}", SPEC[1], "0123456789", resize=random.choice((False, True)))

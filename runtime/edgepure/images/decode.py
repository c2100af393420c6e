"""Image files and PIL images to float32 values in [0, 1], every bit of them.

What can be known from the header (format, size, frames) is checked before anything is decoded. Pillow decodes; it cuts
16-bit colour to 8 bits (`pixels`), and it rounds Netpbm files, which are read here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, words_of
from ..types import Float32
from .pixels import pixel_values
from .spec import ImageSpec

#: Formats of Pillow that are never decoded: some start other programs (EPS, WMF), some only name what they found.
REFUSED = frozenset({"BUFR", "EPS", "FPX", "GRIB", "HDF5", "MIC", "MPEG", "PDF", "WMF"})
#: Files with more pixels are refused before they are decoded: a small file can unpack to gigabytes.
MAX_PIXELS = 1 << 26

#: These are known by their first bytes, so that trying them costs nothing where it is another.
_USUAL = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 274  # a tag of EXIF


@cache
def formats() -> tuple[str, ...]:
    """The formats that are decoded: all that Pillow and its plugins for HEIC and AVIF can read, `REFUSED` aside. Pillow
    tries them in this order, so the usual ones come first."""
    with suppress(ImportError):
        __import__("pillow_heif").register_heif_opener()
    with suppress(ImportError):
        __import__("pillow_avif")
    Image.init()
    return tuple(sorted(set(Image.OPEN) - REFUSED, key=lambda name: (name not in _USUAL, name)))


@cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of `formats`, in lower case."""
    known = formats()
    return tuple(sorted(s for s, name in Image.registered_extensions().items() if name in known))


def read_picture(file: Path | IO[bytes], spec: ImageSpec, resize: bool) -> Float32:
    """One image file as float32 ``[C, H, W]`` in [0, 1]; of the size of ``spec`` unless ``resize``.

    Raises:
        ImageError: it is no image, has another size, more than one frame, or is damaged. The image is not named.
    """
    if isinstance(file, Path):
        if not file.exists():
            raise ImageError("there is no such file; check the path", code="E-image-missing")
        if not file.is_file():
            raise ImageError("it is not a regular file, expected an image file", code="E-image-irregular")
    try:
        with open(file, "rb") if isinstance(file, Path) else file as stream:
            head = stream.read(32)
            stream.seek(0)
            if size := _webp_size(head):  # Pillow takes memory for the whole canvas when it opens one
                _check_size(*size, spec, resize)
            if re.match(rb"P[2356]\s", head):
                return _planes(_netpbm(stream, spec, resize), spec)
            with Image.open(stream, formats=formats()) as picture:
                return decode(picture, spec, resize)
    except ImageError:
        raise
    except PermissionError:
        raise ImageError("permission denied; make the file readable", code="E-image-permission") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"it unpacks to more than {MAX_PIXELS} pixels, which is refused; shrink it first", code="E-image-pixels"
        ) from None
    except Exception as error:  # decoders raise many unrelated classes on damaged files
        reason = _unknown(file) if isinstance(error, UnidentifiedImageError) else str(error) or repr(error)
        raise ImageError(
            f"it cannot be read as an image ({reason}); expected a whole PNG, JPEG, WebP, TIFF, AVIF or other file "
            "that Pillow reads",
            code="E-image-unreadable",
        ) from error


def decode(picture: Image.Image, spec: ImageSpec, resize: bool) -> Float32:
    """A PIL image as `read_picture` gives it: checked, decoded, turned upright and converted. Raises ImageError."""
    c, h, w = spec.shape
    if c not in (1, 3):
        raise ImageError(
            f"this bundle takes {c} channels, and files are gray or RGB; give arrays [{c}, {h}, {w}]",
            code="E-image-channels",
        )
    _check_size(picture.width, picture.height, spec, resize)
    try:
        frames = 1 if picture.format == "MPO" else getattr(picture, "n_frames", 1)  # MPO: a JPEG with a preview
        if frames > 1:
            raise ImageError(f"it has {frames} frames, expected one; give the frames one by one", code="E-image-frames")
        values = pixel_values(picture, c)
        picture.load()  # TIFF turns itself, and forgets its orientation
        values = _turned(values, picture.getexif().get(_ORIENTATION))
    except ImageError:
        raise
    except Exception as error:  # decoders raise many unrelated classes on damaged files
        raise ImageError(
            f"it cannot be decoded ({words_of(error)}); the file is damaged or cut off; copy it again",
            code="E-image-decode",
        ) from error
    if not resize and values.shape[:2] != (h, w):
        raise _wrong_size(values.shape[1], values.shape[0], spec)
    return _planes(values, spec)


def _check_size(width: int, height: int, spec: ImageSpec, resize: bool) -> None:
    """What is refused by its size alone; images may still be turned on their side."""
    pixels = width * height
    if pixels > MAX_PIXELS:
        raise ImageError(
            f"it has {pixels} pixels, at most {MAX_PIXELS} are allowed; shrink it first", code="E-image-pixels"
        )
    if pixels == 0:
        raise ImageError(
            f"it is {width} x {height} pixels, so it is empty; give an image with pixels", code="E-image-empty"
        )
    if not resize and sorted((width, height)) != sorted((spec.width, spec.height)):
        raise _wrong_size(width, height, spec)


def _wrong_size(width: int, height: int, spec: ImageSpec) -> ImageError:
    return ImageError(
        f"it is {width} x {height} pixels (width x height), expected {spec.width} x {spec.height}; resize it "
        "(`edgepure classify` and others do it with --resize, Python with resize=True)",
        code="E-image-size",
    )


def _unknown(file: Path | IO[bytes]) -> str:
    suffix = file.suffix.lower() if isinstance(file, Path) else ""
    if suffix in (".heic", ".heif", ".hif"):
        return "HEIC needs a plugin: pip install pillow-heif"
    if suffix in (".avif", ".avifs"):
        return "AVIF needs Pillow 11.3, or a plugin: pip install pillow-avif-plugin"
    return "its format is not known"


def _planes(values: Float32, spec: ImageSpec) -> Float32:
    """``[H, W]`` or ``[H, W, 3]`` to ``[C, H, W]``; gray becomes RGB by being repeated."""
    planes = values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return np.ascontiguousarray(np.repeat(planes, 3, axis=0) if len(planes) < spec.channels else planes)


def _turned(values: Float32, orientation: Any) -> Float32:
    """Upright, as EXIF's orientation (2 to 8) asks for."""
    turns: dict[Any, Callable[[Float32], Float32]] = {
        2: lambda v: v[:, ::-1],
        3: lambda v: v[::-1, ::-1],
        4: lambda v: v[::-1],
        5: lambda v: v.swapaxes(0, 1),
        6: lambda v: v.swapaxes(0, 1)[:, ::-1],
        7: lambda v: v[::-1, ::-1].swapaxes(0, 1),
        8: lambda v: v.swapaxes(0, 1)[::-1],
    }
    return turns[orientation](values) if orientation in turns else values


# ---- headers ---------------------------------------------------------------------------------------------------------


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height of a WebP file by its first 30 bytes; None for other files."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", head[26:30])
        return width & 0x3FFF, height & 0x3FFF
    return None


def _netpbm(stream: IO[bytes], spec: ImageSpec, resize: bool) -> Float32:
    """The values of a PGM or PPM file, ``[H, W]`` or ``[H, W, 3]``, whatever its largest value is."""
    kind = stream.read(2)
    numbers: list[int] = []
    token = b""
    while len(numbers) < 3:
        byte = stream.read(1)
        if byte == b"#":
            stream.readline()
        if byte.isdigit() and len(token) < 10:
            token += byte
        elif not byte or not (byte.isspace() or byte == b"#"):
            raise ImageError("its header is damaged; copy it again", code="E-image-header")
        elif token:
            numbers.append(int(token))
            token = b""
    width, height, most = numbers
    _check_size(width, height, spec, resize)
    if not 0 < most < 65536:
        raise ImageError(f"its largest value is {most}, expected 1 to 65535", code="E-image-depth")
    colours = 3 if kind in (b"P3", b"P6") else 1
    count = width * height * colours
    if kind in (b"P2", b"P3"):
        text = re.sub(rb"#[^\n]*", b"", stream.read(8 * count + 65536)).split()[:count]
        values = np.array([int(word) for word in text], np.int64)
    else:
        size = 2 if most > 255 else 1
        data = stream.read(count * size)
        values = np.frombuffer(data[: len(data) // size * size], ">u2" if size == 2 else np.uint8).astype(np.int64)
    if len(values) < count or values.max() > most or values.min() < 0:
        raise ImageError("it is cut off or damaged; copy it again", code="E-image-cut-off")
    shaped = (values / most).reshape((height, width, 3) if colours == 3 else (height, width))
    if colours == 3 and spec.channels == 1:
        shaped = shaped @ np.array([0.299, 0.587, 0.114])
    return shaped.astype(np.float32)

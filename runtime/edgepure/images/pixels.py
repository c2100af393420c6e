"""The pixels of a picture that Pillow has opened, every bit of them.

Pillow cuts 16-bit colour to 8 bits, so the low bytes are read in a second pass.
"""

from __future__ import annotations

import re
import warnings
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import ImageError
from ..types import Float32

_PHOTOMETRIC = 262  # a tag of TIFF
#: 16-bit raw modes, and the raw mode that gives the low bytes of the same data.
_LOW_BYTES = {
    "RGB;16B": "RGB;16L", "RGB;16L": "RGB;16B", "RGB;16N": "RGB;16B",
    "RGBA;16B": "RGBA;16L", "RGBA;16L": "RGBA;16B", "RGBA;16N": "RGBA;16B",
}  # fmt: skip


def pixel_values(picture: Image.Image, channels: int) -> Float32:
    """``[H, W]`` for one channel or ``[H, W, 3]`` for three, float32 in [0, 1]."""
    raw = _raw_mode(picture)
    # before Pillow 11, 16-bit gray PNGs have the 32-bit mode
    if picture.mode.startswith("I;16") or (picture.mode == "I" and picture.format in ("PNG", "PPM")):
        words = np.asarray(picture)
        _refuse_transparent(words == picture.info.get("transparency"))
        gray = words.astype(np.float64) / (4095.0 if raw == "I;12" else 65535.0)
        white_is_zero = getattr(picture, "tag_v2", {}).get(_PHOTOMETRIC) == 0
        return (1.0 - gray if white_is_zero else gray).astype(np.float32)
    if raw == "LA;16B":
        four = _unpacked(picture, "RGBA", "RGBA")  # two words of two bytes, the high one first
        _refuse_transparent((four[:, :, 2:] < 255).any(axis=2))
        return ((four[:, :, 0] * 256 + four[:, :, 1]) / 65535.0).astype(np.float32)
    if raw in _LOW_BYTES and picture.mode in ("RGB", "RGBA") and picture.format in ("PNG", "TIFF"):
        words = _unpacked(picture, picture.mode, raw) * 256 + _unpacked(picture, picture.mode, _LOW_BYTES[raw])
        if picture.mode == "RGBA":
            _refuse_transparent(words[:, :, 3] < 65535)
        elif "transparency" in picture.info:
            _refuse_transparent((words == picture.info["transparency"]).all(axis=2))
        rgb = words[:, :, :3] / 65535.0
        return (rgb if channels == 3 else rgb @ np.array([0.299, 0.587, 0.114])).astype(np.float32)
    if picture.mode in ("I", "F"):
        raise ImageError(
            f"its pixels are 32-bit (mode {picture.mode}) with no known range, expected 8 or 16 bits; "
            "scale it to [0, 1] and give it as a float array",
            code="E-image-depth",
        )
    if re.search(r";1[0-6]", raw):
        raise ImageError(
            f"it has more than 8 bits a colour in an order ({raw}) of which only 8 can be read; save it as a 16-bit "
            "PNG, or give it as a float array",
            code="E-image-depth",
        )
    return _values_8_bit(picture, channels)


def _raw_mode(picture: Image.Image) -> str:
    """How the pixels of an image lie in its file; empty once it is decoded."""
    tile = getattr(picture, "tile", None)
    args = tile[0][3] if tile else ""
    if tile and str(tile[0][0]).upper().startswith("SGI") and (tile[0][0] == "SGI16" or args[-1] == 2):
        return "SGI;16"
    return str(args[0] if isinstance(args, tuple) and args else args)


def _unpacked(picture: Image.Image, mode: str, raw: str) -> NDArray[np.int64]:
    """The pixels of an image's file, unpacked in another way: for bytes that Pillow leaves out."""
    stream = cast(Any, picture).fp
    place = stream.tell()
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said before
        other: Any = Image.open(stream, formats=[str(picture.format)])
    other._mode = mode
    other.tile = [
        type(t)(*t[:3], (raw, *t[3][1:]) if isinstance(t[3], tuple) else raw)
        if hasattr(t, "_fields")
        else (*t[:3], (raw, *t[3][1:]) if isinstance(t[3], tuple) else raw)
        for t in other.tile
    ]
    found = np.asarray(other).astype(np.int64)
    stream.seek(place)
    return found


def _values_8_bit(picture: Image.Image, channels: int) -> Float32:
    if picture.mode == "La":  # premultiplied
        picture = picture.convert("LA")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        lowest, _ = cast("tuple[int, int]", rgba.getchannel("A").getextrema())
        _refuse_transparent(lowest < 255)
        picture = rgba.convert("RGB")
    if picture.mode in ("LAB", "HSV"):
        picture = picture.convert("RGB")
    pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
    values: Float32 = pixels.astype(np.float32) / np.float32(255.0)
    return values


def _refuse_transparent(where: Any) -> None:
    if np.any(where):
        raise ImageError(
            "it has transparent pixels; put it on a background of your choice first", code="E-image-transparent"
        )

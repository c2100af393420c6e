"""No bit of a picture is lost, and none is decoded before its size is known to be right."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from image_cases import GRAY, RANDOM, RGB, RGB_PIXELS, RGB_VALUES, save
from PIL import Image

from edgepure.images.load import load_images
from edgepure.images.spec import ImageSpec


def png16(colour: int, rows: np.ndarray) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def words(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 65536, shape).astype(np.uint16)


def test_sixteen_bit_colour() -> None:
    rgb = words(4, 6, 3)
    np.testing.assert_allclose(load_images(png16(2, rgb), RGB).images[0], rgb.transpose(2, 0, 1) / 65535, atol=1e-7)
    luma = (rgb / 65535) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(load_images(png16(2, rgb), GRAY).images[0, 0], luma, atol=1e-6)
    opaque = np.concatenate([rgb, np.full((4, 6, 1), 65535, np.uint16)], axis=2)
    np.testing.assert_allclose(load_images(png16(6, opaque), RGB).images[0], rgb.transpose(2, 0, 1) / 65535, atol=1e-7)
    with Image.open(io.BytesIO(png16(2, rgb))) as picture:
        np.testing.assert_allclose(load_images(picture, RGB).images[0], rgb.transpose(2, 0, 1) / 65535, atol=1e-7)


def test_sixteen_bit_gray_with_alpha() -> None:
    gray = words(4, 6)
    opaque = np.stack([gray, np.full_like(gray, 65535)], axis=2)
    np.testing.assert_allclose(load_images(png16(4, opaque), GRAY).images[0, 0], gray / 65535, atol=1e-7)
    opaque[1, 2, 1] = 65534
    with raises_code("E-image-transparent"):
        load_images(png16(4, opaque), GRAY)


@pytest.mark.parametrize("most", [1, 100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("colours", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_netpbm_of_every_depth(most: int, colours: int, plain: bool) -> None:
    values = RANDOM.integers(0, most + 1, (4, 6, colours))
    kind = {(1, False): b"P5", (3, False): b"P6", (1, True): b"P2", (3, True): b"P3"}[colours, plain]
    if plain:
        data = b" ".join(b"%d" % v for v in values.ravel())
    else:
        data = values.astype(">u2" if most > 255 else np.uint8).tobytes()
    file = b"%s\n# made by a camera\n6 4\n%d\n%s" % (kind, most, data)
    found = load_images(file, GRAY if colours == 1 else RGB).images[0]
    np.testing.assert_allclose(found, values.transpose(2, 0, 1) / most, atol=1e-7)
    with raises_code("E-image-cut-off"):
        load_images(file[: -len(data) // 2], GRAY if colours == 1 else RGB)


def test_bits_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB_PIXELS)
    picture.save(tmp_path / "x.sgi", bpc=2)
    with raises_code("E-image-depth"):
        load_images(tmp_path / "x.sgi", RGB)


@pytest.mark.parametrize("mode", ["LAB", "La", "RGBa", "HSV", "CMYK"])
@pytest.mark.parametrize("spec", [GRAY, RGB])
def test_modes_of_pillow(mode: str, spec: ImageSpec) -> None:
    picture = Image.new("RGB", (6, 4), (90, 90, 90))
    through = {"La": "LA", "RGBa": "RGBA"}.get(mode)
    picture = (picture.convert(through) if through else picture).convert(mode)
    np.testing.assert_allclose(load_images(picture, spec).images, 90 / 255, atol=3 / 255)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_whatever_holds_the_bytes_of_a_file(tmp_path: Path, kind: Any) -> None:
    path = save(RGB_PIXELS, tmp_path / "x.png")
    item = kind(path.read_bytes())
    np.testing.assert_array_equal(load_images(item, RGB).images[0], RGB_VALUES)
    items = [kind(path.read_bytes()), RGB_PIXELS]
    assert load_images(items, RGB, on_error="collect").indices == [0, 1]


def test_open_files(tmp_path: Path) -> None:
    path = save(RGB_PIXELS, tmp_path / "x.png")
    with open(path, "rb") as file:
        np.testing.assert_array_equal(load_images(file, RGB).images[0], RGB_VALUES)
        assert not file.closed
    for closed, code in ((file, "E-image-read"), (io.StringIO("text"), "E-image-text-mode")):
        with raises_code(code):
            load_images(closed, RGB)


def test_masked_arrays_have_no_values() -> None:
    whole = np.ma.MaskedArray(RGB_VALUES, mask=False)
    np.testing.assert_array_equal(load_images(whole, RGB).images[0], RGB_VALUES)
    whole[0, 1, 2] = np.ma.masked
    with raises_code("E-image-masked"):
        load_images(whole, RGB)


def test_blue_green_red() -> None:
    found = load_images([RGB_PIXELS[:, :, ::-1], RGB_VALUES[::-1]], RGB, order="bgr")
    np.testing.assert_array_equal(found.images, [RGB_VALUES, RGB_VALUES])


def test_crop_pad_and_squash() -> None:
    wide = np.zeros((1, 8, 24), np.float32)
    wide[:, :, 12:] = 1.0
    crop, pad, squash = (load_images(wide, GRAY, resize=how).images[0, 0] for how in ("crop", "pad", "squash"))
    np.testing.assert_array_equal(crop[:, [0, 5]], np.tile([0.0, 1.0], (4, 1)))
    assert pad.shape == crop.shape == squash.shape == (4, 6)
    assert not pad[[0, 3]].any() and pad[1:3, 4:].all(), "black above and below, all of it in the middle"
    np.testing.assert_array_equal(squash, load_images(wide, GRAY, resize=True).images[0, 0])
    assert squash[:, 4:].all() and not squash[:, :2].any()


@pytest.mark.parametrize("options", [{"resize": "stretch"}, {"resize": 1.0}, {"order": "rbg"}, {"on_error": None}])
def test_unknown_options(options: dict[str, Any]) -> None:
    with raises_code("E-config-option"):
        load_images(RGB_VALUES, RGB, **options)


@pytest.mark.parametrize("name", ["webp", "png", "gif", "jpeg", "tiff"])
def test_another_size_is_refused_undecoded(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "webp" else {}
    Image.new("RGB", (6000, 6000)).save(tmp_path / "big", name, **options)
    code = f"""
import resource
from edgepure import ImageError
from edgepure.images import ImageSpec, load_images
data = open({str(tmp_path / "big")!r}, "rb").read()
spec = ImageSpec(channels=1, height=16, width=16)
try: load_images(b"x", spec)
except ImageError: pass
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: load_images(data, spec)
except ImageError as error: print(error.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    said, grown = done.stdout.split()
    assert said == "E-image-size" and int(grown) < 20_000, "kilobytes; the pixels would take 35 MB or more"

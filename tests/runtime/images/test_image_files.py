"""Image files in and out: formats, bit depths, orientation, transparency, damage, and saving."""

from __future__ import annotations

import errno
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from image_cases import GRAY, GRAY_PIXELS, GRAY_VALUES, RANDOM, RGB, RGB_PIXELS, RGB_VALUES, refusal, save
from PIL import Image, ImageFile

from edgepure.errors import ImageError
from edgepure.images.decode import formats
from edgepure.images.load import load_images
from edgepure.images.save import save_image
from edgepure.images.spec import ImageSpec

# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_are_converted_to_the_channels_of_the_bundle(tmp_path: Path) -> None:
    gray, color = save(GRAY_PIXELS, tmp_path / "gray.png"), save(RGB_PIXELS, tmp_path / "color.png")
    np.testing.assert_array_equal(load_images(gray, RGB).images[0], np.repeat(GRAY_VALUES, 3, axis=0))
    luma = (RGB_PIXELS @ np.array([0.299, 0.587, 0.114])) / 255
    np.testing.assert_allclose(load_images(color, GRAY).images[0, 0], luma, atol=0.6 / 255)


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.ppm", "x.tiff", "x.webp"])
def test_lossless_formats_keep_every_pixel(tmp_path: Path, name: str) -> None:
    path = save(RGB_PIXELS, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(load_images(path, RGB).images[0], RGB_VALUES)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBA"])
def test_pil_modes_are_converted(mode: str) -> None:
    colors = np.zeros((4, 6, 3), np.uint8)
    colors[:2] = 255
    picture = Image.fromarray(colors).convert(mode)
    np.testing.assert_allclose(load_images(picture, RGB).images[0], colors.transpose(2, 0, 1) / 255, atol=1e-6)


def test_photo_with_a_preview_counts_as_one_image(tmp_path: Path) -> None:
    photo = Image.fromarray(np.full((4, 6, 3), 90, np.uint8))
    photo.save(tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[photo.resize((3, 2))])
    assert getattr(Image.open(tmp_path / "photo.jpg"), "n_frames", 1) == 2
    np.testing.assert_allclose(load_images(tmp_path / "photo.jpg", RGB).images, 90 / 255, atol=2 / 255)


def test_sixteen_bit_gray_keeps_its_precision(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 65536, (4, 6), dtype=np.uint16)
    path = save(pixels, tmp_path / "deep.png")
    expected = pixels.astype(np.float32) / np.float32(65535)
    np.testing.assert_array_equal(load_images(path, GRAY).images[0, 0], expected)
    np.testing.assert_array_equal(load_images(path, RGB).images[0, 2], expected)
    np.testing.assert_array_equal(load_images(Image.fromarray(pixels), GRAY).images[0, 0], expected)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_known_range_are_refused(mode: str) -> None:
    message = refusal(Image.fromarray(GRAY_PIXELS).convert(mode), GRAY)
    assert message.startswith(f"image 0: its pixels are 32-bit (mode {mode}) with no known range")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a[::-1], 1),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(undo[orientation](RGB_PIXELS))
    path = save(stored, tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_images(path, RGB).images[0], RGB_VALUES)


def test_opaque_alpha_is_dropped_and_transparency_is_refused(tmp_path: Path) -> None:
    alpha = np.full((4, 6, 1), 255, np.uint8)
    path = save(np.concatenate([RGB_PIXELS, alpha], axis=2), tmp_path / "alpha.png")
    np.testing.assert_array_equal(load_images(path, RGB).images[0], RGB_VALUES)
    alpha[1, 2] = 254
    save(np.concatenate([RGB_PIXELS, alpha], axis=2), path)
    assert "it has transparent pixels; put it on a background" in refusal(path)
    palette = Image.fromarray(RGB_PIXELS).quantize(4)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert "it has transparent pixels" in refusal(tmp_path / "palette.png")


def test_animation_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert "it has 3 frames, expected one; give the frames one by one" in refusal(tmp_path / "film.gif")


def test_missing_and_strange_files(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.png") == f"{tmp_path / 'no.png'}: there is no such file; check the path"
    (tmp_path / "text.png").write_text("not an image")
    message = refusal(tmp_path / "text.png")
    assert "it cannot be read as an image (its format is not known); expected a whole PNG, JPEG," in message
    (tmp_path / "empty.png").touch()
    assert "it cannot be read as an image" in refusal(tmp_path / "empty.png")
    (tmp_path / "folder").mkdir()
    assert "the folder holds no image, nor do its sub-folders" in refusal(tmp_path / "folder")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "it is not a regular file" in refusal(tmp_path / "pipe.png")


def test_formats_that_run_programs_are_not_opened(tmp_path: Path) -> None:
    assert "EPS" not in formats()
    Image.fromarray(RGB_PIXELS).save(tmp_path / "x.png", format="EPS")
    assert "its format is not known" in refusal(tmp_path / "x.png")


@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.bmp", "x.gif", "x.ppm", "x.tiff", "x.webp"])
def test_cut_off_files_are_refused(tmp_path: Path, name: str) -> None:
    spec = ImageSpec(channels=3, height=64, width=64)
    path = save(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8), tmp_path / name)
    load_images(path, spec)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    message = refusal(path, spec)
    assert message.startswith((f"{path}: it cannot be ", f"{path}: it is cut off"))
    assert load_images([path, RGB_PIXELS], RGB, on_error="collect").indices == [1]


@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), name=st.sampled_from(["p.png", "j.jpg"]))
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, where: float, byte: int, name: str
) -> None:
    path = save(RGB_PIXELS, tmp_path_factory.getbasetemp() / name)
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] = byte
    path.write_bytes(bytes(data))
    loaded = load_images(path, RGB, on_error="collect")
    assert len(loaded) + len(loaded.failures) == 1


def test_small_file_that_unpacks_to_gigabytes_is_refused_undecoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    for side, says in ((9000, "it has 81000000 pixels, at most"), (60000, "it unpacks to more than")):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        (tmp_path / "bomb.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
        )
        assert says in refusal(tmp_path / "bomb.png", resize=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA"])
def test_another_size_is_refused_by_the_header_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decoded of an image that nobody will look at."""
    data = io.BytesIO()
    try:
        Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)).save(data, kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    decoded: list[Any] = []
    for opened in {type(Image.open(io.BytesIO(data.getvalue()))), ImageFile.ImageFile}:
        monkeypatch.setattr(opened, "load", decoded.append)
    with raises_code("E-image-size"):
        load_images(data.getvalue(), RGB)
    assert not decoded


def test_files_need_a_gray_or_rgb_bundle(tmp_path: Path) -> None:
    spec = ImageSpec(channels=2, height=4, width=6)
    path = save(RGB_PIXELS, tmp_path / "x.png")
    assert "this bundle takes 2 channels, and files are gray or RGB; give arrays [2, 4, 6]" in refusal(path, spec)
    assert load_images(np.zeros((2, 4, 6), np.float32), spec).images.shape == (1, 2, 4, 6)


# ---- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (RGB_VALUES, RGB_PIXELS),
        (RGB_PIXELS, RGB_PIXELS),
        (GRAY_VALUES, GRAY_PIXELS),
        (GRAY_VALUES[0], GRAY_PIXELS),
        (GRAY_PIXELS > 100, np.where(GRAY_PIXELS > 100, 255, 0)),
        (np.full((1, 2, 2), 0.5 / 255 + 1e-6), np.ones((2, 2))),
    ],
)
def test_saved_pixels(tmp_path: Path, image: np.ndarray, expected: np.ndarray) -> None:
    save_image(image, tmp_path / "x.PNG")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.PNG")), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["x.PNG"]


@pytest.mark.parametrize(
    ("image", "says"),
    [
        (np.zeros((2, 4, 6), np.float32), "cannot save an image of 2 channels"),
        (np.zeros((4, 6, 4), np.uint8), "cannot save an image of 4 channels"),
        (np.full((3, 4, 6), 1.5), "cannot save the image: the values range from 1.5 to 1.5, expected [0, 1]"),
        (np.full((3, 4, 6), np.nan), "cannot save the image: 72 of 72 pixels are NaN"),
        (np.zeros((3, 4, 6), np.int32), "cannot save the image: the array is int32"),
        (np.zeros((1, 3, 4, 6)), "cannot save an array of shape [1, 3, 4, 6], expected one image"),
        (np.zeros((3, 0, 6)), "cannot save an array of shape [3, 0, 6]"),
    ],
)
def test_wrong_images_are_not_saved(tmp_path: Path, image: np.ndarray, says: str) -> None:
    with pytest.raises(ImageError) as caught:
        save_image(image, tmp_path / "x.png")
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_lossy_formats_are_refused(tmp_path: Path) -> None:
    with raises_code("E-image-save-name"):
        save_image(RGB_VALUES, tmp_path / "x.jpg")


def test_full_disk_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(GRAY_PIXELS, tmp_path / "x.png")
    before = path.read_bytes()

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with raises_code("E-disk-full"):
        save_image(RGB_VALUES, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]

"""Images in and out: every accepted form gives the same pixels, every other one its own sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from image_cases import GRAY, GRAY_PIXELS, GRAY_VALUES, RANDOM, RGB, RGB_PIXELS, RGB_VALUES, refusal, save
from PIL import Image, features

from edgepure.errors import ImageError
from edgepure.images.load import load_images
from edgepure.images.save import save_image
from edgepure.images.spec import ImageSpec

# ---- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs",
    [
        RGB_PIXELS,
        RGB_PIXELS[None],
        RGB_VALUES,
        RGB_VALUES[None],
        RGB_VALUES.astype(np.float64),
        RGB_VALUES.astype(">f4"),
        np.asfortranarray(RGB_PIXELS),
        RGB_PIXELS[::-1][::-1],
        Image.fromarray(RGB_PIXELS),
        [RGB_PIXELS],
        (RGB_VALUES,),
        [RGB_PIXELS[None]],
        iter([RGB_PIXELS]),
    ],
)
def test_every_form_of_an_rgb_image_gives_the_same_pixels(inputs: Any) -> None:
    loaded = load_images(inputs, RGB)
    assert loaded.images.dtype == np.float32
    assert loaded.images.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(loaded.images, RGB_VALUES[None])
    assert loaded.failures == []
    assert len(loaded) == 1


@pytest.mark.parametrize(
    "inputs",
    [
        GRAY_PIXELS,
        GRAY_PIXELS[:, :, None],
        GRAY_PIXELS[None, :, :, None],
        GRAY_VALUES[0],
        GRAY_VALUES,
        GRAY_VALUES[None],
        Image.fromarray(GRAY_PIXELS),
        [Image.fromarray(np.stack([GRAY_PIXELS] * 3, axis=2))],
    ],
)
def test_every_form_of_a_gray_image_gives_the_same_pixels(inputs: Any) -> None:
    np.testing.assert_array_equal(load_images(inputs, GRAY).images, GRAY_VALUES[None])


def test_half_precision_is_taken() -> None:
    half = RGB_VALUES.astype(np.float16)
    np.testing.assert_array_equal(load_images(half, RGB).images[0], half.astype(np.float32))


def test_what_only_has_an_array_interface_is_taken() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            return RGB_VALUES

    np.testing.assert_array_equal(load_images([Tensor()], RGB).images[0], RGB_VALUES)


def test_mixed_list_keeps_order_and_names(tmp_path: Path) -> None:
    path = save(RGB_PIXELS, tmp_path / "seven.png")
    inputs = [RGB_PIXELS, str(path), np.stack([RGB_VALUES, 1 - RGB_VALUES]), path, Image.fromarray(RGB_PIXELS)]
    loaded = load_images(inputs, RGB)
    assert loaded.names == ["0", str(path), "2[0]", "2[1]", str(path), "4"]
    assert loaded.indices == [0, 1, 2, 3, 4, 5]
    expected = np.stack([RGB_VALUES] * 6)
    expected[3] = 1 - RGB_VALUES
    np.testing.assert_allclose(loaded.images, expected, atol=1e-7)


def test_single_inputs_are_named_by_position_or_path(tmp_path: Path) -> None:
    path = save(RGB_PIXELS, tmp_path / "a.png")
    assert load_images(RGB_PIXELS, RGB).names == ["0"]
    assert load_images(np.stack([RGB_PIXELS] * 2), RGB).names == ["0", "1"]
    assert load_images(path, RGB).names == [str(path)]


def test_folder_gives_its_images_sorted(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "c.bmp"):
        save(RGB_PIXELS, tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").touch()
    with pytest.warns(UserWarning, match=r"left out, no images by their names: notes\.txt"):
        loaded = load_images(tmp_path, RGB)
    assert [Path(n).name for n in loaded.names] == ["a.PNG", "b.png", "c.bmp"]
    (tmp_path / "notes.txt").unlink()
    assert len(load_images([tmp_path, RGB_PIXELS], RGB)) == 4


def test_folder_gives_every_image_in_it_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "sub" / "deeper").mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.png").touch()
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    save(RGB_PIXELS, tmp_path / "a.avif", quality=100) if features.check("avif") else save(
        RGB_PIXELS, tmp_path / "a.tga"
    )
    save(RGB_PIXELS, tmp_path / "b.jp2" if features.check("jpg_2000") else tmp_path / "b.bmp")
    save(RGB_PIXELS, tmp_path / "sub" / "c.png").rename(tmp_path / "sub" / "c")
    save(RGB_PIXELS, tmp_path / "sub" / "deeper" / "d.qoi" if "QOI" in Image.SAVE else tmp_path / "sub/deeper/d.tga")
    assert [Path(name).stem for name in load_images(tmp_path, RGB).names] == ["a", "b", "c", "d"]
    (tmp_path / "e.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    found = load_images(tmp_path, RGB, on_error="collect")
    assert len(found) == 4 and "pip install pillow-heif" in found.failures[0].reason


def test_input_arrays_are_not_changed_or_shared() -> None:
    image = RGB_VALUES.copy()
    loaded = load_images(image, RGB)
    loaded.images[:] = 0
    np.testing.assert_array_equal(image, RGB_VALUES)


@given(
    hnp.arrays(np.float32, (3, 4, 6), elements=st.floats(0, 1, width=32)),
    st.sampled_from([np.float32, np.float64]),
)
def test_floats_in_range_pass_unchanged(image: np.ndarray, dtype: Any) -> None:
    np.testing.assert_array_equal(load_images(image.astype(dtype), RGB).images[0], image)


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=5)))
def test_bytes_survive_loading_and_saving(tmp_path_factory: pytest.TempPathFactory, pixels: np.ndarray) -> None:
    height, width, channels = pixels.shape
    spec = ImageSpec(channels=channels, height=height, width=width)
    image = load_images(pixels, spec).images[0]
    np.testing.assert_array_equal(np.round(image * 255).astype(np.uint8).transpose(1, 2, 0), pixels)
    if channels in (1, 3):
        path = tmp_path_factory.getbasetemp() / "round_trip.png"
        save_image(image, path)
        np.testing.assert_array_equal(load_images(path, spec).images[0], image)


@given(
    hnp.arrays(
        st.sampled_from([np.uint8, np.int64, np.float32, np.float64, np.bool_, np.complex64]),
        hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=6),
    )
)
def test_any_array_is_loaded_or_refused_in_one_sentence(array: np.ndarray) -> None:
    message, images = "", np.zeros((1, *GRAY.shape), np.float32)
    try:
        images = load_images(array, GRAY).images
    except ImageError as error:
        message = str(error)
    assert "\n" not in message
    assert images.shape[1:] == GRAY.shape
    assert images.dtype == np.float32
    assert 0.0 <= images.min() <= images.max() <= 1.0


# ---- size, channels, dtype, range ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (
            np.zeros((5, 6, 3), np.uint8),
            "image 0: the uint8 array has shape [5, 6, 3], expected uint8 [4, 6, 3] or float [3, 4, 6] in [0, 1]; "
            "resize the image, or ask for it (resize=True, --resize)",
        ),
        (np.zeros((3, 5, 6)), "the float64 array has shape [3, 5, 6], expected"),
        (np.zeros((3, 4, 6), np.uint8), "channels last: use .transpose(1, 2, 0)"),
        (np.zeros((4, 6, 3), np.float32), "channels first: use .transpose(2, 0, 1)"),
        (np.zeros((4, 6, 4), np.uint8), "this bundle takes 3 channels: convert the image"),
        (np.zeros((4, 6), np.uint8), "this bundle takes 3 channels: convert the image"),
        (np.zeros((4, 6, 3), np.int64), "the array is int64, expected"),
        (np.zeros((4, 6, 3), bool), "the array is bool, expected"),
        (np.zeros((4, 6, 3), object), "the array is object, expected"),
        (np.zeros((4, 6, 3), np.complex64), "the array is complex64, expected"),
        (np.zeros((0, 6, 3), np.uint8), "the array is empty (shape [0, 6, 3])"),
        (np.zeros(6, np.uint8), "an array of shape [6] is no image"),
        (np.float32(0.5), "an array of shape [] is no image"),
        (np.zeros((1, 1, 4, 6, 3), np.uint8), "an array of shape [1, 1, 4, 6, 3] is no image"),
        (np.full((3, 4, 6), 200.0), "the values range from 200 to 200, expected [0, 1]; if it holds 0 to 255, divide"),
        (
            np.linspace(-1, 1, 72).reshape(3, 4, 6),
            "the values range from -1 to 1, expected [0, 1]; if it lies in [-1, 1]",
        ),
        (np.full((3, 4, 6), 1.01), "the values range from 1.01 to 1.01, expected [0, 1]; scale or clip it"),
        (np.full((3, 4, 6), -300.0), "the values range from -300 to -300, expected [0, 1]; scale or clip it"),
    ],
)
def test_wrong_arrays_are_explained(array: Any, says: str) -> None:
    assert says in refusal(array)
    message = refusal([RGB_PIXELS, array])
    assert message.startswith("image 1")
    collected = load_images([RGB_PIXELS, array, RGB_VALUES], RGB, on_error="collect")
    assert len(collected) == 2
    assert [f.index for f in collected.failures] == [1]
    assert collected.failures[0].reason in message


def test_batch_of_gray_images_without_channel_axis_is_explained() -> None:
    assert "needs its channel axis: use array[:, None]" in refusal(np.zeros((9, 4, 6), np.float32), GRAY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_and_infinite_pixels_are_located(bad: float, dtype: Any) -> None:
    image = RGB_VALUES.astype(dtype)
    image[1, 2, 3] = image[2, 3, 5] = bad
    assert "2 of 72 pixels are NaN or infinite (the first in channel 1, row 2, column 3)" in refusal(image)


def test_rounding_outside_the_range_is_clipped_and_more_is_not() -> None:
    image = np.full((3, 4, 6), 1.0 + 1e-7)
    image[0] = -1e-7
    loaded = load_images(image, RGB).images
    assert loaded.min() == 0.0
    assert loaded.max() == 1.0
    assert "expected [0, 1]" in refusal(np.full((3, 4, 6), 1.0 + 1e-5))


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for inputs in ("", [tmp_path / "a.png", ""]):
        with raises_code("E-image-path-empty"):
            load_images(inputs, RGB)
    assert len(load_images(".", RGB)) == 1


@pytest.mark.parametrize("empty", [[], (), np.zeros((0, 4, 6, 3), np.uint8), iter([])])
def test_nothing_at_all_is_an_error(empty: Any) -> None:
    for on_error in ("raise", "collect"):
        with raises_code("E-image-none"):
            load_images(empty, RGB, on_error=on_error)


@pytest.mark.parametrize("item", [None, 3, {"a": 1}, [RGB_PIXELS]])
def test_other_objects_are_refused(item: Any) -> None:
    with raises_code("E-image-type"):
        load_images([item], RGB)
    if item is None or isinstance(item, int):
        with raises_code("E-image-type"):
            load_images(item, RGB)


def test_the_bytes_of_a_file_are_that_file(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(RGB_PIXELS).save(path)
    data = path.read_bytes()
    for same in (data, [data, path]):
        np.testing.assert_array_equal(load_images(same, RGB).images[0], load_images(path, RGB).images[0])
    assert load_images([data], RGB).names == ["0"]
    for broken in (data[:40], b"", b"%!PS-Adobe"):
        with raises_code("E-image-unreadable"):
            load_images(broken, RGB)


def test_array_that_cannot_be_read_is_refused() -> None:
    class Tensor:
        def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
            raise RuntimeError("the tensor is on a GPU")

    assert "NumPy cannot read (the tensor is on a GPU); give a NumPy array" in refusal([Tensor()])


def test_bad_ones_among_good_ones_are_listed(tmp_path: Path) -> None:
    good = [save(RGB_PIXELS, tmp_path / f"{i}.png") for i in range(4)]
    good[1].write_bytes(b"broken")
    batch = np.stack([RGB_VALUES, RGB_VALUES * np.nan, RGB_VALUES])
    loaded = load_images([*good, batch], RGB, on_error="collect")
    assert loaded.indices == [0, 2, 3, 4, 6]
    assert loaded.names == [str(good[0]), str(good[2]), str(good[3]), "4[0]", "4[2]"]
    assert [(f.index, f.name) for f in loaded.failures] == [(1, str(good[1])), (5, "4[1]")]
    assert "its format is not known" in loaded.failures[0].reason
    with raises_code("E-image-unreadable"):
        load_images(good, RGB)


def test_when_all_are_bad_the_batch_is_empty_and_they_are_listed() -> None:
    loaded = load_images([np.zeros(3), np.zeros(4)], RGB, on_error="collect")
    assert loaded.images.shape == (0, 3, 4, 6)
    assert len(loaded.failures) == 2


def test_unknown_error_policy_is_refused() -> None:
    with raises_code("E-config-option"):
        load_images(RGB_PIXELS, RGB, on_error="ignore")


# ---- resizing --------------------------------------------------------------------------------------------------------


def test_wrong_file_size_is_refused_unless_resizing_is_asked_for(tmp_path: Path) -> None:
    path = save(np.full((8, 9, 3), 100, np.uint8), tmp_path / "big.png")
    assert "it is 9 x 8 pixels (width x height), expected 6 x 4" in refusal(path)
    np.testing.assert_allclose(load_images(path, RGB, resize=True).images, 100 / 255, atol=1e-6)


def test_resizing_is_bilinear_and_does_not_depend_on_the_form(tmp_path: Path) -> None:
    pixels = RANDOM.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    path = save(pixels, tmp_path / "x.png")
    floats = pixels.astype(np.float32).transpose(2, 0, 1) / np.float32(255)
    loaded = load_images([pixels, floats, Image.fromarray(pixels), path], RGB, resize=True).images
    for other in loaded[1:]:
        np.testing.assert_array_equal(other, loaded[0])
    in_bytes = np.asarray(Image.fromarray(pixels).resize((6, 4), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    np.testing.assert_allclose(loaded[0], in_bytes / 255, atol=1.01 / 255)


def test_right_size_is_not_touched_by_resize() -> None:
    np.testing.assert_array_equal(load_images(RGB_PIXELS, RGB, resize=True).images[0], RGB_VALUES)


def test_resize_does_not_excuse_wrong_channels_or_values() -> None:
    assert "expected uint8 [H, W, 3] or float [3, H, W]" in refusal(np.zeros((9, 9, 4), np.uint8), resize=True)
    assert "expected [0, 1]" in refusal(np.full((3, 9, 9), 2.0), resize=True)

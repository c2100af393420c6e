"""Data sets with labels: both forms, a fair draw, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from PIL import Image

from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.images.spec import ImageSpec

SPEC = ImageSpec(channels=1, height=4, width=4)
CLASSES = ("cat", "dog", "eel")


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 4, 4), np.float32)


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **arrays)
    return folder / "data.npz"


def test_npz_with_labels_and_a_named_array(tmp_path: Path) -> None:
    path = saved(tmp_path, images=pixels(3), attacked=1 - pixels(3), labels=np.array([2, 0, 1], np.uint8))
    data = load_labelled(path, SPEC, CLASSES, need_labels=True)
    other = load_labelled(f"{path}:attacked", SPEC, CLASSES)
    np.testing.assert_array_equal(data.images, pixels(3))
    np.testing.assert_array_equal(other.images, 1 - pixels(3))
    assert data.labels is not None and data.labels.tolist() == [2, 0, 1] and data.labels.dtype == np.int64
    assert data.sha256 != other.sha256 and data.sha256 == load_labelled(path, SPEC, CLASSES).sha256


def test_folder_of_classes_and_of_loose_images(tmp_path: Path) -> None:
    for name in ("dog", "2"):
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4), 51).save(tmp_path / name / "one.png")
    data = load_labelled(tmp_path, SPEC, CLASSES)
    assert data.labels is not None and sorted(data.labels) == [1, 2]
    assert data.images == pytest.approx(np.full((2, 1, 4, 4), 0.2))
    assert load_labelled(tmp_path / "dog", SPEC, CLASSES).labels is None


def test_a_draw_is_fair_to_classes_and_repeatable() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10]).astype(np.int64)
    data = LabelledImages(pixels(100), labels, tuple(map(str, range(100))))
    drawn = data.take(50, seed=3)
    assert drawn.labels is not None
    assert abs(np.bincount(drawn.labels) - [30, 15, 5]).max() <= 1
    assert len(set(drawn.names)) == 50
    assert drawn.names == data.take(50, seed=3).names != data.take(50, seed=4).names
    assert data.take(100).names == data.names
    with raises_code("E-config-count"):
        data.take(101)


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"pictures": pixels(2)}, "E-data-array"),
        ({"images": pixels(2), "labels": np.array([0, 3])}, "E-labels-range"),
        ({"images": pixels(2), "labels": np.array([0.0, 1.0])}, "E-labels-type"),
        ({"images": pixels(2), "labels": np.array([0])}, "E-labels-type"),
        ({"images": pixels(2)}, "E-data-labels"),
        ({"images": pixels(2)[:, :, :3]}, "E-image-shape"),
    ],
)
def test_bad_npz_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], code: str) -> None:
    with raises_code(code):
        load_labelled(saved(tmp_path, **arrays), SPEC, CLASSES, need_labels=True)


def test_an_empty_path_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "one.png")
    monkeypatch.chdir(tmp_path)
    with raises_code("E-data-path-empty"):
        load_labelled("", SPEC, CLASSES)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "npy"])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "data.npz"
    np.savez_compressed(path, images=pixels(64))
    data = bytearray(path.read_bytes())
    if damage == "npy":
        np.save(tmp_path / "data.npy", pixels(2))
        data = bytearray((tmp_path / "data.npy").read_bytes())
    if damage == "flipped":
        data[100:140] = bytes(40)
    path.write_bytes({"empty": b"", "text": b"hello", "cut": data[:-40]}.get(damage, data))
    with raises_code("E-data-unreadable"):
        load_labelled(path, SPEC, CLASSES)


def test_pickles_and_strange_folders_are_refused(tmp_path: Path) -> None:
    with raises_code("E-data-missing"):
        load_labelled(tmp_path / "none.npz", SPEC, CLASSES)
    with raises_code("E-data-unreadable"):
        load_labelled(saved(tmp_path, images=np.array([{}], object)), SPEC, CLASSES)
    (tmp_path / "fox").mkdir()
    (tmp_path / "fox" / "x.png").touch()
    with raises_code("E-config-folder"):
        load_labelled(tmp_path, SPEC, CLASSES, need_labels=True)

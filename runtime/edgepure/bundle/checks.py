"""What is checked before anything of a bundle is used: its folder, its files, their sizes and hashes, links."""

from __future__ import annotations

import os
import stat
from os import PathLike
from pathlib import Path, PurePosixPath

from ..errors import BundleError
from ..files.folders import heal, real_path
from .contents import found_files, hash_file, walk
from .entries import FileEntry
from .external_data import external_tensors
from .manifest import Manifest
from .manifest_text import MAX_MANIFEST_BYTES
from .names import ENGINES_FOLDER, MANIFEST_FILE

_AGAIN = "copy the bundle again, or export it again"


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, or when another takes its place."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def identity_of(path: str | PathLike[str]) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def bundle_folder(path: Path) -> Path:
    """The folder at ``path``, without symlinks; one whose replacement was cut short is put back first.

    Raises:
        BundleError: there is nothing, or it is a file.
    """
    if not path.exists():
        heal(real_path(path))
    if not path.exists():
        raise BundleError(
            f"there is no bundle at {path}: the folder does not exist; check the path", code="E-bundle-missing"
        )
    if not path.is_dir():
        raise BundleError(
            f"{path} is a file, expected a bundle's folder (the one that holds {MANIFEST_FILE})", code="E-bundle-folder"
        )
    return real_path(path)


def read_manifest(root: Path) -> bytes:
    path = root / MANIFEST_FILE
    if not os.path.lexists(path):
        raise BundleError(
            f"{root} is not a bundle: it holds no {MANIFEST_FILE}; give the folder that `edgepure export` wrote",
            code="E-bundle-no-manifest",
        )
    _check_place(root, MANIFEST_FILE)
    size = path.stat().st_size
    if size > MAX_MANIFEST_BYTES:
        raise BundleError(
            f"{path} has {size} bytes, a manifest may have {MAX_MANIFEST_BYTES}; this is not an edgepure bundle",
            code="E-bundle-manifest-size",
        )
    return path.read_bytes()


def check_files(root: Path, manifest: Manifest) -> None:
    """The directory holds exactly the listed files, each a regular file inside it with the listed size."""
    engines = root / ENGINES_FOLDER
    if os.path.lexists(engines) and not (real_path(engines).is_relative_to(root) and engines.is_dir()):
        raise BundleError(
            f"{engines} is not a folder inside the bundle; remove it, engines are built again", code="E-bundle-engines"
        )
    for place, file in walk(root, PurePosixPath(ENGINES_FOLDER), everything=True) if engines.is_dir() else ():
        if not file.is_file(follow_symlinks=False):
            raise BundleError(
                f"{root / place} is a symlink or no regular file; remove it, engines are built again",
                code="E-bundle-engines",
            )
    found = found_files(root)
    unlisted = sorted(found - set(manifest.files) - {MANIFEST_FILE})
    for name, entry in sorted(manifest.files.items()):
        if name not in found and not os.path.lexists(root / name):
            raise BundleError(_missing(root, name, entry, unlisted), code="E-bundle-file-missing")
        _check_place(root, name)
        size = (root / name).stat().st_size
        if size < entry.bytes:
            raise BundleError(
                f"{root / name} is cut off: it has {size} of {entry.bytes} bytes; {_AGAIN}", code="E-bundle-cut-off"
            )
        if size > entry.bytes:
            raise BundleError(
                f"{root / name} is not the file that was exported: it has {size} bytes, expected {entry.bytes}; "
                f"{_AGAIN}",
                code="E-bundle-file-size",
            )
    if unlisted:
        more = f" (and {len(unlisted) - 1} more)" if len(unlisted) > 1 else ""
        raise BundleError(
            f"{root / unlisted[0]}{more} is not listed in {MANIFEST_FILE}, so nobody vouches for it; remove it, "
            "or export the bundle again",
            code="E-bundle-unlisted",
        )


def _missing(root: Path, name: str, entry: FileEntry, unlisted: list[str]) -> str:
    for other in unlisted:
        path = root / other
        same_size = path.is_file() and not path.is_symlink() and path.stat().st_size == entry.bytes
        if same_size and hash_file(path) == entry.sha256:
            return f"{root / name} is missing: it was renamed to {other}; rename it back"
    return f"{root / name} is missing, but {MANIFEST_FILE} lists it; {_AGAIN}"


def _check_place(root: Path, name: str) -> None:
    """A listed name leads to a regular file inside the directory."""
    path = root / name
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise BundleError(f"{path} is a symlink that leads nowhere; {_AGAIN}", code="E-bundle-symlink") from None
    if not target.is_relative_to(root):
        raise BundleError(
            f"{path} is a symlink that leaves the bundle (to {target}); a bundle holds its files itself: copy it with "
            "`cp -rL`, which follows symlinks",
            code="E-bundle-escape",
        )
    if not stat.S_ISREG(target.stat().st_mode):
        raise BundleError(f"{path} is not a regular file; {_AGAIN}", code="E-bundle-irregular")


def check_hash(root: Path, name: str, manifest: Manifest) -> str:
    measured, expected = hash_file(root / name), manifest.files[name].sha256
    if measured != expected:
        raise BundleError(
            f"{root / name} is damaged or was changed: its SHA-256 is {measured[:16]}..., expected {expected[:16]}...; "
            f"{_AGAIN}",
            code="E-bundle-hash",
        )
    return measured


def check_external_data(root: Path, manifest: Manifest) -> None:
    """Every external tensor of every graph lies inside a listed file."""
    for entry in (e for graphs in (manifest.graphs, *manifest.variants.values()) for e in graphs.values()):
        folder = PurePosixPath(entry.file).parent
        for tensor in external_tensors(root / entry.file, str(root / entry.file)):
            name = str(folder / tensor.location)
            listed = manifest.files.get(name) if tensor.location else None
            if listed is None:
                raise BundleError(
                    f"{root / entry.file} keeps a tensor in {tensor.location!r}, which is not a file of the bundle; "
                    "export the bundle again, and only open bundles that you trust",
                    code="E-bundle-tensor-file",
                )
            if tensor.offset + (tensor.length or 0) > listed.bytes:
                raise BundleError(
                    f"{root / entry.file} keeps a tensor at bytes {tensor.offset} to "
                    f"{tensor.offset + (tensor.length or 0)} of {name}, which has {listed.bytes}; {_AGAIN}",
                    code="E-bundle-tensor-range",
                )

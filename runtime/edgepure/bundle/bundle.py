"""A bundle on disk: a directory with a manifest, ONNX graphs, weights and self-test vectors.

Opening checks everything before anything is used: the manifest, that the directory holds exactly the files that it
lists, their sizes and SHA-256, and that nothing refers to a place outside. Nothing is unpickled. The hashes find
damage; the manifest is not signed, so they do not prove who made the bundle (see `docs/bundle-format.md`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath

from ..errors import BundleError
from ..files.atomic import write_text
from ..files.folders import heal
from ..machine.shortage import shortage
from ..validation import expect
from .contents import found_files, hash_file, walk
from .external_data import external_tensors
from .manifest import (
    ENGINES_FOLDER,
    MANIFEST_FILE,
    SELFTEST_FILE,
    FileEntry,
    Manifest,
    check_relative_path,
)
from .manifest_text import MAX_MANIFEST_BYTES
from .selftest import SelfTest, read_selftest

_AGAIN = "copy the bundle again, or export it again"


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Make one with `Bundle.open`.

    Attributes:
        path: the directory, with symlinks resolved.
        manifest: what ``bundle.json`` says.
        content_hash: SHA-256 of ``bundle.json`` as it is on the disk. The manifest holds the hashes of all files, so
            equal content hashes mean equal bundles.
        verified_hashes: measured SHA-256 of every listed file; empty if the hashes were not checked.
        identities: of every listed file what the system knew of it when it was checked (`identity`).
    """

    path: Path
    manifest: Manifest = field(repr=False)
    content_hash: str
    verified_hashes: Mapping[str, str] = field(default_factory=dict, repr=False)
    identities: dict[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: str | PathLike[str], verify: bool = True) -> Bundle:
        """Open and check a bundle.

        Args:
            path: the bundle's directory.
            verify: check the SHA-256 of every file. False skips only that; every other check is always made.

        Raises:
            ConfigError: ``path`` is no path.
            BundleError: missing, damaged, of a newer format, with missing, changed or unlisted files, or with a path,
                symlink or external tensor that leaves the directory.
        """
        expect(path=(path, str, PathLike), verify=(verify, bool))
        while True:
            before = _identity(path)
            try:
                return cls._open(path, verify)
            except BundleError:  # half of the files may be those of a bundle that was exchanged for another meanwhile
                if _identity(path) == before:
                    raise

    @classmethod
    def _open(cls, path: str | PathLike[str], verify: bool) -> Bundle:
        try:
            root = bundle_folder(Path(path))
            data = _read_manifest(root)
            manifest = Manifest.from_json(data, source=str(root / MANIFEST_FILE))
            _check_files(root, manifest)
            identities = {name: identity(os.stat(root / name)) for name in manifest.files}
            hashes = {name: _check_hash(root, name, manifest) for name in sorted(manifest.files)} if verify else {}
            _check_external_data(root, manifest)
        except OSError as error:
            raise shortage(error) or BundleError(
                f"the bundle {path} cannot be read: {error.strerror} ({error.filename}); "
                "check its permissions and the disk",
                code="E-bundle-read",
            ) from error
        return cls(root, manifest, hashlib.sha256(data).hexdigest(), hashes, identities)

    def graph_path(self, name: str, precision: str = "fp32") -> Path:
        """The ONNX file of a graph in a precision (see `Manifest.graphs_in`); its external data lies beside it.

        Raises:
            BundleError: the bundle has no such graph, or no such variant.
            ConfigError: no such precision.
        """
        expect(name=(name, str), precision=(precision, str))
        for graph, entry in self.manifest.graphs_in(precision).items():
            if graph == name:
                return self.path / entry.file
        raise BundleError(
            f"the bundle {self.path.name} has no graph {name!r}; it has {', '.join(sorted(self.manifest.graphs))}",
            code="E-bundle-graph-missing",
        )

    def files_of(self, graph: str, precision: str = "fp32") -> list[str]:
        """The files that the engine of a graph reads: the graph, and those that hold its weights.

        Raises:
            BundleError, ConfigError: as `graph_path`.
        """
        path = self.graph_path(graph, precision)
        folder = PurePosixPath(path.relative_to(self.path).as_posix()).parent
        found = {str(folder / tensor.location) for tensor in external_tensors(path, str(path))}
        return [str(path.relative_to(self.path).as_posix()), *sorted(found)]

    def unchanged(self, name: str, handle: int) -> bool:
        """Whether an open file still is the listed file ``name``. It is only read if the system says that it changed,
        as it does of another link to it, too."""
        now = identity(os.fstat(handle))
        if now == self.identities[name]:
            return True
        same = hash_file(handle) == self.manifest.files[name].sha256
        if same:
            self.identities[name] = now
        return same

    def hold(self, names: Iterable[str]) -> list[int]:
        """Descriptors of files of the bundle, which are what was checked when it was opened.

        Raises:
            BundleError: a file was changed or exchanged since then.
        """
        handles: list[int] = []
        try:
            for name in names:
                handles.append(os.open(self.path / name, os.O_RDONLY))
                if not self.unchanged(name, handles[-1]):
                    raise BundleError(
                        f"{self.path / name} was changed after the bundle was loaded; load the bundle again",
                        code="E-bundle-changed",
                    )
        except BaseException as error:
            for handle in handles:
                os.close(handle)
            if isinstance(error, OSError):
                raise shortage(error) or BundleError(
                    f"{self.path} was changed after it was loaded ({error.strerror}); load the bundle again",
                    code="E-bundle-changed",
                ) from None
            raise
        return handles

    @property
    def engines_path(self) -> Path:
        """The folder of the engines that were built on this device; it need not exist."""
        return self.path / ENGINES_FOLDER

    def selftest(self) -> SelfTest:
        """The recorded inputs and outputs, read and checked now.

        Raises:
            BundleError: ``selftest.npz`` does not hold what the manifest asks for.
        """
        return read_selftest(self.path / SELFTEST_FILE, self.manifest)


# ---- writing ---------------------------------------------------------------------------------------------------------


def hash_files(directory: str | PathLike[str]) -> dict[str, FileEntry]:
    """SHA-256 and size of every file of a bundle's directory, for `Manifest.files`.

    Leaves out ``bundle.json``, ``engines/`` and hidden files.

    Raises:
        BundleError: a name may not be listed in a bundle, or something is a symlink or not a regular file.
    """
    root = bundle_folder(Path(directory))
    entries: dict[str, FileEntry] = {}
    for name in sorted(found_files(root)):
        if name == MANIFEST_FILE:
            continue
        try:
            check_relative_path(name)
        except ValueError as error:
            raise BundleError(f"{root / name} cannot be part of a bundle: {error}", code="E-bundle-file-name") from None
        path = root / name
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path} is not a regular file; put the file itself there", code="E-bundle-irregular")
        entries[name] = FileEntry(sha256=hash_file(path), bytes=path.stat().st_size)
    return entries


def write_manifest(directory: str | PathLike[str], manifest: Manifest) -> Path:
    """Write ``bundle.json`` atomically and return its path.

    Raises:
        BundleError: a file that the manifest lists is missing or has another size.
        EdgepureError: no space or no permission; the old manifest is untouched.
    """
    root = bundle_folder(Path(directory))
    checked = Manifest.from_data(dict(manifest))  # `model_copy(update=...)` does not check
    _check_files(root, checked)
    write_text(root / MANIFEST_FILE, checked.to_json())
    return root / MANIFEST_FILE


def update_manifest(path: str | PathLike[str], change: Callable[[Manifest], Manifest]) -> Manifest:
    """Replace ``bundle.json`` by what ``change`` makes of it, atomically. Returns the new manifest.

    ``change`` typically returns ``manifest.model_copy(update={...})``. If it changes files, it sets ``files`` to the
    result of `hash_files`; if it changes a preset, its vectors in ``selftest.npz`` have to be recorded anew.

    Raises:
        BundleError: the old or the new manifest is not valid; the old one is untouched.
        EdgepureError: no space or no permission; the old one is untouched.
    """
    root = bundle_folder(Path(path))
    old = Manifest.from_json(_read_manifest(root), source=str(root / MANIFEST_FILE))
    new = Manifest.from_data(dict(change(old)))
    write_manifest(root, new)
    return new


# ---- checks ----------------------------------------------------------------------------------------------------------


def identity(found: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written to, or when another takes its place."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _identity(path: str | PathLike[str]) -> tuple[int, int] | None:
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
        heal(path.resolve())
    if not path.exists():
        raise BundleError(
            f"there is no bundle at {path}: the folder does not exist; check the path", code="E-bundle-missing"
        )
    if not path.is_dir():
        raise BundleError(
            f"{path} is a file, expected a bundle's folder (the one that holds {MANIFEST_FILE})", code="E-bundle-folder"
        )
    return path.resolve()


def _read_manifest(root: Path) -> bytes:
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


def _check_files(root: Path, manifest: Manifest) -> None:
    """The directory holds exactly the listed files, each a regular file inside it with the listed size."""
    engines = root / ENGINES_FOLDER
    if os.path.lexists(engines) and not (engines.resolve().is_relative_to(root) and engines.is_dir()):
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


def _check_hash(root: Path, name: str, manifest: Manifest) -> str:
    measured, expected = hash_file(root / name), manifest.files[name].sha256
    if measured != expected:
        raise BundleError(
            f"{root / name} is damaged or was changed: its SHA-256 is {measured[:16]}..., expected {expected[:16]}...; "
            f"{_AGAIN}",
            code="E-bundle-hash",
        )
    return measured


def _check_external_data(root: Path, manifest: Manifest) -> None:
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

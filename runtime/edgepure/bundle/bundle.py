"""A bundle on disk: a directory with a manifest, ONNX graphs, weights and self-test vectors.

Opening checks everything before anything is used: the manifest, that the directory holds exactly the files that it
lists, their sizes and SHA-256, and that nothing refers to a place outside. Nothing is unpickled. The hashes find
damage; the manifest is not signed, so they do not prove who made the bundle (see `docs/bundle-format.md`).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path, PurePosixPath

from ..errors import BundleError
from ..files.atomic import write_text
from ..machine.shortage import shortage
from ..validation import expect
from .checks import bundle_folder, check_external_data, check_files, check_hash, identity, identity_of, read_manifest
from .contents import found_files, hash_file
from .entries import FileEntry
from .external_data import external_tensors
from .manifest import Manifest
from .names import ENGINES_FOLDER, MANIFEST_FILE, SELFTEST_FILE, check_relative_path
from .selftest import SelfTest, read_selftest


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
            before = identity_of(path)
            try:
                return cls._open(path, verify)
            except BundleError:  # half of the files may be those of a bundle that was exchanged for another meanwhile
                if identity_of(path) == before:
                    raise

    @classmethod
    def _open(cls, path: str | PathLike[str], verify: bool) -> Bundle:
        try:
            root = bundle_folder(Path(path))
            data = read_manifest(root)
            manifest = Manifest.from_json(data, source=str(root / MANIFEST_FILE))
            check_files(root, manifest)
            identities = {name: identity(os.stat(root / name)) for name in manifest.files}
            hashes = {name: check_hash(root, name, manifest) for name in sorted(manifest.files)} if verify else {}
            check_external_data(root, manifest)
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
    check_files(root, checked)
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
    old = Manifest.from_json(read_manifest(root), source=str(root / MANIFEST_FILE))
    new = Manifest.from_data(dict(change(old)))
    write_manifest(root, new)
    return new

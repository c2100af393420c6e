"""Change a bundle: all of the change happens, or none of it.

The change is made in a hidden working copy beside the bundle (hard links: nothing large is copied), and takes the
bundle's place in one step. An error, Ctrl-C or a full disk leaves the bundle as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..files.atomic import write_bytes, write_npz
from ..files.folders import atomic_directory, link_or_copy
from ..files.locks import locked
from .bundle import Bundle, write_manifest
from .checks import bundle_folder
from .contents import hash_file
from .entries import FileEntry
from .manifest import Manifest
from .names import MANIFEST_FILE, SELFTEST_FILE, check_relative_path


class BundleEdit:
    """A bundle that is being changed. Made by `edit_bundle`.

    Attributes:
        manifest: assign a changed one (``edit.manifest.model_copy(update={...})``); it is checked at the end. Its
            ``files`` follow `write`, `add` and `remove` by themselves.
        root: the working copy. Read from it; change its files only through the methods.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest

    def write(self, name: str, data: bytes) -> None:
        """Make or replace the file ``name`` (a relative path as in the manifest).

        Raises:
            BundleError: the name may not be listed in a bundle.
        """
        target = self._place(name)
        write_bytes(target, data)
        self._list(name, target)

    def write_npz(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Make or replace the file ``name`` by these arrays. Raises BundleError as `write` does."""
        target = self._place(name)
        write_npz(target, arrays)
        self._list(name, target)

    def add(self, name: str, source: str | PathLike[str]) -> None:
        """Make or replace the file ``name`` by a copy of another file. Raises BundleError as `write` does."""
        target = self._place(name)
        target.unlink(missing_ok=True)  # it may be a hard link: never write through it
        shutil.copyfile(source, target)
        self._list(name, target)

    def remove(self, name: str) -> None:
        """Take the file ``name`` out of the bundle.

        Raises:
            BundleError: there is no such file.
        """
        files = dict(self.manifest.files)
        if files.pop(name, None) is None:
            raise BundleError(
                f"the bundle has no file {name!r} to remove; it has {', '.join(sorted(files))}", code="E-bundle-remove"
            )
        (self.root / name).unlink()
        self.manifest = self.manifest.model_copy(update={"files": files})

    def record(self, presets: Collection[str], recorded: Mapping[str, NDArray[Any]] | None = None) -> None:
        """Take what the self-test recorded of presets out of it, and put other recordings into it.

        ``recorded``: by the key of the array in the file; None: none.
        """
        with np.load(self.root / SELFTEST_FILE, allow_pickle=False) as arrays:
            kept = {key: arrays[key] for key in arrays if _preset_of(key) not in presets}
            stale = len(kept) < len(arrays.files)
        if stale or recorded:
            self.write_npz(SELFTEST_FILE, {**kept, **(recorded or {})})

    def _place(self, name: str) -> Path:
        try:
            check_relative_path(name)
        except ValueError as error:
            raise BundleError(f"{name!r} cannot be a file of a bundle: {error}", code="E-bundle-file-name") from None
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _list(self, name: str, path: Path) -> None:
        entry = FileEntry(sha256=hash_file(path), bytes=path.stat().st_size)
        self.manifest = self.manifest.model_copy(update={"files": {**self.manifest.files, name: entry}})


@contextmanager
def edit_bundle(path: str | PathLike[str]) -> Iterator[BundleEdit]:
    """Change the bundle at ``path``; see the module's text.

    Engines that were built on this device stay. Two changes at once do not mix: the one that ends later is refused.

    Raises:
        BundleError: the bundle, or what it was changed to, is not whole and valid, or it was changed meanwhile.
        EdgepureError: no space or no permission.
    """
    bundle = Bundle.open(path)
    with ExitStack() as exchange, atomic_directory(bundle.path, overwrite=True) as root:
        _link(bundle, root, [*bundle.manifest.files, MANIFEST_FILE])
        edit = BundleEdit(root, bundle.manifest)
        yield edit
        write_manifest(root, edit.manifest)
        Bundle.open(root, verify=False)  # what leaves here can be opened
        lock = locked(bundle.path, make=lambda: bundle_folder(bundle.path))
        exchange.enter_context(lock)  # from the last look at the bundle to the exchange
        if Bundle.open(bundle.path, verify=False).content_hash != bundle.content_hash:
            raise BundleError(
                f"{bundle.path} was changed by something else in the meantime; run the command again",
                code="E-bundle-busy",
            )
        engines = [file for file in bundle.engines_path.rglob("*") if file.is_file()]  # those built meanwhile, too
        _link(bundle, root, [str(file.relative_to(bundle.path)) for file in engines])


def _preset_of(key: str) -> str | None:
    """The preset of an array of the self-test, which is called ``pipeline/<preset>/<array>``; None for others."""
    kind, _, rest = key.partition("/")
    return rest.partition("/")[0] if kind == "pipeline" else None


def _link(bundle: Bundle, root: Path, names: Sequence[str]) -> None:
    for name in names:
        target = root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        link_or_copy((bundle.path / name).resolve(), target)

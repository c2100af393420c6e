"""Bundles on a disk, and the graphs in them."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import edgepure
from edgepure.bundle.external_data import external_tensors
from edgepure.engines.kinds import KINDS, kind_of
from edgepure.engines.open import open_graph
from edgepure.engines.schema import check_operators

from .documents import own_manifest
from .kind import Kind
from .mutate import as_json, changed, damaged


class Bundles(Kind):
    """Whole bundles: a file is damaged, and the manifest says that it is right so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._bundle = folder / "bundle"
        shutil.copytree(edgepure.demo_bundle(), self._bundle)
        self._manifest = own_manifest()
        names = [str(p.relative_to(self._bundle)) for p in self._bundle.rglob("*") if p.is_file()]
        self._small = sorted(name for name in names if name != "weights.bin")
        self._data = {name: (self._bundle / name).read_bytes() for name in names}

    def attempt(self, random: Random) -> None:
        name = random.choice((*self._small, "selftest.npz", "bundle.json"))
        manifest = self._manifest
        strange: list[Path] = []
        try:
            if name == "bundle.json":
                manifest = changed(manifest, random)
            else:
                data = damaged(self._data[name], random, self._data[random.choice(self._small)])
                (self._bundle / name).write_bytes(data)
                if random.random() < 0.9:
                    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                    manifest = {**manifest, "files": {**manifest["files"], name: entry}}
            (self._bundle / "bundle.json").write_bytes(as_json(manifest))
            if random.random() < 0.1:
                strange.append(self._leave_something(random))
            found = edgepure.Bundle.open(self._bundle, verify=random.random() < 0.5)
            found.selftest()
            for graph in found.manifest.graphs:
                found.files_of(graph)
                check_operators(found.graph_path(graph))
            found.manifest.planner()
        finally:
            for path in strange:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
            for changed_name in (name, "bundle.json"):
                (self._bundle / changed_name).write_bytes(self._data[changed_name])

    def _leave_something(self, random: Random) -> Path:
        path = self._bundle / random.choice(("extra.bin", "robustness/x", "engines", "a b", "é"))
        what = random.randrange(4)
        if what == 0:
            path.mkdir()
        elif what == 1:
            path.symlink_to(random.choice(("/etc/passwd", "..", "weights.bin", str(path), "/dev/zero")))
        elif what == 2:
            os.mkfifo(path)
        else:
            path.write_bytes(b"x")
        return path


class Graphs(Kind):
    """ONNX files and what they say of their weights, before any engine sees them."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._graphs = [path.read_bytes() for path in sorted(edgepure.demo_bundle().glob("*.onnx"))]
        self._file = folder / "odd.onnx"
        self._file.touch()

    def write(self, random: Random) -> Path:
        """One damaged graph."""
        self._file.write_bytes(damaged(random.choice(self._graphs), random, random.choice(self._graphs)))
        return self._file

    def attempt(self, random: Random) -> None:
        path = self.write(random)
        external_tensors(path)
        check_operators(path)


class Engines(Graphs):
    """Graphs that got through, opened and run on every engine of the processor that is installed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        shutil.copy(edgepure.demo_bundle() / "weights.bin", folder)
        self._size = (folder / "weights.bin").stat().st_size
        self._providers = [
            name for name, kind in KINDS.items() if kind.device == "cpu" and kind.version() and not kind.built
        ]
        for provider in self._providers:  # everything that is imported is imported before memory is bounded
            kind_of(provider)
            open_graph(edgepure.demo_bundle() / "classifier.onnx", provider, threads=1).close()

    def attempt(self, random: Random) -> None:
        path = self.write(random)
        for tensor in external_tensors(path):
            if tensor.location != "weights.bin" or tensor.offset + (tensor.length or 0) > self._size:
                raise edgepure.BundleError("no bundle is opened with it")
        with open_graph(path, random.choice(self._providers), threads=1) as engine:
            feeds: dict[str, Any] = {
                name: np.zeros([n if isinstance(n, int) else 2 for n in spec.shape], spec.dtype)
                for name, spec in engine.inputs.items()
                if spec.dtype in ("float32", "int64", "float16")
            }
            if sum(array.size for array in feeds.values()) < 1 << 20:
                engine.run(feeds)


class Outcomes(Kind):
    """What `edgepure evaluate` leaves for `edgepure compare`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from edgepure_calibration.evaluate.outcomes import Outcomes as Kept
        from edgepure_calibration.evaluate.outcomes import read_outcomes

        self._read: Any = read_outcomes
        labels = np.arange(10)
        kept = Kept(
            bundle="digits", engine="cpu, fp32", images=tuple(f"{n:032x}" for n in range(10)),
            labels=labels.astype(np.int64), right={("uniform", "pgd", "single"): labels > 2},
            protocols={("uniform", "pgd", "single"): "pgd"}, attacked={},
        )  # fmt: skip
        self._file = folder / "outcomes.npz"
        np.savez(self._file, **kept.to_arrays())
        self._data = self._file.read_bytes()

    def attempt(self, random: Random) -> None:
        self._file.write_bytes(damaged(self._data, random, self._data))
        self._read(self._file)

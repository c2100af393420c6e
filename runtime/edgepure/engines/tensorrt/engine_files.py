"""Where engines lie in a bundle, and which of them fits this device.

``engines/<device>/<graph>.<precision>.plan`` is the engine; the ``.json`` beside it says what it was built from
(`EngineKey`) and its SHA-256. An engine is an executable: it is only loaded if the bundle's own hashes hold and its key
is that of this device and these graphs.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from ...bundle.bundle import Bundle
from ...bundle.checks import bundle_folder
from ...bundle.contents import hash_file
from ...bundle.entries import GraphEntry
from ...bundle.external_data import external_tensors
from ...errors import BundleError, ProviderError
from ...files.atomic import write_bytes, write_json
from ...files.locks import locked
from ...machine import jetson
from ..gpu.cuda import driver
from .module import TensorRT

#: A larger ``.json`` beside a plan is not one of ours.
_MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True)
class Machine:
    """What an engine depends on, besides TensorRT. Empty strings where there is no GPU, or no Jetson.

    Attributes:
        gpu: its name.
        compute_capability: ``8.7``.
        cuda: the newest CUDA that the driver runs.
        l4t: release of a Jetson's system.
    """

    gpu: str = ""
    compute_capability: str = ""
    cuda: str = ""
    l4t: str = ""

    @classmethod
    def here(cls) -> Machine:
        """This machine. Never fails."""
        found, l4t = driver(), _l4t()
        if not found:
            return cls(l4t=l4t)
        return cls(found.gpus[0].name, found.gpus[0].compute_capability, found.cuda or "", l4t)

    @property
    def sm(self) -> str:
        """``sm87``; empty without a GPU."""
        return f"sm{self.compute_capability.replace('.', '')}" if self.compute_capability else ""


@cache
def _l4t() -> str:
    module = jetson.find()
    return module.l4t if module is not None else ""


@dataclass(frozen=True)
class EngineKey:
    """Everything that decides whether an engine can be used as it is; if one of these changes it is built anew.

    Attributes:
        provider, version: of TensorRT.
        machine: where it was built.
        targets: GPUs that it was built for instead (TensorRT for RTX): ``sm86``.
        graph, precision: of the bundle.
        onnx_sha256: of the ONNX file and its weights.
        profiles: for each batch size the shape of every input; an engine runs exactly these.
        flags: names, never numbers: the numbers changed between TensorRT 10 and 11.
        workspace_mb: limit of the builder's scratch memory; None: TensorRT's own.
    """

    provider: str
    version: str
    machine: Machine
    targets: tuple[str, ...]
    graph: str
    precision: str
    onnx_sha256: str
    profiles: tuple[dict[str, tuple[int, ...]], ...]
    flags: tuple[str, ...]
    workspace_mb: int | None = None

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes, ascending."""
        return tuple(next(iter(shapes.values()))[0] for shapes in self.profiles)

    @property
    def folder(self) -> str:
        """Name of the device's folder: provider, version, GPU, CUDA, L4T."""
        if self.targets:
            place = list(self.targets)
        else:
            place = [self.machine.gpu, self.machine.sm, f"cuda{self.machine.cuda}" if self.machine.cuda else ""]
            place.append(f"l4t{self.machine.l4t}" if self.machine.l4t else "")
        parts = [self.provider, self.version, *place]
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_.") for part in parts if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "profiles": [{k: list(v) for k, v in p.items()} for p in self.profiles]}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EngineKey:
        """The reverse of `to_dict`. Raises KeyError, TypeError, ValueError or OverflowError for anything else."""
        profiles = tuple({str(k): tuple(int(n) for n in v) for k, v in p.items()} for p in data["profiles"])
        data = {"provider": data["product"], **data} if "product" in data else data  # as edgepure 0.1 wrote it
        changed = {
            "machine": Machine(**data["machine"]),
            "targets": tuple(data["targets"]),
            "flags": tuple(data["flags"]),
            "profiles": profiles,
        }
        key = cls(**{name: value for name, value in {**data, **changed}.items() if name != "product"})
        if not key.profiles or not all(key.profiles):
            raise ValueError("no profiles")
        texts = (key.provider, key.version, key.graph, key.precision, key.onnx_sha256, *key.targets, *key.flags)
        if not all(isinstance(text, str) for text in (*texts, *asdict(key.machine).values())):
            raise ValueError("a text is something else")
        return key

    def why_not(self, trt: TensorRT, machine: Machine, onnx_sha256: str) -> str:
        """Why an engine with this key cannot be used by this TensorRT, here, for this graph; empty if it can."""
        if self.provider != trt.provider:
            return f"it is for {self.provider}"
        newer = "VERSION_COMPATIBLE" in self.flags and _numbers(self.version) <= _numbers(trt.version)
        if self.version != trt.version and not newer:
            return f"it was built by version {self.version}, and here is {trt.version}"
        if self.targets:
            if machine.sm not in self.targets:
                return f"it was built for {', '.join(self.targets)}, and this GPU is {machine.sm or 'missing'}"
        elif (self.machine.gpu, self.machine.compute_capability) != (machine.gpu, machine.compute_capability):
            return f"it was built for {self.machine.gpu!r}, and this GPU is {machine.gpu!r}"
        if self.onnx_sha256 != onnx_sha256:
            return "the graph or its weights have changed since it was built"
        return ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def graph_hash(bundle: Bundle, entry: GraphEntry) -> str:
    """SHA-256 over the hashes of a graph's file and of the files with its weights, after checking all of them.

    Raises:
        BundleError: a file is not the one that the manifest lists.
    """
    folder = PurePosixPath(entry.file).parent
    weights = {str(folder / tensor.location) for tensor in external_tensors(bundle.path / entry.file, entry.file)}
    digest = hashlib.sha256()
    for name in [entry.file, *sorted(weights)]:
        measured = bundle.verified_hashes.get(name) or hash_file(bundle.path / name)
        if measured != bundle.manifest.files[name].sha256:
            raise BundleError(
                f"{bundle.path / name} is damaged or was changed, so no engine is built or loaded for it; copy the "
                "bundle again, or export it again",
                code="E-bundle-hash",
            )
        digest.update(f"{name} {measured}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Plan:
    """A built engine on the disk."""

    path: Path
    key: EngineKey
    sha256: str
    size: int

    def intact(self) -> bool:
        """Whether the file is the one that was built."""
        try:
            return hash_file(self.path) == self.sha256
        except OSError:
            return False

    def read(self) -> bytes:
        """The engine.

        Raises:
            ProviderError: it is not the one that was built.
        """
        data = self.path.read_bytes()
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise ProviderError(
                f"{self.path} is damaged or was changed, so it is not loaded; build it again with `edgepure build "
                f"{self.path.parents[2]} --precision {self.key.precision} --force`",
                code="E-engine-damaged",
            )
        return data

    @property
    def cache_path(self) -> Path:
        """Where TensorRT for RTX keeps the kernels that it compiled for this GPU."""
        return self.path.with_suffix(".cache")


def plan_path(bundle: Bundle, key: EngineKey) -> Path:
    """Where the engine with this key lies, or will lie."""
    return bundle.engines_path / key.folder / f"{key.graph}.{key.precision}.plan"


def write_plan(bundle: Bundle, key: EngineKey, data: bytes, seconds: float) -> Plan:
    """Write an engine and its record, each whole or not at all, unless its graph has changed since it was built.

    Raises:
        BundleError: the graph has changed.
        EdgepureError: no space or no permission.
    """
    # A change of the bundle would not take along what is written meanwhile.
    with locked(bundle.path, make=lambda: bundle_folder(bundle.path)):
        _check_unchanged(bundle, key)
        return _write_plan(plan_path(bundle, key), key, data, seconds)


def _check_unchanged(bundle: Bundle, key: EngineKey) -> None:
    now = Bundle.open(bundle.path, verify=False)
    if now.content_hash == bundle.content_hash:
        return
    try:
        unchanged = graph_hash(now, graph_entry(now, key.graph, key.precision)) == key.onnx_sha256
    except BundleError:
        unchanged = False
    if not unchanged:
        raise BundleError(
            f"the graph {key.graph} ({key.precision}) of {bundle.path} was changed while its engine was built, so this "
            "engine was not kept; run the command again",
            code="E-build-changed",
        )


def _write_plan(path: Path, key: EngineKey, data: bytes, seconds: float) -> Plan:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProviderError(
            f"cannot make {path.parent}: {error.strerror}; the bundle must be writable here", code="E-engine-write"
        ) from None
    plan = Plan(path, key, hashlib.sha256(data).hexdigest(), len(data))
    write_bytes(path, data)  # a crash after this line leaves a plan that its record does not fit: it is not used
    record = {"key": key.to_dict(), "plan": {"sha256": plan.sha256, "bytes": plan.size}, "seconds": round(seconds, 3)}
    write_json(path.with_suffix(".json"), record)
    plan.cache_path.unlink(missing_ok=True)
    return plan


def read_plan(record: Path) -> Plan | None:
    """The engine that a ``.json`` describes; None if one of the two is missing, or is not one of ours."""
    path = record.with_suffix(".plan")
    try:
        if record.stat().st_size > _MAX_RECORD_BYTES or not path.is_file() or path.is_symlink():
            return None
        data = json.loads(record.read_text(encoding="utf-8"))
        plan = Plan(path, EngineKey.from_dict(data["key"]), str(data["plan"]["sha256"]), int(data["plan"]["bytes"]))
        return plan if path.stat().st_size == plan.size else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def find_plan(bundle: Bundle, graph: str, precision: str, trt: TensorRT, machine: Machine) -> Plan:
    """The engine of a graph that fits this device.

    Raises:
        BundleError: the bundle has no such graph or variant, or its files are not those of the manifest.
        ProviderError: there is none; says why those that are there do not fit, and how to build one.
    """
    entry = graph_entry(bundle, graph, precision)
    onnx_sha256 = graph_hash(bundle, entry)
    reasons = []
    for record in sorted(bundle.engines_path.glob(f"*/{graph}.{entry.precision}.json")):
        plan = read_plan(record)
        reason = plan.key.why_not(trt, machine, onnx_sha256) if plan is not None else "it is damaged"
        if plan is not None and not reason:
            return plan
        reasons.append(f"{record.parent.name}: {reason}")
    found = f" ({'; '.join(reasons)})" if reasons else ""
    raise ProviderError(
        f"the bundle has no engine of the graph {graph} in {entry.precision} for {trt} on this device{found}; build it "
        f"with `edgepure build {bundle.path} --provider {trt.provider} --precision {precision}`",
        code="E-engine-unbuilt",
    )


def graph_entry(bundle: Bundle, graph: str, precision: str) -> GraphEntry:
    """The manifest's entry of a graph in a precision. Raises as `Bundle.graph_path` does."""
    bundle.graph_path(graph, precision)
    return {str(name): entry for name, entry in bundle.manifest.graphs_in(precision).items()}[graph]

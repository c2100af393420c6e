"""Builds the TensorRT engines of a bundle, ahead of time and never inside a request.

One way for TensorRT 10.3 to 11 and TensorRT for RTX: the network is strongly typed, so an engine computes in exactly
the types that the ONNX graph has, and no precision flag exists. Every batch size gets an optimisation profile of its
own with one fixed shape: the fastest kernels for it, and a graph that CUDA can capture. TF32, which TensorRT would use
for fp32 matrices on its own, is off unless it is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

from ...bundle.bundle import Bundle
from ...bundle.entries import GraphEntry
from ...errors import BundleError, ConfigError, EdgepureError, ProviderError
from ...files.atomic import write_bytes
from ...types import Progress
from ..gpu.cuda import driver, require_gpu
from ..kinds import check_variant
from ..schema import check_operators
from .engine_files import EngineKey, Machine, Plan, graph_hash, plan_path, read_plan, write_plan
from .module import TENSORRT, TensorRT, check_builder, fault, import_tensorrt, make_log, portable
from .options import (
    BuildOptions,
    check_batches,
    check_memory,
    check_options,
    check_precision,
    choose_targets,
    choose_workspace,
)
from .progress import Phases, make_monitor


@dataclass(frozen=True)
class BuiltEngine:
    """One engine. ``reused``: it was there already with the same key. ``seconds`` is 0 then."""

    graph: str
    precision: str
    path: Path
    bytes: int
    seconds: float
    reused: bool
    key: EngineKey

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "graph": self.graph, "precision": self.precision, "path": str(self.path), "bytes": self.bytes,
            "seconds": self.seconds, "reused": self.reused, "key": self.key.to_dict(),
        }  # fmt: skip


def build_engines(
    bundle: Bundle | str | PathLike[str],
    precision: str = "fp32",
    batches: Sequence[int] = (1, 4, 8),
    *,
    graphs: Sequence[str] | None = None,
    provider: str | None = None,
    targets: Sequence[str] = (),
    version_compatible: bool = False,
    timing_cache: str | PathLike[str] | None = None,
    workspace_mb: int | None = None,
    tf32: bool = False,
    force: bool = False,
    on_progress: Progress | None = None,
) -> list[BuiltEngine]:
    """Build the engines of a bundle for this device, into ``engines/`` of the bundle. What is there already is kept.

    Args:
        bundle: the bundle or its directory.
        precision: ``fp32``, or a variant that the bundle has. Graphs that the variant lacks are built in fp32.
        batches: batch sizes, each with an optimisation profile of its own.
        graphs: names of graphs; None: all.
        provider: ``tensorrt`` or ``tensorrt-rtx``; None: the first that is installed and can build here.
        targets: GPUs to build for instead of the one here, as ``sm86``; TensorRT for RTX only. On a machine without a
            GPU the default is `PORTABLE_TARGETS`.
        version_compatible: engines that later versions of TensorRT load too; they may be slower.
        timing_cache: a file with measurements of earlier builds, which make a build faster; it is made and updated.
        workspace_mb: limit of the builder's scratch memory on the GPU, in MiB. None: half of what is free on a Jetson,
            where it is shared with the system; elsewhere TensorRT's own limit.
        tf32: let fp32 matrices be computed with 10 bits of mantissa.
        force: build even what is there.
        on_progress: how far it is.

    Returns:
        One entry for each graph, in the order of the manifest.

    Raises:
        ConfigError: an option is out of range or does not exist for this TensorRT.
        BundleError: the bundle is not whole, or lacks the variant or graph.
        ProviderError: no TensorRT, no GPU, a variant that was made for the CPU, or TensorRT cannot build a graph; in
            plain words.
        EdgepureError: not enough memory, or the disk is full.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    entries = chosen_graphs(opened, precision, graphs)
    check_builder(provider)
    check_variant(opened.manifest, precision, provider or next(iter(TENSORRT)))
    sizes = check_batches(batches)
    found = driver()
    if provider is None and (targets or not found):
        provider = portable()
    trt = import_tensorrt(provider)
    gpu = require_gpu(TENSORRT[trt.provider].title) if not trt.is_rtx or (found and not targets) else None
    machine = Machine.here() if gpu is not None else Machine()
    wanted = BuildOptions(
        batches=sizes,
        targets=choose_targets(trt, gpu, targets, {entry.precision for entry in entries.values()}),
        version_compatible=version_compatible,
        timing_cache=Path(timing_cache) if timing_cache is not None else None,
        workspace_mb=choose_workspace(workspace_mb, machine),
        tf32=tf32,
    )
    check_options(trt, wanted)
    built = []
    for done, (name, entry) in enumerate(entries.items()):
        check_precision(entry.precision, gpu, wanted.targets)

        def report(share: float, what: str = f"building {name} ({entry.precision})", done: int = done) -> None:
            if on_progress is not None:
                on_progress((done + share) / len(entries), what)

        key = EngineKey(
            provider=trt.provider,
            version=trt.version,
            machine=machine,
            targets=wanted.targets,
            graph=name,
            precision=entry.precision,
            onnx_sha256=graph_hash(opened, entry),
            profiles=profiles_of(entry, wanted.batches),
            flags=wanted.flags(trt),
            workspace_mb=workspace_mb,
        )
        plan = None if force else _present(opened, key)
        seconds, reused = 0.0, plan is not None
        if plan is None:
            report(0.0)
            start = perf_counter()
            check_operators(opened.path / entry.file)
            check_memory(opened.path / entry.file, machine)
            data = build_plan(trt, opened.path / entry.file, entry, name, wanted, report)
            seconds = perf_counter() - start
            plan = write_plan(opened, key, data, seconds)
        report(1.0)
        built.append(BuiltEngine(name, entry.precision, plan.path, plan.size, seconds, reused, key))
    return built


def profiles_of(entry: GraphEntry, batches: Sequence[int]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """For each batch size the shape of every input of a graph."""
    return tuple({tensor.name: (batch, *tensor.fixed) for tensor in entry.inputs} for batch in batches)


def build_plan(
    trt: TensorRT,
    path: Path,
    entry: GraphEntry,
    name: str,
    options: BuildOptions,
    report: Callable[[float], None] = lambda share: None,
) -> bytes:
    """Build one engine and give its bytes.

    The builder runs in a thread of its own: so Ctrl-C stops it at its next step, which an exception inside one of its
    callbacks could not do.

    Raises:
        BundleError: the file is not an ONNX graph with the inputs and outputs of ``entry``.
        ProviderError, EdgepureError: TensorRT cannot build it.
    """
    phases = Phases(report)
    result: list[bytes | BaseException] = []

    def work() -> None:
        try:
            result.append(_build(trt, path, entry, name, options, phases))
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=work, name=f"build {name}", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.1)
    except BaseException:
        phases.cancelled = True
        thread.join()
        raise
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


def _build(trt: TensorRT, path: Path, entry: GraphEntry, name: str, options: BuildOptions, phases: Phases) -> bytes:
    module, log, what = trt.module, make_log(trt), f"building the engine of {name} ({entry.precision})"
    try:
        builder = module.Builder(log)
        network = builder.create_network(1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = module.OnnxParser(network, log)  # only borrows the network, which has to stay in a variable
        config = builder.create_builder_config()
    except Exception as error:  # "factory function returned nullptr" and its like
        raise fault(what, trt, log, [str(error)]) from None
    if not parser.parse_from_file(str(path)):
        raise _parse_fault(trt, path, parser, log, what)
    _check_interface(network, entry, path)
    config.max_aux_streams = 0  # one stream, so that CUDA graphs are plain to capture
    config.progress_monitor = monitor = make_monitor(trt, phases)
    config.clear_flag(module.BuilderFlag.TF32)  # on unless it is cleared
    for flag in options.flags(trt):
        if flag != "STRONGLY_TYPED":  # the network's
            config.set_flag(getattr(module.BuilderFlag, flag))
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if trt.is_rtx:
        _set_targets(module, config, options.targets)
    for shapes in profiles_of(entry, options.batches):
        profile = builder.create_optimization_profile()
        for tensor, shape in shapes.items():
            profile.set_shape(tensor, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:  # it never raises
            raise fault(f"{what}: its profile for {shapes}", trt, log)
    if options.timing_cache is not None:
        _load_timing_cache(config, options.timing_cache)
    try:
        plan = builder.build_serialized_network(network, config)
    except Exception as error:
        raise fault(what, trt, log, [str(error)]) from None
    if plan is None:
        raise fault(what, trt, log)
    del monitor
    if options.timing_cache is not None:
        write_bytes(options.timing_cache, bytes(config.get_timing_cache().serialize()))
    return bytes(plan)


def _parse_fault(trt: TensorRT, path: Path, parser: Any, log: Any, what: str) -> EdgepureError:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]  # their fields are methods
    kinds = [str(getattr(error.code(), "name", error.code())) for error in errors]  # UNSUPPORTED_NODE and the like
    if not any(error.node_operator() or "UNSUPPORTED" in kind for error, kind in zip(errors, kinds, strict=True)):
        said = " ".join((errors[0].desc() if errors else "; ".join(log.errors)).split())[:300] or "no reason given"
        return BundleError(
            f"{path} is not an ONNX graph that {trt} can read ({said}); export the bundle again",
            code="E-engine-refuses",
        )
    details = [
        f"{kind} in node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"
        for error, kind in zip(errors, kinds, strict=True)
    ]
    return fault(what, trt, log, details)


def _check_interface(network: Any, entry: GraphEntry, path: Path) -> None:
    """The parsed graph has the inputs and outputs of the manifest, with a free batch and nothing else free."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    # of outputs only the names: TensorRT may not know their shape before it runs
    have = {tensor.name: tuple(tensor.shape) for tensor in inputs}
    have |= {network.get_output(i).name: () for i in range(network.num_outputs)}
    want = {t.name: (-1, *t.fixed) for t in entry.inputs}
    want |= {t.name: () for t in entry.outputs}
    for name in [*want, *have]:
        if name not in have or name not in want or have[name] != want[name]:
            raise BundleError(
                f"{path}: the tensor {name!r} is {have.get(name, 'missing')}, expected {want.get(name, 'none')} (-1: "
                "any batch); its batch was fixed at export, or it does not belong to this manifest: export the bundle "
                "again",
                code="E-engine-tensor",
            )


def _set_targets(module: Any, config: Any, targets: tuple[str, ...]) -> None:
    if not targets:
        config.num_compute_capabilities = 1
        config.set_compute_capability(module.ComputeCapability.CURRENT, 0)
        return
    config.num_compute_capabilities = len(targets)
    for index, target in enumerate(targets):
        config.set_compute_capability(module.ComputeCapability.__members__[target.upper()], index)


def _load_timing_cache(config: Any, path: Path) -> None:
    """Let the builder use the measurements in a file; an empty cache if it is not there yet."""
    try:
        known = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise ConfigError(
            f"the timing cache {path} cannot be read: {error.strerror}; give another file", code="E-build-timing-cache"
        ) from None
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        raise ConfigError(
            f"the timing cache {path} is damaged, or was made by another TensorRT or on another GPU; give another file",
            code="E-build-timing-cache",
        )


def chosen_graphs(bundle: Bundle, precision: str, graphs: Sequence[str] | None) -> dict[str, GraphEntry]:
    """The graphs to build by name; None: all but ``step_any``, because engines are built for one size of the images.

    Raises:
        BundleError: the bundle does not have one of them.
        ProviderError: ``step_any`` is among them.
    """
    entries = {str(name): entry for name, entry in bundle.manifest.graphs_in(precision).items()}
    if entries.pop("step_any", None) is not None and "step_any" in (graphs or ()):
        raise ProviderError(
            "engines are built for one size of the images, and step_any takes any; purify frames by tiles there",
            code="E-provider-any-size",
        )
    unknown = sorted(set(graphs or ()) - set(entries))
    if unknown:
        raise BundleError(
            f"the bundle has no graph {unknown[0]!r}; it has {', '.join(sorted(entries))}",
            code="E-bundle-graph-missing",
        )
    return {name: entry for name, entry in entries.items() if graphs is None or name in graphs}


def _present(bundle: Bundle, key: EngineKey) -> Plan | None:
    """The engine with exactly this key, if it is there and whole."""
    plan = read_plan(plan_path(bundle, key).with_suffix(".json"))
    return plan if plan is not None and plan.key == key and plan.intact() else None

"""How fast one network is here: every engine and batch size, beside PyTorch, in units that can be compared."""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgepure.measure import BareUnet
from edgepure.purify.inflight import InFlight, Job
from edgepure.purify.purifier import Purifier
from edgepure.rows.noise import SeededNoise
from edgepure_export.graphs.step import UnetModule

from .context import CannotRunError, Context, one_line
from .engines import EngineName, Parts, engine_names, opened, with_cuda_graphs
from .meters import Meter, timed
from .networks import NETWORKS, Network, exact, make_bundle, need_torch, torch_device
from .peak import matrix_peak

#: Batch sizes of the table.
BATCHES = (1, 8, 32)


@dataclass(frozen=True)
class TorchWay:
    """A way to run PyTorch. ``mode`` of torch.compile; None: eager. ``largest_batch``: of the table, where compiling
    takes minutes."""

    dtype: torch.dtype
    mode: str | None = None
    channels_last: bool = False
    largest_batch: int = BATCHES[-1]


#: "reduce-overhead" is PyTorch's way with CUDA graphs; "max-autotune" has them too, and tries more kernels.
TORCH_WAYS = {
    "pytorch eager fp32": TorchWay(torch.float32),
    "pytorch eager fp16": TorchWay(torch.float16),
    "pytorch eager fp16 channels_last": TorchWay(torch.float16, channels_last=True),
    "pytorch compile fp16": TorchWay(torch.float16, "reduce-overhead"),
    "pytorch compile fp16 max-autotune": TorchWay(torch.float16, "max-autotune", largest_batch=1),
}
#: Largest error of a whole UNet call: root mean square over that of PyTorch's output in fp32.
LARGEST_ERROR = {"fp32": 1e-3, "fp16": 2e-2}
Values = dict[str, Any]


@dataclass
class Bench:
    """One network on this machine.

    Attributes:
        batches: sizes that are measured.
        seconds: length of one timing.
        bundle: of the network, with random weights; made after PyTorch was timed, because that takes minutes.
        flops: of one UNet call for one image.
        peaks: measured FLOP/s of a matrix product by precision.
    """

    context: Context
    network: Network
    unet: nn.Module
    bundle: Path
    batches: tuple[int, ...]
    seconds: float
    flops: float
    peaks: Mapping[str, float]
    meter: Meter

    def values(self, ms: float, spread: float, joules: float | None, batch: int, precision: str) -> Values:
        """The columns that all candidates have."""
        peak = self.peaks.get(precision)
        return {
            "batch": batch,
            "ms_per_call": ms,
            "spread": spread,
            "share_of_peak": None if peak is None else self.flops * batch / (ms * 1e-3) / peak,
            "joules_per_image_and_call": None if joules is None else joules / batch,
        }


def speed(context: Context, key: str) -> None:
    """All ways to run one of `NETWORKS`, the ones that matter most first."""
    measure(context, key, NETWORKS[key])


def measure(
    context: Context, key: str, network: Network, batches: Sequence[int] = BATCHES, seconds: float = 1.5
) -> None:
    """The table of one network; ``key`` names its bundle in the work folder."""
    made: list[Bench] = []

    def prepare() -> Values:
        unet = network.build()
        flops = count_flops(unet, network.shape, torch_device(context.device))
        meter = Meter(context.device)
        chosen = tuple(batches[:1]) if context.quick else tuple(batches)
        peaks = matrix_peak(context.device, quick=True) if torch_device(context.device) == context.device else {}
        length = 0.2 if context.quick else seconds
        made.append(Bench(context, network, unet, context.work / key, chosen, length, flops, peaks, meter))
        parameters = sum(p.numel() for p in unet.parameters())
        return {
            "title": network.title,
            "parameters": parameters,
            "gflop_per_call": flops / 1e9,
            "energy_and_memory": meter.fault or "NVML",
            **meter.state(),
        }

    if not context.run("network", prepare, needs=30, always=True):
        return
    (bench,) = made
    ways = TORCH_WAYS if context.device == "cuda" else {"pytorch eager fp32": TORCH_WAYS["pytorch eager fp32"]}
    uncompiled = {name: way for name, way in ways.items() if way.mode is None}
    _torch_ways(bench, uncompiled)

    def export() -> Values:
        make_bundle(bench.unet, network.shape, bench.bundle, context.device)
        return {"bundle_mib": sum(f.stat().st_size for f in bench.bundle.glob("*") if f.is_file()) / 2**20}

    precisions = ("fp16", "fp32") if context.device == "cuda" else ("fp32",)
    if context.run("export", export, needs=60, always=True):
        for name in engine_names(context.device, precisions):
            _engine(bench, name)
    slow = ("max-autotune",) if context.quick else ()
    _torch_ways(bench, {name: way for name, way in ways.items() if way.mode is not None and way.mode not in slow})


def count_flops(unet: nn.Module, shape: Sequence[int], device: str) -> float:
    """Floating-point operations of one UNet call for one image: a multiplication and an addition are two."""
    module = UnetModule(unet).to(device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.randn((1, *shape), device=device), torch.full((1,), 500.0, device=device))
    module.to("cpu")
    return float(counter.get_total_flops())


# ---- PyTorch ---------------------------------------------------------------------------------------------------------


def _torch_ways(bench: Bench, ways: Mapping[str, TorchWay]) -> None:
    for name, way in ways.items():
        for batch in bench.batches:
            if batch <= way.largest_batch:
                needs = {None: 20, "reduce-overhead": 90}.get(way.mode, 240)
                bench.context.run(f"{name}, batch {batch}", partial(_torch_call, bench, way, batch), needs=needs)


def _torch_call(bench: Bench, way: TorchWay, batch: int) -> Values:
    """`torch_call`; what PyTorch cannot do (no compiler, no GPU) is no failure of ours."""
    try:
        return torch_call(bench, way, batch)
    except Exception as error:
        if not isinstance(error, CannotRunError):
            traceback.print_exc(file=sys.stderr)
        raise CannotRunError(one_line(error)) from error


def torch_call(bench: Bench, way: TorchWay, batch: int) -> Values:
    """PyTorch's UNet call: eager, or compiled in a mode of torch.compile. cuDNN may try its kernels before, as ONNX
    Runtime does."""
    device = bench.context.device
    need_torch(device)
    layout = torch.channels_last if way.channels_last else torch.contiguous_format
    before = bench.meter.memory()
    with _moved(bench.unet, device, way.dtype) as module, _tried_kernels():
        module.to(memory_format=layout)
        torch.compiler.reset()  # every batch size is compiled for itself
        run: Callable[[Tensor, Tensor], Tensor] = module if way.mode is None else torch.compile(module, mode=way.mode)
        x = torch.randn((batch, *bench.network.shape), device=device).to(way.dtype, memory_format=layout)
        t = torch.full((batch,), 500.0, device=device)

        def call() -> None:
            with torch.no_grad():
                run(x, t)

        with exact(device) if way.dtype == torch.float32 else nullcontext():
            found = timed(call, _wait(device), bench.meter, bench.seconds)
        used = bench.meter.memory()
        precision = "fp16" if way.dtype == torch.float16 else "fp32"
        values = bench.values(found.ms, found.spread, found.joules, batch, precision)
        values["peak_memory_mib"] = _mib(before, used)
        return {**values, "compiled": way.mode or "no", "layout": "channels_last" if way.channels_last else "default"}


@contextmanager
def _tried_kernels() -> Iterator[None]:
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def _moved(unet: nn.Module, device: str, dtype: torch.dtype) -> Iterator[nn.Module]:
    """The network on a device in a dtype; afterwards it is on the CPU in fp32 again, with the weights it had."""
    if dtype != torch.float32:
        yield UnetModule(copy.deepcopy(unet).to(device=device, dtype=dtype)).eval()
        return
    try:
        yield UnetModule(unet.to(device)).eval()
    finally:
        unet.to("cpu")


def _wait(device: str) -> Callable[[], None]:
    return torch.cuda.synchronize if device == "cuda" else (lambda: None)


def _mib(before: int | None, after: int | None) -> float | None:
    return None if before is None or after is None else (after - before) / 2**20


# ---- edgepure's engines ----------------------------------------------------------------------------------------------


def _engine(bench: Bench, name: EngineName) -> None:
    """All batch sizes of one engine: it is built and opened once."""
    if bench.context.left() < 60 and not bench.context.quick:
        bench.context.cannot(f"edgepure {name}", "the time is used up", later=True)
        return

    def run() -> Values:
        from .variants import add_half

        before = bench.meter.memory()
        if name.precision in ("fp16", "bf16"):
            add_half(bench.bundle, name.precision, bench.context.work)
        with opened(bench.bundle, name, bench.batches) as purifier:
            parts = Parts(purifier.engine("unet"), purifier.stepper("step"), purifier)
            _engine_calls(bench, f"edgepure {name}", name.precision, parts, before)
            error = output_error(purifier)
        return {"ok": error <= LARGEST_ERROR[name.precision], "relative_error_to_pytorch": error}

    def run_with_graphs() -> Values:
        before = bench.meter.memory()
        with with_cuda_graphs(bench.bundle, name, max(bench.batches)) as parts:
            _engine_calls(bench, f"edgepure {name}, CUDA graphs", name.precision, parts, before)
        return {"graphs": "on"}

    if bench.context.run(f"edgepure {name}", run, needs=20) and name.provider == "cuda":
        bench.context.run(f"edgepure {name} with CUDA graphs", run_with_graphs, needs=20)


def _engine_calls(bench: Bench, title: str, precision: str, parts: Parts, before: int | None) -> None:
    for batch in bench.batches:
        work = partial(engine_call, bench, parts, precision, batch, before)
        bench.context.run(f"{title}, batch {batch}", work, needs=10)


def engine_call(bench: Bench, parts: Parts, precision: str, batch: int, before: int | None) -> Values:
    """The bare UNet call, and a purification over (rows x bare call)."""
    bare, stepper, purifier = BareUnet(parts.unet, batch), parts.stepper, parts.purifier
    plan = purifier.plan()
    refs = np.random.default_rng(1).uniform(-1.0, 1.0, (batch, *purifier.image_shape)).astype(np.float32)
    source = SeededNoise(0)

    def call() -> None:
        bare(500.0)

    def purification() -> None:
        noises = [source.for_image(plan, i, 0, None, purifier.image_shape) for i in range(batch)]
        jobs = [Job(plan, noise, ref) for noise, ref in zip(noises, refs, strict=True)]
        InFlight(stepper).run(jobs, lambda job, x: None)

    try:
        found = timed(call, bare.wait, bench.meter, bench.seconds)
        loop = timed(purification, stepper.wait, bench.meter, bench.seconds)
        again = timed(call, bare.wait, bench.meter, bench.seconds)  # clocks may change: on both sides of the loop
    finally:
        bare.close()
    used = bench.meter.memory()
    rows = len(plan.rows)
    ms, spread = 0.5 * (found.ms + again.ms), max(found.spread, again.spread)
    return {
        **bench.values(ms, spread, found.joules, batch, precision),
        "peak_memory_mib": _mib(before, used),
        "loop_cost": loop.ms / (rows * ms),
        "purification_ms": loop.ms,
        "rows": rows,
        "joules_per_image": None if loop.joules is None else loop.joules / batch,
    }


def output_error(purifier: Purifier) -> float:
    """Root mean square error of the UNet graph on its recorded vectors, over that of PyTorch's output."""
    vectors = purifier.bundle.selftest().graphs["unet"]
    found = purifier.engine("unet").run(vectors.inputs)["epsilon"].astype(np.float64)
    wanted = vectors.outputs["epsilon"].astype(np.float64)
    return float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)))

"""The engines that are tried, and how one of them is opened on a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgepure
from edgepure.engines.base import Engine, Stepper
from edgepure.purify.purifier import Purifier

#: Providers of a GPU in the order in which they are tried.
ON_GPU = ("cuda", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class EngineName:
    """A provider and a precision, ``tensorrt fp16``."""

    provider: str
    precision: str

    def __str__(self) -> str:
        return f"{self.provider} {self.precision}"


def engine_names(device: str, precisions: Sequence[str]) -> list[EngineName]:
    """Every combination that is tried on a device; the cheap ones first. A rehearsal on the CPU knows fp32 alone."""
    if device == "cpu":
        return [EngineName("cpu", "fp32")]
    return [EngineName(provider, precision) for provider in ON_GPU for precision in precisions]


@dataclass(frozen=True)
class Parts:
    """What a speed measurement needs of an engine."""

    unet: Engine
    stepper: Stepper
    purifier: Purifier


def _timing_cache(bundle: Path) -> Path:
    """What TensorRT measured when it built the last engines makes the next builds much shorter."""
    from edgepure.engines.tensorrt.engine_files import Machine
    from edgepure.engines.tensorrt.module import import_tensorrt

    return bundle.parent / f"timing-{import_tensorrt('tensorrt').version}-{Machine.here().sm}.cache"


@contextmanager
def opened(bundle: Path, name: EngineName, batches: Sequence[int] = (1, 2, 4, 8)) -> Iterator[Purifier]:
    """The bundle on an engine with as many slots as the largest batch; engines that have to be built are built first.

    Raises:
        ProviderError: this machine cannot run it.
    """
    if name.provider.startswith("tensorrt"):
        from edgepure.engines.tensorrt.build import build_engines

        cache = _timing_cache(bundle) if name.provider == "tensorrt" else None
        build_engines(bundle, name.precision, tuple(batches), provider=name.provider, timing_cache=cache)
    with edgepure.load(bundle, name.provider, precision=name.precision, slots=max(batches)) as purifier:
        yield purifier


@contextmanager
def with_cuda_graphs(bundle: Path, name: EngineName, slots: int) -> Iterator[Parts]:
    """ONNX Runtime's CUDA provider with its own CUDA graphs, which `edgepure.load` leaves off."""
    from edgepure.engines.gpu.onnxruntime import CudaEngine, CudaStepper

    with edgepure.load(bundle, name.provider, precision=name.precision, slots=slots) as purifier, ExitStack() as stack:
        unet, step = (
            stack.enter_context(
                CudaEngine(purifier.bundle.graph_path(graph, name.precision), precision=name.precision, graphs=True)
            )
            for graph in ("unet", "step")
        )
        assert isinstance(step, CudaEngine)
        stepper = CudaStepper(step, slots)
        stack.callback(stepper.close)
        yield Parts(unet, stepper, purifier)


@contextmanager
def stepper_in_a_way(purifier: Purifier, name: EngineName, way: str, slots: int = 8) -> Iterator[Any]:
    """The slots of the step graph of an open bundle, executed with ``graphs``, with ``no_graphs``, or (without them on
    ONNX Runtime) with noise from the host, ``host_noise``."""
    noise = "host" if way == "host_noise" else "auto"
    with ExitStack() as stack:
        stepper: Stepper
        if name.provider == "cuda":
            from edgepure.engines.gpu.onnxruntime import CudaEngine, CudaStepper

            path = purifier.bundle.graph_path("step", name.precision)
            engine = stack.enter_context(CudaEngine(path, precision=name.precision, graphs=way == "graphs"))
            assert isinstance(engine, CudaEngine)
            stepper = CudaStepper(engine, slots, noise=noise)
        else:
            from edgepure.engines.tensorrt.engine import TensorRTEngine, TensorRTStepper

            built = purifier.engine("step")
            assert isinstance(built, TensorRTEngine)
            stepper = TensorRTStepper(built, slots, graphs=way != "no_graphs", noise=noise)
        stack.callback(stepper.close)
        yield stepper

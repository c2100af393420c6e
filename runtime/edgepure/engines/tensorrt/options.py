"""What is checked before an engine is built: minutes of building must not end in something that was known before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...bundle.external_data import external_tensors
from ...errors import ConfigError, EdgepureError, ProviderError
from ...machine.memory import available_memory
from ...machine.nvidia import Gpu
from ..gpu.cuda import call
from .engine_files import Machine
from .module import TENSORRT, TensorRT, portable

#: GPUs that TensorRT for RTX builds for on a machine without one: Ampere, Ada, Blackwell.
PORTABLE_TARGETS = ("sm80", "sm86", "sm89", "sm120")
#: The first compute capability that has a precision.
NEEDS = {"bf16": (8, 0), "fp8": (8, 9)}
#: Largest batch that may be asked for.
LARGEST_BATCH = 4096
#: A build is refused if less host memory than this many times the graph's weights is free: they are in memory as they
#: were parsed, as the builder arranged them, and in the finished engine.
HOST_MEMORY_OVER_WEIGHTS = 3


@dataclass(frozen=True)
class BuildOptions:
    """What all engines of one `build_engines` have in common. Its parameters are explained there."""

    batches: tuple[int, ...]
    targets: tuple[str, ...] = ()
    version_compatible: bool = False
    timing_cache: Path | None = None
    workspace_mb: int | None = None
    tf32: bool = False

    def flags(self, trt: TensorRT) -> tuple[str, ...]:
        """Names of what is set on the network and on the builder."""
        chosen = {
            "STRONGLY_TYPED": True,
            "TF32": self.tf32,
            "VERSION_COMPATIBLE": self.version_compatible,
            # Only TensorRT for RTX has it: contexts live in memory of ours, and CUDA graphs can be captured.
            "REQUIRE_USER_ALLOCATION": hasattr(trt.module.BuilderFlag, "REQUIRE_USER_ALLOCATION"),
        }
        return tuple(name for name, on in chosen.items() if on)


def check_batches(batches: Sequence[int]) -> tuple[int, ...]:
    """The batch sizes, ascending.

    Raises:
        ConfigError: none, one twice, or one out of range.
    """
    sizes = tuple(sorted(batches))
    if not sizes or len(set(sizes)) < len(sizes) or sizes[0] < 1 or sizes[-1] > LARGEST_BATCH:
        raise ConfigError(
            f"batch sizes {', '.join(str(b) for b in batches) or 'none'}: expected different numbers from 1 to "
            f"{LARGEST_BATCH}, for example 1, 4, 8",
            code="E-build-batch",
        )
    return sizes


def choose_targets(trt: TensorRT, gpu: Gpu | None, targets: Sequence[str], precisions: set[str]) -> tuple[str, ...]:
    """The GPUs to build for, checked; empty: the one here.

    Raises:
        ConfigError: targets that this TensorRT does not have.
        ProviderError: TensorRT for RTX, and a GPU that it is not made for (Hopper, Jetson).
    """
    if not trt.is_rtx:
        if targets:
            raise ConfigError(
                f"{trt} builds only for the GPU of this machine; other targets need TensorRT for RTX "
                f"(provider {portable()}, {TENSORRT[portable()].install.line})",
                code="E-build-here",
            )
        return ()
    offered = [name.lower() for name in trt.module.ComputeCapability.__members__ if name.startswith("SM")]
    if not targets:
        if gpu is not None:
            if f"sm{gpu.compute_capability.replace('.', '')}" not in offered:
                raise ProviderError(
                    f"{trt} has no engines for {gpu.name} (compute capability {gpu.compute_capability}): it is made "
                    f"for {', '.join(offered)}; choose provider tensorrt or cuda",
                    code="E-build-device",
                )
            return ()
        lowest = max((NEEDS[p] for p in precisions if p in NEEDS), default=(0, 0))
        return tuple(target for target in PORTABLE_TARGETS if capability(target) >= lowest)
    names = tuple(dict.fromkeys(target.lower() for target in targets))
    unknown = [name for name in names if name not in offered]
    if unknown:
        raise ConfigError(
            f"{trt} cannot build for {unknown[0]!r}; it knows {', '.join(offered)}", code="E-build-target"
        )
    return names


def capability(target: str) -> tuple[int, int]:
    """``sm86`` -> (8, 6)."""
    return int(target[2:-1]), int(target[-1])


def check_options(trt: TensorRT, options: BuildOptions) -> None:
    if trt.is_rtx and options.version_compatible:
        raise ConfigError(
            f"{trt} builds no version-compatible engines: build them again after an update",
            code="E-build-version-compatible",
        )
    if trt.is_rtx and options.timing_cache is not None:
        raise ConfigError(
            f"{trt} measures nothing while it builds, so it has no timing cache; leave it out",
            code="E-build-timing-cache-none",
        )


def check_precision(precision: str, gpu: Gpu | None, targets: tuple[str, ...]) -> None:
    needed = NEEDS.get(precision)
    if needed is None:
        return
    have = {target: capability(target) for target in targets}
    if gpu is not None and not targets:
        major, _, minor = gpu.compute_capability.partition(".")
        have[f"{gpu.name} ({gpu.compute_capability})"] = (int(major), int(minor))
    for name, found in have.items():
        if found < needed:
            raise ProviderError(
                f"{precision} needs a GPU of compute capability {needed[0]}.{needed[1]} or later, and {name} is "
                f"older; choose another precision{' or other targets' if targets else ''}",
                code="E-provider-precision",
            )


def choose_workspace(workspace_mb: int | None, machine: Machine) -> int | None:
    if workspace_mb is not None:
        if not 1 <= workspace_mb <= 1 << 20:
            raise ConfigError(f"workspace {workspace_mb} MiB: expected 1 to {1 << 20}", code="E-build-workspace")
        return workspace_mb
    if machine.l4t and machine.gpu:
        free, _ = call("cudaMemGetInfo")
        return max(int(free) >> 21, 1)
    return None


def check_memory(path: Path, machine: Machine) -> None:
    """Refuse a build that cannot end well, before minutes have gone into it."""
    folder = path.parent
    sources = {folder / tensor.location for tensor in external_tensors(path)}
    weights = path.stat().st_size + sum(source.stat().st_size for source in sources)
    need = HOST_MEMORY_OVER_WEIGHTS * weights
    available = available_memory()
    if available is not None and available < need:
        raise EdgepureError(
            f"not enough memory to build {path.name}: about {need >> 20} MiB are needed and {available >> 20} MiB are "
            "free; end other programs, or build on a larger machine of the same kind",
            code="E-memory",
        )
    if machine.gpu:
        free, _ = call("cudaMemGetInfo")
        if free < weights:
            raise EdgepureError(
                f"not enough GPU memory to build {path.name}: its weights alone take {weights >> 20} MiB and "
                f"{int(free) >> 20} MiB are free; end what else runs on the GPU",
                code="E-build-memory",
            )

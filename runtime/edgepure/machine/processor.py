"""The processor: its name, what it computes in hardware, how many cores there are to compute with."""

from __future__ import annotations

import os
import platform

CPUINFO = "/proc/cpuinfo"
#: Features that decide how fast a convolution runs, as Linux spells them.
FEATURES = (
    "sse4_2",
    "avx",
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimdhp",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)

#: Arm's own cores by "CPU part", all that Linux tells of them. Jetson: Cortex-A78AE (Orin), Neoverse-V3AE (Thor).
_ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd85": "Cortex-X925",
    "0xd87": "Cortex-A725",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
    "0xd83": "Neoverse-V3AE",
    "0xd84": "Neoverse-V3",
}


def cpu_name() -> str:
    """The processor as its maker calls it (Arm: its kinds of cores), or the architecture."""
    # Before "model name": that is "ARMv8 Processor rev 1 (v8l)" on a Jetson, and missing on most other Arm machines.
    if set(_cpuinfo("CPU implementer")) == {"0x41"}:
        cores = [_ARM_CORES.get(part, f"Arm core {part}") for part in dict.fromkeys(_cpuinfo("CPU part"))]
        return " + ".join(cores)
    named = [*_cpuinfo("model name"), *_cpuinfo("Hardware"), platform.processor(), platform.machine()]
    return next((name for name in named if name), "unknown")


def cpu_features() -> tuple[str, ...]:
    """Those of `FEATURES` that it has; none where the system does not list them."""
    lines = [*_cpuinfo("flags"), *_cpuinfo("Features")]
    flags = set(lines[0].split()) if lines else set()
    return tuple(name for name in FEATURES if name in flags)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(key: str) -> list[str]:
    """What /proc/cpuinfo says under this key, one value a processor; nothing where the system has no such file."""
    try:
        with open(CPUINFO, encoding="utf-8", errors="replace") as lines:
            pairs = [line.partition(":") for line in lines]
    except OSError:
        return []
    return [value.strip() for name, _, value in pairs if name.strip() == key]

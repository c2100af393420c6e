"""The processor: its name, what it computes in hardware, how many cores there are to compute with."""

from __future__ import annotations

import os
import platform

#: Features that decide how fast a convolution runs, as Linux spells them.
FEATURES = (
    "sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip


def cpu_name() -> str:
    """The processor as its maker calls it (boards: as theirs does), or the architecture."""
    return _cpuinfo("model name") or _cpuinfo("Hardware") or platform.processor() or platform.machine()


def cpu_features() -> tuple[str, ...]:
    """Those of `FEATURES` that it has; none where the system does not list them."""
    flags = set((_cpuinfo("flags") or _cpuinfo("Features") or "").split())
    return tuple(name for name in FEATURES if name in flags)


def usable_cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(key: str) -> str | None:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == key:
                    return value.strip()
    except OSError:
        pass
    return None

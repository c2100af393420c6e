"""Many purifications on one engine, while the memory that is in use is watched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.purify.purifier import Purifier

from .meters import Meter

#: Growth after the first tenth that is taken for the allocators' own grain.
ALLOWED_ON_GPU, ALLOWED_ON_HOST = 4 << 20, 16 << 20
#: Looks at the memory, evenly spread.
LOOKS = 10


def watch(engine: Purifier, device: str, number: int) -> Mapping[str, Any]:
    """Purify ``number`` images, in requests of as many as the engine has slots."""
    meter = Meter(device)
    images = np.random.default_rng(0).random((engine.slots, *engine.image_shape), dtype=np.float32)
    host: list[int] = []
    gpu: list[int] = []
    done = 0
    for look in range(LOOKS):
        while done < (look + 1) * number // LOOKS:
            engine.run(images, votes=1, noise=done)
            done += len(images)
        host.append(resident())
        used = meter.memory()
        if used is not None:
            gpu.append(used)
    growth = max(host) - host[0]
    growth_on_gpu = max(gpu) - gpu[0] if gpu else None
    return {
        "ok": growth <= ALLOWED_ON_HOST and (growth_on_gpu is None or growth_on_gpu <= ALLOWED_ON_GPU),
        "purifications": done,
        "host_growth_mib": growth / 2**20,
        "gpu_growth_mib": None if growth_on_gpu is None else growth_on_gpu / 2**20,
        "host_mib": [n / 2**20 for n in host],
        "gpu_mib": [n / 2**20 for n in gpu],
        "gpu_memory": meter.fault or "read by NVML, of everything that runs on the GPU",
    }


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

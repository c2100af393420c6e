"""Joules that the NVIDIA GPUs of this machine have used, as their management library (NVML) counts them.

The library comes with the driver and is asked through ctypes; no package is needed. GPUs before Volta, and the GPU
inside a Jetson, have no counter. A counter belongs to the whole GPU: what others do on it is in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from typing import Any

#: Longest UUID, with its end.
_UUID = 96


class EnergyCounters:
    """The counters of all GPUs that have one."""

    def __init__(self, library: Any) -> None:
        """``library``: a `ctypes.CDLL` of NVML."""
        self._library = library
        self._devices: dict[str, ctypes.c_void_p] = {}
        count = ctypes.c_uint()
        if library.nvmlInit_v2() != 0 or library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return
        for index in range(count.value):
            device, name = ctypes.c_void_p(), ctypes.create_string_buffer(_UUID)
            if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(device)) != 0:
                continue
            if library.nvmlDeviceGetUUID(device, name, ctypes.c_uint(_UUID)) == 0 and self._read(device) is not None:
                self._devices[name.value.decode(errors="replace")] = device

    def joules(self) -> dict[str, float]:
        """By the GPU's UUID, since its driver was loaded. Empty where nothing counts."""
        found = {uuid: self._read(device) for uuid, device in self._devices.items()}
        return {uuid: joules for uuid, joules in found.items() if joules is not None}

    def _read(self, device: ctypes.c_void_p) -> float | None:
        millijoules = ctypes.c_ulonglong()
        code = self._library.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(millijoules))
        return millijoules.value / 1e3 if code == 0 else None


@cache
def _counters() -> EnergyCounters | None:
    try:
        return EnergyCounters(ctypes.CDLL("libnvidia-ml.so.1"))
    except (OSError, AttributeError):  # there is no driver, or one that is older than the counter
        return None


def joules() -> dict[str, float]:
    """Of this machine's GPUs by their UUID, since the driver was loaded. Empty where there is no counter."""
    counters = _counters()
    return {} if counters is None else counters.joules()


def spent(since: Mapping[str, float]) -> float | None:
    """Joules of all GPUs since `joules` gave ``since``; None where there is no counter."""
    return sum(now - since[gpu] for gpu, now in joules().items() if gpu in since) if since else None

"""Time, memory and energy of calls that a GPU works off on its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any

#: Calls before anything is counted: kernels are chosen, clocks rise, graphs are captured.
WARM_UP = 5


class Meter:
    """Memory and energy of the first GPU by NVML (package nvidia-ml-py); says nothing where there is no NVML.

    Attributes:
        fault: why there is nothing to read; empty if there is.
    """

    def __init__(self, device: str) -> None:
        self._nvml: Any = None
        self.fault = "there is no GPU" if device != "cuda" else ""
        if self.fault:
            return
        try:
            import pynvml

            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(0)
            self._nvml = pynvml
        except Exception as error:  # not installed, or NVML's own
            self.fault = f"NVML cannot be used ({error}): pip install nvidia-ml-py"

    def memory(self) -> int | None:
        """Bytes of GPU memory that are used by everything that runs on it."""
        return None if self._nvml is None else int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)

    def joules(self) -> float | None:
        """Energy that the GPU has used since the driver was loaded; None where it does not count it."""
        try:
            return None if self._nvml is None else self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) / 1e3
        except Exception:  # older GPUs and Jetson
            return None

    def state(self) -> dict[str, Any]:
        """Clock in MHz, temperature in degrees, and whether the GPU holds itself back."""
        if self._nvml is None:
            return {}
        nvml = self._nvml
        return {
            "sm_mhz": nvml.nvmlDeviceGetClockInfo(self._handle, nvml.NVML_CLOCK_SM),
            "celsius": nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": hex(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._handle)),
        }


@dataclass(frozen=True)
class Timing:
    """Of one kind of call.

    Attributes:
        ms: median over the rounds of the milliseconds of a call, the calls of a round started one after another.
        spread: (slowest - fastest round) / median.
        calls: that were timed.
        joules: energy of one call; None where it is not counted, or where the rounds were too short for the counter.
    """

    ms: float
    spread: float
    calls: int
    joules: float | None


#: The energy counter is renewed some ten times a second: shorter measurements are not reported.
_SHORTEST_FOR_ENERGY = 0.5


def timed(
    call: Callable[[], object], wait: Callable[[], object], meter: Meter, seconds: float = 1.5, rounds: int = 7
) -> Timing:
    """Time a call that may return before it is done; ``wait`` returns when all of them are."""
    for _ in range(WARM_UP):
        call()
    wait()
    start = perf_counter()
    call()
    wait()
    once = max(perf_counter() - start, 1e-6)
    count = max(1, round(seconds / rounds / once))
    times = []
    energy, begun = meter.joules(), perf_counter()
    for _ in range(rounds):
        start = perf_counter()
        for _ in range(count):
            call()
        wait()
        times.append((perf_counter() - start) / count)
    energy_after, length = meter.joules(), perf_counter() - begun
    median = statistics.median(times)
    joules = None
    if energy is not None and energy_after is not None and length >= _SHORTEST_FOR_ENERGY:
        joules = (energy_after - energy) / (rounds * count)
    return Timing(1e3 * median, (max(times) - min(times)) / median, rounds * count, joules)

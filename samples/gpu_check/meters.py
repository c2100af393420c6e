"""Time, memory and energy of calls that a GPU works off on its own."""

from __future__ import annotations

import os
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
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0]
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible) if visible.isdigit() else 0)
            self._nvml = pynvml
        except Exception as error:  # not installed, or NVML's own
            self.fault = f"NVML cannot be used ({error}): pip install nvidia-ml-py"

    def memory(self) -> int | None:
        """Bytes of GPU memory that are used by everything that runs on it; None where NVML does not tell."""
        info = self._ask("nvmlDeviceGetMemoryInfo")
        return None if info is None else int(info.used)

    def joules(self) -> float | None:
        """Energy that the GPU has used since the driver was loaded; None where it does not count it."""
        energy = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if energy is None else float(energy) / 1e3

    def state(self) -> dict[str, Any]:
        """Clock in MHz, temperature in degrees, and whether the GPU holds itself back; what NVML tells of it."""
        if self._nvml is None:
            return {}
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        found = {
            "sm_mhz": self._ask("nvmlDeviceGetClockInfo", self._nvml.NVML_CLOCK_SM),
            "celsius": self._ask("nvmlDeviceGetTemperature", self._nvml.NVML_TEMPERATURE_GPU),
            "throttle_reasons": None if reasons is None else hex(reasons),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _ask(self, function: str, *arguments: Any) -> Any:
        """A question to NVML; None where it has no answer: older GPUs, Jetson, parts of a GPU, a newer NVML."""
        try:
            return None if self._nvml is None else getattr(self._nvml, function)(self._handle, *arguments)
        except Exception:  # NVML's own classes
            return None


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

"""Joules are read through NVML; a library in C answers here, as the real one is asked."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import environment
from fake_libcuda import compile_c

from edgepure.machine.energy import EnergyCounters

#: Three GPUs: one that counts, one that has no counter (NVML_ERROR_NOT_SUPPORTED), one that is lost.
NVML = r"""
#include <string.h>
static unsigned long long used = 5000000000ULL;
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 3; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    *device = (void *)(0x7f0000000000 + index); return index == 2 ? 15 : 0;
}
int nvmlDeviceGetUUID(void *device, char *name, unsigned length)
{
    if (length < 80) return 7;
    strcpy(name, (unsigned long long)device & 1 ? "GPU-old" : "GPU-new"); return 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules)
{
    if (device != (void *)0x7f0000000000) return 3;
    *millijoules = used += 1500; return 0;
}
"""


def library(folder: Path, init: int = 0) -> Path:
    return compile_c(f"#define INIT {init}\n{NVML}", folder / "libnvidia-ml.so.1")


def test_gpus_that_count_are_read(tmp_path: Path) -> None:
    counters = EnergyCounters(ctypes.CDLL(str(library(tmp_path))))
    first, second = counters.joules(), counters.joules()
    assert list(first) == ["GPU-new"]
    assert first["GPU-new"] > 4_000_000.0 and second["GPU-new"] - first["GPU-new"] == pytest.approx(1.5)


def test_a_driver_that_does_not_start_counts_nothing(tmp_path: Path) -> None:
    assert EnergyCounters(ctypes.CDLL(str(library(tmp_path, init=9)))).joules() == {}


METRICS = """
from edgepure.serve.metrics import Metrics
from edgepure.serve.models import Models
print(Metrics(Models(1.0)).text().decode())
"""


@pytest.mark.needs("prometheus_client", "starlette")
@pytest.mark.parametrize("there", [True, False])
def test_metrics_have_joules_where_there_is_a_counter(tmp_path: Path, there: bool) -> None:
    if there:
        library(tmp_path)
    env = environment(LD_LIBRARY_PATH=str(tmp_path))
    text = subprocess.run([sys.executable, "-c", METRICS], env=env, capture_output=True, text=True, check=True).stdout
    assert ('edgepure_energy_joules_total{gpu="GPU-new"} ' in text) is there

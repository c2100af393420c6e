"""Resource errors of any engine have codes of their own, and no advice to export a bundle again."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import environment

from edgepure.machine.shortage import shortage


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("Resource temporarily unavailable"), "E-threads"),
        (RuntimeError("PosixThread pthread_create failed, error code: 11 error msg: Resour"), "E-threads"),
        (RuntimeError("can't start new thread"), "E-threads"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "E-threads"),
        (RuntimeError("pthread_create failed, error code: 12 error msg: Cannot allocate memory"), "E-memory"),
        (RuntimeError("libplugin.so: failed to map segment from shared object"), "E-memory"),
        (ImportError("libplugin.so: cannot allocate memory in static TLS block"), "E-memory"),
        (RuntimeError("std::bad_alloc"), "E-memory"),
        (RuntimeError("Failed to allocate memory for requested buffer of size 4611686018427387904"), "E-memory"),
        (MemoryError(), "E-memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "E-memory"),
        (OSError(errno.EMFILE, "Too many open files"), "E-open-files"),
        (OSError(errno.ENFILE, "Too many open files in system"), "E-open-files"),
        (RuntimeError("open(weights.bin) failed: Too many open files"), "E-open-files"),
        (OSError(errno.ENOSPC, "No space left on device"), "E-disk-full"),
        (OSError(errno.ENOENT, "No such file", "bad_alloc"), None),
        (RuntimeError("Invalid model: node has no inputs"), None),
        (RuntimeError(""), None),
    ],
)  # fmt: skip
def test_causes(error: Exception, code: str | None) -> None:
    found = shortage(error)
    assert (found and found.code) == code
    assert found is None or "export" not in str(found)


#: Loads, then takes the resource away, then lets the first graph be opened.
PROGRAM = """
import os, resource, sys, edgepure
provider, what = sys.argv[1:]
edgepure.load(edgepure.demo_bundle(), provider=provider).close()   # everything that is imported is imported
images = edgepure.demo_images().clean[:1]
purifier = edgepure.load(edgepure.demo_bundle(), provider=provider)
if what == "threads":
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
else:
    count = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
try:
    purifier.purify(images, "uniform")
except edgepure.EdgepureError as error:
    print(error.code, "export" in str(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are Linux's")
@pytest.mark.parametrize("provider", ["cpu", "openvino"])
@pytest.mark.parametrize(("what", "code"), [("threads", "E-threads"), ("files", "E-open-files")])
def test_engines_without_resources(provider: str, what: str, code: str, tmp_path: Path) -> None:
    if provider == "openvino":
        pytest.importorskip("openvino")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("one core needs no thread")
    start: list[str] = []
    if what == "threads" and os.geteuid() == 0:  # the system holds root to no number of threads
        start = ["setpriv", "--reuid=54321", "--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
        if subprocess.run([*start, "true"], capture_output=True).returncode:
            pytest.skip("setpriv cannot change the user here")
    env = environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", HOME=str(tmp_path))
    done = subprocess.run(
        [*start, sys.executable, "-c", PROGRAM, provider, what], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == [code, "False"], done.stderr

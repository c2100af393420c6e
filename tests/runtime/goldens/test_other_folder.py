"""The golden tests on another folder: other seeds, sizes, step counts and file names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import other_goldens
import pytest
from golden_cases import gnsp
from golden_data import load
from golden_trace import check, numpy_stepper, run

pytestmark = pytest.mark.goldens
pytest.importorskip("onnx")  # reads the weights of the tiny networks

REPOSITORY = Path(__file__).resolve().parents[3]
BUNDLED = REPOSITORY / "tests" / "goldens"


@pytest.mark.slow  # the golden tests once more, in a process of their own
def test_another_folder_is_read_when_the_environment_names_it(tmp_path: Path) -> None:
    folder = other_goldens.make(BUNDLED, tmp_path / "other")
    tests = [f"tests/runtime/goldens/test_g{n}.py" for n in range(2, 8)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", *tests],
        cwd=REPOSITORY,
        env={**os.environ, "EDGEPURE_GOLDENS": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for name in ("dhni_cfgX", "dhni_cfgY_long", "ddim6_eta0.7_noclip"):
        assert f"[{name}" in done.stdout or f"-{name}]" in done.stdout, name


def test_a_changed_file_does_not_pass(tmp_path: Path) -> None:
    folder = other_goldens.make(BUNDLED, tmp_path / "other")
    path = folder / "G7_gnsp" / "gnsp_ddpm.npz"
    arrays = load(path)
    np.savez(path, **{**arrays, "noise": arrays["noise"][::-1]})
    case = gnsp(path)
    with pytest.raises(AssertionError, match="off by"):
        check(case, run(case, numpy_stepper(case, 2)))

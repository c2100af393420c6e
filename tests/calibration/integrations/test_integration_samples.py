"""The samples run, with the real libraries, and print what they did together with its protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "samples" / "integrations").glob("*.py"))
LIBRARY = {
    "art_pgd": "art",
    "autoattack_rand": "pyautoattack",
    "blackbox_square": "art",
    "robustbench_style": "torchattacks",
    "torchattacks_eot": "torchattacks",
}

pytestmark = [pytest.mark.samples, pytest.mark.slow]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda p: p.stem)
def test_sample_runs(sample: Path) -> None:
    pytest.importorskip(LIBRARY[sample.stem])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [*(str(ROOT / part) for part in ("runtime", "export", "calibration")), os.environ.get("PYTHONPATH", "")]
        ),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(sample)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    assert lines and all("noise" in line and "Linf 0.1" in line and "% right clean" in line for line in lines)
    readme = (sample.parent / "README.md").read_text(encoding="utf-8")
    assert sample.name in readme

"""The demonstration from end to end, on a few images: what ``make demo`` does on all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import edgepure
from edgepure.demo import demo_bundle

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_whole_road(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "samples/digits/demo.py", "--out", str(tmp_path), "--quick", "--cores", "2"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "comparisons pass" in done.stdout
    with edgepure.load(tmp_path / "bundle", threads=1) as purifier:
        presets = set(purifier.presets)
    assert presets == set(edgepure.Bundle.open(demo_bundle()).manifest.presets)

    data = json.loads((tmp_path / "report.json").read_text())
    assert {method["name"] for method in data["methods"]} == presets
    assert data["methods"][0]["name"] == data["default"] == "heterogeneous"
    assert data["plain"]["clean"] >= 0.9
    assert data["plain"]["attacked"] <= 0.1
    for method in data["methods"]:
        assert method["clean"] >= 0.9
        assert method["attacked"] >= 0.7
        assert 0.0 <= method["whitebox"] <= 1.0
        assert method["images"] == {"clean": 40, "attacked": 40, "whitebox": 8}
        for column, (low, high) in method["interval95"].items():
            assert low <= method[column] <= high
    whitebox = data["protocol"]["whitebox"]
    assert (whitebox["attack"], whitebox["eps"], whitebox["steps"], whitebox["eot"]) == ("PGD-EOT", 0.05, 15, 3)
    assert "detached" in whitebox["gradient"]
    assert set(data["protocol"]) == {"clean", "attacked", "whitebox", "plain_whitebox"}
    assert data["notes"][0].startswith("A quick run")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Attacked through the defence" in page

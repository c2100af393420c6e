"""``edgepure demo``: it needs no torch, writes its report, and purifies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code

import edgepure
from edgepure.demo import demo_bundle, demo_images, run_demo
from edgepure.demo import shipped as demo_data
from edgepure.demo.evaluate import default_first, evaluate, evaluate_methods, one_of_each_class

MAIN = ("uniform", "heterogeneous", "uniform-ssni", "heterogeneous-ssni")


@pytest.fixture(scope="module")
def purifier() -> edgepure.Purifier:
    return edgepure.load(demo_bundle(), threads=1, slots=32)


def test_it_runs_where_torch_cannot_be_imported(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxscript', 'edgepure_export', 'sklearn'): sys.modules[name] = None\n"
        "from edgepure.demo import run_demo\n"
        "report = run_demo('out', presets=['uniform'], threads=1)\n"
        "print(report.methods[0].name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "uniform"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_report_says_what_was_and_what_was_not_run(tmp_path: Path) -> None:
    calls: list[tuple[float, str]] = []
    report = run_demo(tmp_path, presets=MAIN, threads=1, on_progress=lambda share, what: calls.append((share, what)))
    data = json.loads((tmp_path / "report.json").read_text())
    assert [m["name"] for m in data["methods"]] == list(MAIN)
    assert data["plain"]["whitebox"] is None
    assert all(m["whitebox"] is None for m in data["methods"])
    assert data["protocol"]["attacked"]["attack"] == "PGD"
    assert data["protocol"]["attacked"]["eps"] == 0.1
    assert data["protocol"]["attacked"]["steps"] == 40
    assert any("No white-box attack was run" in note for note in data["notes"])
    assert "made beforehand" in data["protocol"]["attacked"]["note"]
    # one rising share over all methods, clean and attacked
    assert [share for share, _ in calls] == sorted({share for share, _ in calls})
    assert len(calls) == 2 * 64 * len(MAIN) and calls[-1] == (1.0, MAIN[-1])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("Before and after", "Accuracy", "Every method", "What uniform does", "Measured with"):
        assert f"<h2>{heading}</h2>" in page
    # what the sample promises; seeded, so the numbers repeat
    assert data["plain"]["clean"] >= 0.97
    assert data["plain"]["attacked"] <= 0.02
    for method in report.methods:
        assert method.clean.fraction >= 0.95
        assert method.attacked is not None
        assert method.attacked.fraction >= 0.85


@pytest.mark.needs("openvino")
def test_the_report_names_the_engine_that_ran(tmp_path: Path) -> None:
    report = run_demo(tmp_path, presets=["uniform"], provider="openvino", threads=1)
    assert "on OpenVINO" in report.summary and "ONNX Runtime" not in report.summary
    assert report.facts["provider"] == "openvino" and "onnxruntime" not in report.facts
    assert report.facts["openvino"] in (tmp_path / "report.html").read_text(encoding="utf-8")
    attacked = report.methods[0].attacked
    assert attacked is not None and attacked.fraction >= 0.85


def test_numbers_repeat(purifier: edgepure.Purifier) -> None:
    images = demo_images()
    first, second = (evaluate(purifier, images.adversarial[:8], images.labels[:8], "uniform", seed=3) for _ in range(2))
    for a, b in zip(first.results, second.results, strict=True):
        np.testing.assert_array_equal(a.image, b.image)


def test_calls_of_one_purification_and_of_a_decision(purifier: edgepure.Purifier) -> None:
    images = demo_images()
    few = (images.clean[:2], images.adversarial[:2], images.labels[:2])
    runs = evaluate_methods(purifier, ["uniform", "uniform-ssni"], *few, seed=1)
    uniform = runs["uniform"].scores(purifier, "uniform")
    rows = purifier.plan("uniform").unet_calls
    votes = purifier.preset("uniform").votes.count
    assert uniform.unet_calls == rows
    assert uniform.unet_calls_decision == rows * votes
    ssni = runs["uniform-ssni"].scores(purifier, "uniform-ssni")
    probe = purifier.planner.probe(purifier.preset("uniform-ssni"))
    assert probe is not None
    results = (*runs["uniform-ssni"].clean.results, *runs["uniform-ssni"].attacked.results)
    mean = np.mean([probe.unet_calls + (r.unet_calls - probe.unet_calls) / votes for r in results])
    assert ssni.unet_calls == pytest.approx(mean)
    assert ssni.unet_calls_decision == pytest.approx(np.mean([r.unet_calls for r in results]))


def test_default_preset_comes_first(purifier: edgepure.Purifier) -> None:
    names = default_first(purifier)
    assert names[0] == purifier.bundle.manifest.default_preset
    assert sorted(names) == sorted(purifier.presets)


def test_pictures_are_the_first_of_each_class() -> None:
    assert one_of_each_class(np.array([3, 1, 3, 0, 1])) == [3, 1, 0]


def test_unknown_preset_is_refused_before_any_work(tmp_path: Path) -> None:
    with raises_code("E-preset-unknown"):
        run_demo(tmp_path / "out", presets=["uniform", "unifrom"], threads=1)
    assert not (tmp_path / "out").exists()


def test_missing_data_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_data, "DATA", tmp_path)
    with raises_code("E-demo-data"):
        demo_data.demo_bundle()
    with raises_code("E-demo-data"):
        demo_data.demo_images()


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_damaged_images_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(demo_data, "DATA", tmp_path)
    (tmp_path / "digits_images.npz").write_bytes(content)
    with raises_code("E-demo-data"):
        demo_data.demo_images()

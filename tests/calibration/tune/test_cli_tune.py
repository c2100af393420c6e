"""`edgepure tune` as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_process import environment, run

from edgepure import Bundle
from edgepure.images.dataset import LabelledImages


@pytest.fixture
def npz(data: LabelledImages, attacked: LabelledImages, tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, images=data.images, attacked=attacked.images, labels=data.labels)
    return path


def tune(bundle: Path, *options: object) -> list[object]:
    return [
        "tune",
        bundle,
        "--budget-calls",
        4,
        "--no-whitebox",
        "--trials",
        2,
        "--images",
        16,
        "--threads",
        1,
        *options,
    ]


def test_tunes_and_says_what_it_did(bundle: Path, npz: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = run(*tune(bundle, "--data", npz, "--attacked", f"{npz}:attacked", "--report", report))
    assert done.code == 0, done.stderr
    assert "2 candidates tried for at most 4 UNet calls" in done.stdout
    assert "written into" in done.stdout
    assert "uniform (was there)" in done.stdout
    assert {"fast", "balanced", "robust"} <= set(Bundle.open(bundle).manifest.presets)
    assert any(bundle.with_name(".tiny.tune").iterdir()), "more trials can go on from there"
    page = report.read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 2
    assert "How it was measured" in page
    assert "Nothing was attacked through the defence" in page


def test_json_and_dry_run(bundle: Path, npz: Path) -> None:
    before = Bundle.open(bundle).content_hash
    options = ("--attacked", f"{npz}:attacked", "--reference", "uniform", "--dry-run", "--json")
    done = run(*tune(bundle, "--data", npz, *options))
    assert done.code == 0, done.stderr
    assert set(done.json["chosen"]) == {"fast", "balanced", "robust"}
    assert done.json["written"] is False and set(done.json["references"]) == {"uniform"}
    assert done.json["budget"] == {"calls": 4}
    assert Bundle.open(bundle).content_hash == before


def test_refusals(bundle: Path, npz: Path, data: LabelledImages, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, images=data.images)
    small = tmp_path / "small.npz"
    np.savez(small, images=data.images[:, :, :8, :8], labels=data.labels)
    attacks = ("--attacked", f"{npz}:attacked")
    run(*tune(bundle, "--data", unlabelled, *attacks)).fails(2, "no labels", "sub-folder per class")
    run(*tune(bundle, "--data", small, *attacks)).fails(4, "16")
    run(*tune(bundle, "--data", npz, "--attacked", npz)).fails(2, "no attacks on this bundle's classifier")
    run(*tune(bundle, "--data", npz, *attacks, "--budget-ms", 5)).fails(2, "--budget-calls N or --budget-ms X")
    run(*tune(bundle, "--data", npz, *attacks, "--report", npz / "r.html")).fails(1, "--report", "another place")
    run(*tune(bundle, "--data", npz, *attacks, "--eps", "8/0")).fails(2, "8/0", "8/255")
    run(*tune(bundle, "--data", npz, *attacks, "--eps", "510/255")).fails(2, "eps 2.0 must lie between 0 and 1")
    run(*tune(bundle, "--data", npz, *attacks, "--method", "gnsp", "--budget-calls", 1)).fails(
        2, "the smallest possible is 2 UNet calls"
    )
    run(*tune(bundle, "--data", npz, *attacks, "--work", bundle / "work")).fails(2, "lies in the bundle")
    assert not bundle.with_name(".tiny.tune").exists(), "a refused command leaves nothing"
    run(*tune(bundle, "--data", npz, *attacks, "--reference", "unifrom")).fails(2, "no preset 'unifrom'", "uniform")


def without(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """The command in a Python that cannot import ``module``."""
    code = f"import sys; sys.modules[{module!r}] = None; from edgepure.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_without_pytorch_there_is_no_white_box(bundle: Path, npz: Path, tmp_path: Path) -> None:
    common = ["tune", bundle, "--data", npz, "--budget-calls", 4, "--trials", 1, "--images", 16, "--threads", 1]
    done = without("torch", *common, "--attacked", f"{npz}:attacked", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["chosen"]["robust"]["whitebox"] is None
    done = without("torch", *common, "--attacked", f"{npz}:attacked", "--whitebox")
    assert done.returncode == 2
    assert "a white-box attack needs PyTorch" in done.stderr
    assert "pip install edgepure[export]" in done.stderr
    done = without("torch", *common)
    assert done.returncode == 2
    assert "without --attacked, making attacked images needs PyTorch" in done.stderr


def test_without_optuna(bundle: Path, npz: Path) -> None:
    done = without("optuna", *tune(bundle, "--data", npz, "--attacked", f"{npz}:attacked"))
    assert done.returncode == 2
    assert "tuning needs Optuna" in done.stderr
    assert "pip install edgepure[calibration]" in done.stderr

"""The resampling ablation, the memory estimate, and the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from codes import raises_code
from torch import Tensor
from typer.testing import CliRunner

import edgepure
from edgepure.cli.app import app
from edgepure.demo import demo_bundle, demo_images
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.attacks import PGD, AttackTarget, Defence, known_attacks
from edgepure_calibration.cli.evaluate import ATTACK_NAMES
from edgepure_calibration.evaluate.ablation import resampling_ablation
from edgepure_calibration.evaluate.memory import attack_memory, saved_bytes
from edgepure_export.twin.twin import load_twin


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(demo_bundle(), threads=1) as opened:
        yield opened


def test_single_step_resampling_saves_nine_of_ten_calls(purifier: edgepure.Purifier) -> None:
    digits = demo_images()
    data = LabelledImages(digits.clean[:2], digits.labels[:2], ("0", "1"))
    twin = load_twin(demo_bundle(), checkpointing=True)
    found = resampling_ablation(purifier, twin, "heterogeneous", data, repetitions=20, rounds=1)
    calls = {v.name: v.unet_calls for v in found.variants}
    # two steps in each stage: 2 + 2, one more for each of stage 1, or twenty more for each of stage 1
    assert calls == {"none": 4, "single (fused)": 4, "single (paper)": 6, "multi": 44}
    assert found.saved("single (paper)")["extra_unet_calls"] == pytest.approx(1 - 2 / 40)
    assert found.saved("single (fused)")["unet_calls"] > 0.9
    assert found.saved("single (paper)")["gradient_memory"] > 0.8
    assert twin.checkpointing  # as it was
    json.dumps(found.to_dict())
    with raises_code("E-ablation"):
        resampling_ablation(purifier, twin, "uniform", data)


def test_saved_bytes_counts_each_storage_once() -> None:
    weight = torch.ones(4, requires_grad=True)

    def square(x: Tensor) -> Tensor:
        return (x * x * weight).sum()

    # x, and x * x for the gradient of the weight; the weight itself is there anyway
    assert saved_bytes(square, torch.ones(4), {weight.untyped_storage().data_ptr()}) == 2 * 4 * 4


def test_the_memory_estimate_covers_what_a_gradient_takes(purifier: edgepure.Purifier) -> None:
    """Its parts add up to what autograd keeps for the whole defence, nothing recomputed."""
    digits = demo_images()
    preset = purifier.preset("uniform")
    twin = load_twin(demo_bundle(), checkpointing=False)
    found = attack_memory(AttackTarget("uniform", preset, purifier, twin))
    image = torch.from_numpy(digits.clean[:1])
    weights = {p.untyped_storage().data_ptr() for n in twin.networks for p in (*n.parameters(), *n.buffers())}
    whole = saved_bytes(Defence(twin, preset, 1), image, weights)
    kept = found.rows * (found.row + found.state) + found.classifier
    assert 0.7 * whole < kept < 1.5 * whole
    assert found.per_copy > kept
    twin.checkpointing = True
    again = attack_memory(AttackTarget("uniform", preset, purifier, twin))
    assert again.per_copy < found.per_copy
    copies = again.copies_in(24e9)
    assert again.total(copies) <= 24e9 < again.total(2 * copies)
    assert PGD(0.1, 1).gradient(Defence(twin, preset, 1), image, torch.tensor([1])).isfinite().all()


def test_the_command(tmp_path: Path) -> None:
    digits = demo_images()
    np.savez(tmp_path / "data.npz", images=digits.clean, labels=digits.labels)
    bundle = shutil.copytree(demo_bundle(), tmp_path / "bundle")
    asked = ["evaluate", bundle, "--data", tmp_path / "data.npz", "--preset", "uniform", "--attack", "pgd"]
    asked += ["--eps", "8/255", "--steps", 1, "--eot", 1, "--images", 4, "--worst", 2, "--votes", 2, "--threads", 1]
    done = CliRunner().invoke(app, [*map(str, asked), "--report", str(tmp_path / "r.html"), "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["presets"][0]["attacks"][0]["accuracies"][0]["protocol"]["eps"] == pytest.approx(8 / 255)
    assert (bundle / "robustness" / "card.md").exists()
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert not list(tmp_path.glob(".bundle.evaluate"))
    for wrong, word in (
        (["--eps", "eight"], "8/255"),
        (["--seeds", "a"], "whole numbers"),
        (["--attack", "fgsm"], "low-frequency"),
        (["--report", str(tmp_path)], "give the name of a file"),
    ):
        refused = CliRunner().invoke(app, [*map(str, asked), *wrong])
        assert refused.exit_code == 2
        assert refused.stderr.count("error: ") == 1 and word in refused.stderr
    assert not list(tmp_path.glob(".bundle.evaluate"))


def test_the_help_names_every_attack() -> None:
    assert tuple(known_attacks()) == ATTACK_NAMES


def test_without_pytorch_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here', name='torch')")
    path = os.pathsep.join([str(tmp_path), *(p for p in sys.path if p)])
    command = [sys.executable, "-m", "edgepure", "evaluate", str(demo_bundle()), "--data", "x.npz"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "edgepure[robustness]" in done.stderr
    assert "Traceback" not in done.stderr

"""``edgepure export`` as a user runs it: from networks in a file of his own to a bundle that verifies."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from cli_process import run, start

NETWORKS = """
import torch
from torch import nn

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        print("networks may print")
        return self.head(self.second(self.first(x)).mean((2, 3)))

class Unet(nn.Module):
    # on pure noise, epsilon is nearly the input
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, 1, 1)

    def forward(self, x, t):
        return x * (0.2 + 0.0008 * t)[:, None, None, None] + 0.01 * self.conv(x)

def classifier():
    torch.manual_seed(0)
    return Classifier()

def unet():
    torch.manual_seed(1)
    return Unet()
"""
PRESETS = """{
    "quick": {"method": {"method": "uniform", "t_star": 30, "steps": 3, "sampler": "ddim"}},
    "focused": {"method": {"method": "heterogeneous", "t_l": 40, "t_s": 20}, "mask": {"area": 0.25}}
}"""


@pytest.fixture
def networks(tmp_path: Path) -> Path:
    """A file with a classifier and an epsilon-model."""
    (tmp_path / "networks.py").write_text(NETWORKS)
    return tmp_path / "networks.py"


def arguments(networks: Path, out: Path, *more: object) -> list[object]:
    return [
        "export",
        "--classifier",
        f"python:{networks}:classifier",
        "--diffusion",
        f"python:{networks}:unet",
        "--image",
        "1x12x12",
        "--out",
        out,
        *more,
    ]


@pytest.mark.slow
def test_a_bundle_is_written_whole_and_verifies(networks: Path, tmp_path: Path) -> None:
    (tmp_path / "presets.json").write_text(PRESETS)
    np.save(tmp_path / "real.npy", np.random.default_rng(0).random((4, 1, 12, 12), dtype=np.float32))
    out = tmp_path / "new" / "bundle"
    done = run(
        *arguments(networks, out, "--blocks", "first, second", "--classes", "a,b,c", "--presets"),
        tmp_path / "presets.json",
        "--default-preset",
        "focused",
        "--images",
        tmp_path / "real.npy",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert done.json["presets"] == ["focused", "quick"] and done.json["default_preset"] == "focused"
    assert set(done.json["parity"]) == {"classifier", "mask", "step", "unet"}
    assert max(done.json["parity"].values()) < 1e-4
    found = run("verify", out, "--json").json
    assert found["ok"] is True and found["unrecorded"] == []
    shown = run("inspect", out, "--json").json
    assert shown["classes"] == ["a", "b", "c"] and shown["attention"]["blocks"] == ["first", "second"]
    assert shown["provenance"]["classifier"].startswith("python:")
    before = sorted(p.name for p in out.parent.iterdir())
    run(*arguments(networks, out)).fails(1, "already there", "--overwrite")
    assert sorted(p.name for p in out.parent.iterdir()) == before == ["bundle"]


@pytest.mark.slow
def test_wrong_networks_are_refused_and_leave_nothing(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    run(*arguments(networks, out, "--blocks", "first,third")).fails(7, "third", "first")
    swapped = [
        a if a != f"python:{networks}:unet" else f"python:{networks}:classifier" for a in arguments(networks, out)
    ]
    run(*swapped).fails(7)
    (tmp_path / "presets.json").write_text(PRESETS.replace('"t_star": 30', '"t_star": 3000'))
    run(*arguments(networks, out, "--blocks", "first", "--presets", tmp_path / "presets.json")).fails(2, "t_star 3000")
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "__pycache__") == ["networks.py", "presets.json"]


def test_bad_options_are_refused_before_pytorch_is_imported(networks: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "key.json").write_text('{"mine": {"method": {"method": "uniform", "t_str": 3}}}')
    for options, words in (
        (["--image", "12"], ["12", "3x32x32"]),
        (["--presets", tmp_path / "broken.json"], ["broken.json", "not valid JSON"]),
        (["--presets", tmp_path / "key.json"], ["key.json", "mine", "t_str", "t_star"]),
        (["--schedule", "linaer"], ["linaer", "linear"]),
        (["--classes", "a,,b"], ["a,,b"]),
    ):
        run(*arguments(networks, out, *options)).fails(2, *[str(word) for word in words])
    assert not out.exists()


@pytest.mark.slow
def test_interrupting_an_export_leaves_nothing(networks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundles"
    folder.mkdir()
    process = start(*arguments(networks, folder / "bundle"))
    guard = threading.Timer(100, process.kill)
    guard.start()
    try:
        while process.poll() is None and not list(folder.iterdir()):
            pass  # until the temporary folder is there
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    finally:
        guard.cancel()
        process.kill()
    assert process.returncode == 130
    assert stdout == "" and "error: interrupted" in stderr and "Traceback" not in stderr
    assert list(folder.iterdir()) == []

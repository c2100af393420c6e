"""The runtime works where PyTorch does not: every import of torch, onnx or the export package raises here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_process import environment, run
from tiny_bundle import images

BLOCKED = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "edgepure_export", "edgepure_calibration")


def blocking(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """An environment whose first place to look has modules that raise."""
    for name in names:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is blocked by a test')\n")
    env = environment()
    return {**env, "PYTHONPATH": f"{folder}{os.pathsep}{env['PYTHONPATH']}"}


@pytest.fixture(scope="module")
def torchless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine with the runtime alone."""
    return blocking(tmp_path_factory.mktemp("blocked"), BLOCKED)


def python(code: str, env: dict[str, str], *arguments: object) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=env, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_block_holds(torchless: dict[str, str]) -> None:
    code = "import sys\ntry:\n    import torch\nexcept ImportError as error:\n    print(error)"
    assert python(code, torchless) == "torch is blocked by a test\n"


@pytest.mark.parametrize("provider", ["cpu", pytest.param("openvino", marks=pytest.mark.needs("openvino"))])
def test_python_interface(torchless: dict[str, str], tiny_bundle: Path, provider: str) -> None:
    code = """
import sys, json, numpy as np, edgepure
from edgepure import bench, verify
bundle, provider, *blocked = sys.argv[1:]
if provider == "openvino":
    sys.modules["onnxruntime"] = None  # it is an engine of its own
with edgepure.load(bundle, provider, threads=1) as purifier:
    image = np.full((2, 1, 16, 16), 0.2, np.float32)
    labels = [r.class_name for r in purifier.classify(image, "heterogeneous", votes=2)]
    purified = purifier.purify(image)[0].image
    speed = bench(purifier, batches=(1,), repeats=1).speeds[0].loop_cost
found = bool(verify(bundle, provider, threads=1))
loaded = [m for m in blocked if m in sys.modules]
print(json.dumps([labels, list(purified.shape), speed > 0, found, loaded]))
"""
    found = json.loads(python(code, torchless, tiny_bundle, provider, *BLOCKED))
    assert found == [["dark", "dark"], [1, 16, 16], True, True, []]


@pytest.mark.needs("openvino")
def test_every_command_of_the_device(torchless: dict[str, str], tiny_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", images(1))
    image = tmp_path / "image.npy"
    for arguments in (
        ["verify", tiny_bundle],
        ["purify", tiny_bundle, image, "-o", tmp_path / "clean.png"],
        ["classify", tiny_bundle, image, "--preset", "adaptive"],
        ["plan", tiny_bundle],
        ["inspect", tiny_bundle],
        ["bench", tiny_bundle, "--batch", "1", "--repeats", "1"],
        ["classify", tiny_bundle, image, "--provider", "openvino"],
        ["doctor"],
    ):
        done = run(*arguments, env=torchless)
        assert done.code == 0, done.stderr
    assert (tmp_path / "clean.png").is_file()


def test_the_demo(torchless: dict[str, str], tmp_path: Path) -> None:
    done = run("demo", "--out", tmp_path / "out", "--json", env=torchless)
    assert done.code == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert done.json["methods"] == report["methods"]
    assert done.json["plain"]["attacked"] < 0.1
    assert max(method["attacked"] for method in done.json["methods"]) > 0.8


def test_export_says_what_to_install(torchless: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "blocked").mkdir()
    env = blocking(tmp_path / "blocked", ("torch", "onnx"))
    asked = ("export", "--classifier", "python:a:b", "--diffusion", "python:a:b", "--image", "1x16x16")
    run(*asked, "-o", tmp_path / "b", env=env).fails(7, "edgepure[export]")
    run(*asked, "-o", tmp_path / "b", env=torchless).fails(2, "`edgepure export`", "cannot be loaded")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import edgepure", (*BLOCKED, "numpy", "pydantic", "typer", "rich", "onnxruntime", "PIL")),
        ("import edgepure.cli.app", (*BLOCKED, "numpy", "rich", "onnxruntime", "PIL")),
        ("import edgepure.purify.purifier", (*BLOCKED, "typer", "rich", "onnxruntime")),
    ],
)
def test_importing_loads_nothing_heavy(code: str, absent: tuple[str, ...]) -> None:
    found = python(f"{code}\nimport sys\nprint(*[m for m in sys.argv[1:] if m in sys.modules])", environment(), *absent)
    assert found.split() == []

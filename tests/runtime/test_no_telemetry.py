"""Engines that report to their makers: whatever edgepure runs leaves no identifier and no report behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import environment, run

#: With one of these set ONNX Runtime is silent anyway.
SILENCING = ("CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS", "TF_BUILD", "GITHUB_ACTIONS")


def at_home(home: Path) -> dict[str, str]:
    """The environment of a user whose home is empty, and for whom nothing was switched off."""
    home.mkdir()
    found = environment(HOME=str(home), XDG_CACHE_HOME=str(home / ".cache"), XDG_CONFIG_HOME=str(home / ".config"))
    return {name: value for name, value in found.items() if name not in SILENCING}


def files(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]


@pytest.mark.parametrize("provider", ["cpu", pytest.param("openvino", marks=pytest.mark.needs("openvino"))])
def test_a_command_leaves_nothing_at_home(tiny_bundle: Path, tmp_path: Path, provider: str) -> None:
    done = run("verify", tiny_bundle, "--provider", provider, env=at_home(tmp_path / "home"))
    assert done.code == 0, done.stderr
    assert files(tmp_path / "home") == []


def test_nor_does_a_doctor(tmp_path: Path) -> None:
    done = run("doctor", "--json", env=at_home(tmp_path / "home"))
    assert done.json["ok"] is True
    assert files(tmp_path / "home") == []


@pytest.mark.parametrize(
    "module",
    [
        "edgepure.doctor",
        pytest.param("edgepure_export.bundle.after_export", marks=pytest.mark.needs("torch")),
        pytest.param("edgepure_calibration.quantize", marks=pytest.mark.needs("torch")),
    ],
)
def test_whatever_is_imported_first(tmp_path: Path, module: str) -> None:
    code = f"import {module}, onnxruntime; onnxruntime.SessionOptions()"
    subprocess.run([sys.executable, "-c", code], env=at_home(tmp_path / "home"), check=True, timeout=120)
    assert [name for name in files(tmp_path / "home") if "onnxruntime" in name or "intel" in name] == []


def test_what_the_user_decided_stays(tmp_path: Path) -> None:
    code = "import os, edgepure; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for value, wanted in (("0", "0"), (None, "1")):
        env = {name: text for name, text in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        env |= {} if value is None else {"ORT_DISABLE_TELEMETRY": value}
        done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
        assert done.stdout.strip() == wanted

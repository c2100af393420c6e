"""Which Jetson this is, from files and from a program that stand in for those of the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgepure.machine import jetson
from edgepure.machine.jetson import Jetson

RELEASE = "# R{major} (release), REVISION: {minor}, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: Jun 2025\n"


@pytest.fixture(autouse=True)
def _no_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/bin{os.pathsep}/usr/bin")


def system(root: Path, major: int = 36, minor: str = "4.3") -> Path:
    (root / "etc").mkdir()
    (root / "etc" / "nv_tegra_release").write_text(RELEASE.format(major=major, minor=minor) + "# KERNEL_VARIANT: oot\n")
    tree = root / "proc" / "device-tree"
    tree.mkdir(parents=True)
    (tree / "model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    (tree / "compatible").write_bytes(b"nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0")
    return root


def nvpmodel(root: Path, script: str) -> None:
    (root / "bin").mkdir()
    (root / "bin" / "nvpmodel").write_text(f"#!/bin/sh\n{script}\n")
    (root / "bin" / "nvpmodel").chmod(0o755)


def test_another_computer_is_no_jetson(tmp_path: Path) -> None:
    assert jetson.find(tmp_path) is None


@pytest.mark.parametrize(
    ("major", "minor", "jetpack"), [(35, "5.0", 5), (36, "4.3", 6), (38, "2.0", 7), (39, "2", 7), (44, "1", None)]
)
def test_jetpack_follows_from_the_release(major: int, minor: str, jetpack: int | None, tmp_path: Path) -> None:
    found = jetson.find(system(tmp_path, major, minor))
    assert found is not None
    assert found.l4t == f"{major}.{minor}"
    assert found.jetpack == jetpack
    assert found.model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert found.power_mode is None, "nvpmodel is not there"


def test_the_power_mode(tmp_path: Path) -> None:
    nvpmodel(tmp_path, "[ \"$1\" = -q ] && printf 'NV Power Mode: MAXN_SUPER\\n2\\n'")
    found = jetson.find(system(tmp_path))
    assert found == Jetson("36.4.3", "NVIDIA Jetson Orin Nano Developer Kit", "MAXN_SUPER")
    assert str(found) == "NVIDIA Jetson Orin Nano Developer Kit, L4T 36.4.3 (JetPack 6)"


def test_a_power_mode_that_only_root_may_see(tmp_path: Path) -> None:
    nvpmodel(tmp_path, "echo 'NVPM ERROR: must be run as root' >&2; exit 1")
    found = jetson.find(system(tmp_path))
    assert found is not None and found.power_mode is None


def test_a_container_without_the_release_file(tmp_path: Path) -> None:
    (system(tmp_path) / "etc" / "nv_tegra_release").unlink()
    found = jetson.find(tmp_path)
    assert found is not None
    assert (found.l4t, found.jetpack) == ("", None)
    assert "unknown JetPack" in str(found)

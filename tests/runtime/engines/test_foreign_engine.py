"""One new file is enough for an engine: a package that edgepure does not know declares one, and it is used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_process import environment, run

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.doctor import provider_status
from edgepure.engines.kinds import engine_words
from edgepure.machine import packages
from edgepure.machine.nvidia import Driver

#: All that an engine takes: what opens a graph and runs it, and a row.
ENGINE = '''
"""An engine: ONNX Runtime once more, as anybody would call it."""

import onnxruntime

from edgepure.engines import HostEngine, Kind, Opening, TensorSpec


class PlainEngine(HostEngine):
    provider = "plain"

    def __init__(self, opening: Opening) -> None:
        self._session = onnxruntime.InferenceSession(str(opening.path), providers=["CPUExecutionProvider"])
        self.inputs = {i.name: TensorSpec(i.name, tuple(i.shape), "float32") for i in self._session.get_inputs()}
        self.outputs = {o.name: TensorSpec(o.name, tuple(o.shape), "float32") for o in self._session.get_outputs()}

    def _run(self, feeds):
        return dict(zip(self.outputs, self._session.run(list(self.outputs), feeds), strict=True))


KIND = Kind(provider="plain", title="Plain Engine", opens=PlainEngine, packages=("plain-engine",))
'''
DIGITS = demo_bundle()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with the installed package."""
    (tmp_path / "plain_engine.py").write_text(ENGINE)
    info = tmp_path / "plain_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plain-engine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgepure.engines]\nplain = plain_engine:KIND\n")
    return tmp_path


@pytest.fixture
def installed(package: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(package))
    for function in (packages._declared, packages.extensions):
        function.cache_clear()
    yield
    monkeypatch.undo()
    for function in (packages._declared, packages.extensions):
        function.cache_clear()


@pytest.mark.usefixtures("installed")
def test_through_python() -> None:
    images = demo_images().clean[:3]
    with edgepure.load(DIGITS, "plain", threads=1, slots=2) as plain, edgepure.load(DIGITS, threads=1) as cpu:
        found, wanted = (purifier.classify(images, "uniform", noise=1) for purifier in (plain, cpu))
    for result, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(result.image, other.image, atol=1e-4)
    assert engine_words("plain") == "Plain Engine 1.0"
    status = provider_status("plain", Driver(fault="none"), None)
    assert (status.works, status.version, status.detail) == (True, "1.0", "")


def test_on_the_command_line(package: Path) -> None:
    env = environment()
    env["PYTHONPATH"] = f"{env['PYTHONPATH']}{os.pathsep}{package}"
    doctor = run("doctor", "--json", env=env)
    (status,) = [found for found in doctor.json["providers"] if found["name"] == "plain"]
    assert (status["engine"], status["works"], status["version"]) == ("Plain Engine", True, "1.0")
    assert "Plain Engine 1.0" in run("doctor", env=env).stdout
    array = package / "images.npy"
    np.save(array, demo_images().clean[:2])
    options = ("classify", DIGITS, array, "--preset", "uniform", "--seed", "1", "--json")
    plain, cpu = run(*options, "--provider", "plain", env=env), run(*options, env=env)
    assert [r["label"] for r in plain.json["results"]] == [r["label"] for r in cpu.json["results"]]
    run(*options, "--provider", "plain").fails(5, "unknown provider 'plain'")


def test_one_that_cannot_be_imported_is_shown_and_harms_nobody(package: Path) -> None:
    (package / "plain_engine.py").write_text("import nothing_of_that_name")
    env = environment()
    env["PYTHONPATH"] = f"{env['PYTHONPATH']}{os.pathsep}{package}"
    found = run("doctor", "--json", env=env).json
    (status,) = [status for status in found["providers"] if status["name"] == "plain"]
    assert not status["works"] and "nothing_of_that_name" in status["detail"] and found["ok"]

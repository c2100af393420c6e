"""No output of any verb is an input or lies in a bundle; streams and signals; presets of a bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cli_process import environment, run
from codes import raises_code
from in_process import invoke, refused
from tiny_bundle import images, rehash

from edgepure.bundle.bundle import Bundle
from edgepure.cli import ENDING, guard
from edgepure.cli.outputs import check_output, check_outputs, prepare_file
from edgepure.files.folders import real_path


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, images=images(4), labels=np.array([0, 1, 0, 1]))
    return path


def test_an_input_by_any_name(npz: Path, tmp_path: Path) -> None:
    os.link(npz, tmp_path / "linked")
    (tmp_path / "soft").symlink_to(npz)
    for output in (npz, tmp_path / "linked", tmp_path / "soft", tmp_path / "." / "data.npz"):
        with raises_code("E-output-is-input"):
            check_output(output, "--report", [None, f"{npz}:images"])
    check_output(tmp_path / "other.html", "--report", [None, npz, f"{npz}:images"])
    check_output(None, "--report", [npz])


def test_each_of_many_outputs_is_checked_and_each_input_looked_at_once(
    tiny_bundle: Path, npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [tmp_path / "out" / f"{i}.png" for i in range(50)]
    with raises_code("E-output-is-input"):
        check_outputs([*many, npz], "-o", [npz] * 50)
    with raises_code("E-output-in-bundle"):
        check_outputs([*many, tiny_bundle / "0.png"], "-o", [npz] * 50)
    resolved: list[Path] = []
    monkeypatch.setattr("edgepure.cli.outputs.real_path", lambda path: (resolved.append(path), real_path(path))[1])
    check_outputs(many, "-o", [npz] * 50)
    assert len(resolved) == len(many) + 1


def test_a_place_in_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    for output in (tiny_bundle, tiny_bundle / "step.onnx", tiny_bundle / "new" / "page.html"):
        with raises_code("E-output-in-bundle"):
            check_output(output, "--report")
    (tmp_path / "link").symlink_to(tiny_bundle)
    with raises_code("E-output-in-bundle"):
        prepare_file(tmp_path / "link" / "page.html", "--report")


OUTPUTS = {
    "verify": ("verify", "BUNDLE", "--report"),
    "classify": ("classify", "BUNDLE", "DATA", "--flag-rate", "0.01", "--metrics"),
    "calibrate": ("calibrate", "BUNDLE", "--data", "DATA:images", "--report"),
    "quantize": ("quantize", "BUNDLE", "--precision", "int8", "--data", "DATA", "--report"),
    "tune": ("tune", "BUNDLE", "--data", "DATA", "--budget-calls", "4", "--report"),
    "evaluate": ("evaluate", "BUNDLE", "--data", "DATA", "--report"),
}
#: The same for folders.
FOLDERS = {
    "calibrate": ("calibrate", "BUNDLE", "--data", "DATA:images", "--work"),
    "quantize": ("quantize", "BUNDLE", "--precision", "int8", "--data", "DATA", "--work"),
    "tune": ("tune", "BUNDLE", "--data", "DATA", "--budget-calls", "4", "--work"),
    "evaluate": ("evaluate", "BUNDLE", "--data", "DATA", "--work"),
    "certify": ("certify", "BUNDLE", "--data", "DATA", "--work"),
    "certify --out": ("certify", "BUNDLE", "--data", "DATA", "--out"),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_no_verb_writes_into_a_bundle_or_over_its_input(name: str, own_bundle: Path, npz: Path) -> None:
    if name in ("quantize", "tune", "evaluate", "calibrate"):
        pytest.importorskip("torch")
    arguments = [a.replace("BUNDLE", str(own_bundle)).replace("DATA", str(npz)) for a in OUTPUTS[name]]
    before = {p: p.read_bytes() for p in [npz, *own_bundle.iterdir()] if p.is_file()}
    suffix = ".json" if name == "classify" else ".html"
    assert refused(*arguments, own_bundle / f"page{suffix}") == "E-output-in-bundle"
    if name not in ("verify", "classify"):
        assert refused(*arguments, npz) == "E-output-is-input"
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_of_results_is_an_input_or_in_a_bundle(name: str, own_bundle: Path, npz: Path) -> None:
    pytest.importorskip("torch")
    arguments = [a.replace("BUNDLE", str(own_bundle)).replace("DATA", str(npz)) for a in FOLDERS[name]]
    before = {p: p.read_bytes() for p in [npz, *own_bundle.iterdir()] if p.is_file()}
    assert refused(*arguments, own_bundle / "work") == "E-output-in-bundle"
    if "--work" in arguments:
        assert refused(*arguments, npz) == "E-output-is-input"
        (own_bundle.parent / "file").touch()
        assert refused(*arguments, own_bundle.parent / "file") == "E-output-place"
    assert {p: p.read_bytes() for p in before} == before


def test_a_timing_cache(own_bundle: Path) -> None:
    assert refused("build", own_bundle, "--timing-cache", own_bundle / "cache") == "E-output-in-bundle"
    assert refused("build", own_bundle, "--timing-cache", own_bundle.parent) == "E-output-folder"


def test_purified_images_and_the_report_of_the_demo(own_bundle: Path, npz: Path) -> None:
    assert refused("purify", own_bundle, npz, "-o", own_bundle) == "E-output-in-bundle"
    assert refused("demo", "--out", own_bundle) == "E-output-in-bundle"


# ---- presets of a bundle ---------------------------------------------------------------------------------------------


def test_presets_of_a_bundle(own_bundle: Path) -> None:
    found = json.loads(invoke("presets", own_bundle, "--json").stdout)
    assert found["default_preset"] == "uniform" and set(found["presets"]) > {"uniform", "heterogeneous"}
    assert found["presets"]["voted"]["unet_calls"] == 12
    assert invoke("presets", own_bundle, "--default", "heterogeneous", "--remove", "uniform").exit_code == 0
    manifest = Bundle.open(own_bundle).manifest
    assert manifest.default_preset == "heterogeneous" and "uniform" not in manifest.presets
    assert refused("presets", own_bundle, "--remove", "heterogeneous") == "E-preset-default"
    assert refused("presets", own_bundle, "--default", "nothing") == "E-preset-unknown"
    assert refused("presets", "--default", "uniform") == "E-preset-no-bundle"
    assert Bundle.open(own_bundle).manifest == manifest


@pytest.mark.slow
def test_a_bundle_without_a_preset_still_verifies(own_bundle: Path) -> None:
    assert invoke("presets", own_bundle, "--default", "heterogeneous", "--remove", "uniform").exit_code == 0
    assert invoke("verify", own_bundle, "--threads", "1").exit_code == 0


# ---- streams, signals, resources -------------------------------------------------------------------------------------


def test_streams_that_cannot_say_everything(own_bundle: Path) -> None:
    rehash(own_bundle, classes=["dunkel é", "猫"])
    env = {**environment(), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    shown = run("inspect", own_bundle, env=env)
    assert shown.code == 0, shown.stderr
    assert "\\u732b" in shown.stdout
    assert run("inspect", own_bundle, "--json", env=env).json["classes"] == ["dunkel é", "猫"]


def test_what_ends_a_command_from_outside() -> None:
    for number in ENDING:
        shown = guard.describe(SystemExit(128 + number))
        assert (shown.code, shown.exit_code) == ("E-interrupted", 128 + number)


def test_no_more_threads_is_no_defect() -> None:
    assert guard.describe(RuntimeError("can't start new thread")).code == "E-threads"


def test_absurd_numbers_are_wrong_usage(tiny_bundle: Path, npz: Path) -> None:
    for option in ("--slots", "--threads"):
        done = invoke("classify", tiny_bundle, npz, option, 10**30)
        assert done.exit_code == 2 and option in done.output

"""``edgepure build`` as a user calls it, with the real TensorRT for RTX."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from cli_process import run
from gpu_stand_in import copy_of_digits, real_rtx

from edgepure.bundle.bundle import Bundle
from edgepure.engines.tensorrt.options import BuildOptions
from edgepure.engines.tensorrt.trtexec import trtexec_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_digits(tmp_path_factory.mktemp("build"))


def test_build_and_keep(folder: Path) -> None:
    real_rtx()
    arguments = (
        "build",
        folder,
        "--provider",
        "tensorrt-rtx",
        "--target",
        "sm86,sm89",
        "--graph",
        "unet",
        "--batch",
        "2",
    )
    done = run(*arguments, "--json")
    assert done.code == 0, done.stderr
    (engine,) = done.json["engines"]
    assert engine["graph"] == "unet" and engine["key"]["targets"] == ["sm86", "sm89"] and not engine["reused"]
    assert Path(engine["path"]).stat().st_size == engine["bytes"] and Path(engine["path"]).is_relative_to(folder)
    again = run(*arguments)
    assert again.code == 0 and "kept" in again.stdout and "for sm86, sm89, batches 2" in again.stdout
    assert run("build", folder, "--provider", "tensorrt-rtx", "--target", "sm87").fails(2, "sm87", "sm86")


def test_errors_are_sentences(folder: Path) -> None:
    run("build", folder, "--batch", "1,x").fails(2, "--batch", "1,8")
    run("build", folder, "--batch", "2,2").fails(2, "different numbers")
    run("build", folder, "--graph", "nothing").fails(3, "nothing", "classifier")
    run("build", folder, "--precision", "fp8").fails(3, "fp8")
    run("build", folder.parent).fails(3, "bundle.json")


def test_print_trtexec_needs_nothing(folder: Path) -> None:
    done = run(
        "build",
        folder,
        "--graph",
        "unet",
        "--batch",
        "1,8",
        "--print-trtexec",
        "--workspace-mb",
        "512",
        "--timing-cache",
        "cache",
        "--version-compatible",
    )
    assert done.code == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[:3] == ["trtexec", f"--onnx={folder / 'unet.onnx'}", "--saveEngine=unet.fp32.plan"]
    start = words.index("--profile=1")
    assert words[start : start + 4] == [
        "--profile=1",
        "--minShapes=x:8x1x16x16,t:8",
        "--optShapes=x:8x1x16x16,t:8",
        "--maxShapes=x:8x1x16x16,t:8",
    ]
    assert {
        "--stronglyTyped",
        "--noTF32",
        "--memPoolSize=workspace:512M",
        "--versionCompatible",
        "--timingCacheFile=cache",
    } <= set(words)
    assert not any(word.startswith(("--fp16", "--int8", "--best")) for word in words)
    printed = run("build", folder, "--print-trtexec", "--json")
    assert set(printed.json["commands"]) == {"classifier", "mask", "step", "unet"}


def test_the_command_for_rtx(folder: Path) -> None:
    bundle = Bundle.open(folder)
    entry = bundle.manifest.graphs["unet"]
    words = trtexec_command(Path("a b.onnx"), entry, BuildOptions((1,), ("sm86", "sm120")), Path("p"), rtx=True)
    assert words.startswith("tensorrt_rtx '--onnx=a b.onnx' ") and "--computeCapabilities=86,120 " in words
    assert "--useGpu" in trtexec_command(Path("x"), entry, BuildOptions((1,), tf32=True), Path("p"), rtx=True)
    assert "--noTF32" not in trtexec_command(Path("x"), entry, BuildOptions((1,), tf32=True), Path("p"))

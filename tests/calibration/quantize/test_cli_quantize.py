"""`edgepure quantize` as a user runs it."""

from __future__ import annotations

from pathlib import Path

import cli_process
import pytest
from chromium import not_cut
from typer.testing import CliRunner

from edgepure.bundle.bundle import Bundle
from edgepure.cli.app import app
from edgepure.demo import demo_bundle
from edgepure_calibration.quantize import stages
from edgepure_calibration.quantize.speed import Speed

IMAGES = demo_bundle().parent / "digits_images.npz"
CLEAN, ATTACKED = f"{IMAGES}:clean", f"{IMAGES}:adversarial"
QUICK = ("--preset", "uniform", "--redraws", "3", "--max-flips", "0.08", "--max-loss", "0.08", "--threads", "1")


def test_a_variant_report_and_json(own_digits: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = cli_process.run(
        "quantize",
        own_digits,
        "--precision",
        "int8",
        "--for",
        "tensorrt",
        "--data",
        CLEAN,
        "--attacked",
        ATTACKED,
        *QUICK,
        "--keep",
        "unet.conv_in",
        "--report",
        page,
        "--json",
    )
    assert done.code == 0, done.stderr
    found = done.json
    assert found["accepted"] and found["kept"] == ["unet.conv_in/Conv_0"] and found["report"] == str(page)
    assert found["graphs"]["step"]["qdq"]["operators"] == {"Conv": 12, "Gemm": 2}
    text = page.read_text()
    assert not_cut(text)
    assert (
        "is accepted, with 1 layers" in text
        and text.count('<svg class="plot"') == 2
        and "http" not in text.split("</style>")[1]
    )
    assert "int8" in Bundle.open(own_digits).manifest.variants
    assert cli_process.run("verify", own_digits, "--precision", "int8", "--graphs-only").code == 0


def test_a_refusal_is_exit_code_6_and_changes_nothing(own_digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tuple(Speed(batch, 1.0, 1.25, 0.8) for batch in (1, 8))
    monkeypatch.setattr(stages, "compare_speed", lambda *args, **more: slow)
    before = Bundle.open(own_digits).content_hash
    done = CliRunner().invoke(app, ["quantize", str(own_digits), "--precision", "fp16", "--data", CLEAN, *QUICK])
    assert done.exit_code == 6
    assert "the fp16 variant was refused and the bundle is as it was" in done.stderr
    assert "not faster on this device (0.80 x" in done.stderr and "for another device give --for" in done.stderr
    assert Bundle.open(own_digits).content_hash == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--precision", "int4", "--data", CLEAN), 2, "--precision 'int4' is unknown; choose int8, fp8, fp16 or bf16"),
        (("--precision", "int8", "--data", CLEAN, "--for", "npu"), 2, "--for 'npu' is unknown"),
        (("--precision", "int8", "--data", CLEAN, "--provider", "tensorrt"), 2, "judged by ONNX Runtime"),
        (("--precision", "int8", "--data", CLEAN, "--keep", "unet.up.conv9"), 2, "no layer 'unet.up.conv9'"),
        (("--precision", "int8", "--data", CLEAN, "--redraws", "2"), 2, "too few"),
        (("--precision", "int8", "--data", "nothing.npz"), 4, "there are no images at nothing.npz"),
        (("--precision", "int8", "--data", CLEAN, "--preset", "best"), 2, "no preset 'best'"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], code: int, words: str) -> None:
    cli_process.run("quantize", demo_bundle(), *arguments).fails(code, words)

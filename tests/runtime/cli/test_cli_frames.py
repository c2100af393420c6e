"""Frames on the command line: files of any size in, files of the same size out; and what they cost on paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_process import run
from PIL import Image

import edgepure


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Two frames of different size, and one that is smaller than the network."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 53)), ("b", (16, 30)), ("tiny", (9, 30))):
        Image.fromarray(rng.integers(0, 255, size, np.uint8)).save(folder / f"{name}.png")
    return folder


def test_frames_are_written_at_their_own_size(tiny_bundle: Path, scenes: Path, tmp_path: Path) -> None:
    out, masks = tmp_path / "out", tmp_path / "masks"
    done = run(
        "purify", tiny_bundle, scenes, "-o", out, "--tile", "--preset", "heterogeneous", "--mask-out", masks,
        "--set", "tiles.overlap=0.5", "--seed", "4", "--threads", "1", "--json",
    )  # fmt: skip
    assert done.code == 4  # the one that is too small
    assert [f["name"] for f in done.json["failures"]] == [str(scenes / "tiny.png")]
    for name, size in (("a", (53, 40)), ("b", (30, 16))):
        assert Image.open(out / f"{name}.png").size == Image.open(masks / f"{name}.png").size == size
    first = done.json["results"][0]
    assert first["tiles"] == [4, 6] and first["name"] == str(scenes / "a.png")
    with edgepure.load(tiny_bundle, threads=1) as purifier:
        preset = {**purifier.presets["heterogeneous"].model_dump(), "tiles": {"overlap": 0.5}}
        wanted = purifier.purify_frame(scenes / "b.png", preset, noise=4, number=1).image
    found = np.asarray(Image.open(out / "b.png"), np.float32)[None] / 255
    np.testing.assert_allclose(found, wanted, atol=0.51 / 255)


def test_padding_and_resizing_are_asked_for(tiny_bundle: Path, scenes: Path, tmp_path: Path) -> None:
    small = scenes / "tiny.png"
    padded = run("purify", tiny_bundle, small, "-o", tmp_path / "padded.png", "--tile", "--pad", "reflect")
    assert padded.code == 0 and "1 x 3" in padded.stdout
    assert Image.open(tmp_path / "padded.png").size == (30, 9)
    assert run("purify", tiny_bundle, small, "-o", tmp_path / "big.png", "--tile", "--size", "45x20").code == 0
    assert Image.open(tmp_path / "big.png").size == (45, 20)


def test_masks_of_frames_are_as_large_as_the_frames(tiny_bundle: Path, scenes: Path, tmp_path: Path) -> None:
    frames, masks, again = (scenes / "a.png", scenes / "b.png"), tmp_path / "masks", tmp_path / "again"
    common = ("--preset", "heterogeneous", "--tile", "--seed", 4)
    assert run("purify", tiny_bundle, *frames, "-o", tmp_path / "out", *common, "--mask-out", masks).code == 0
    assert run("purify", tiny_bundle, *frames, "-o", again, *common, "--mask", masks).code == 0
    for frame in frames:
        assert (again / frame.name).read_bytes() == (tmp_path / "out" / frame.name).read_bytes()
    done = run("purify", tiny_bundle, *frames, "-o", again, *common, "--mask", masks / "a.png", "--json")
    assert done.code == 4 and [failure["name"] for failure in done.json["failures"]] == [str(frames[1])]


@pytest.mark.parametrize(
    "options",
    [["--size", "20"], ["--pad", "black"], ["--tile", "--resize"], ["--tile", "--pad", "white"],
     ["--tile", "--size", "20x"]],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(
    tiny_bundle: Path, scenes: Path, tmp_path: Path, options: list[str]
) -> None:
    done = run("purify", tiny_bundle, scenes, "-o", tmp_path / "out", *options, "--json")
    assert (done.code, done.json["error"]["code"]) == (2, "E-frame-option")
    assert not (tmp_path / "out").exists()


def test_plan_counts_the_tiles_of_a_frame(tiny_bundle: Path) -> None:
    about = ["plan", "--method", "uniform", "--set", "steps=7", "--image", "3x256x256", "--frame", "1920x1080"]
    plain = run(*about)
    assert plain.code == 0 and "10 x 6 = 60 tiles of 256 x 256, 60 x 7 = 420 UNet calls" in plain.stdout
    timed = run(*about, "--call-ms", "10", "--json").json["frame"]
    assert (timed["across"], timed["down"], timed["unet_calls"]) == (10, 6, 420)
    assert timed["seconds"] == pytest.approx(4.2)
    with_probes = run("plan", tiny_bundle, "--preset", "adaptive", "--frame", "30x16", "--json").json
    assert with_probes["frame"]["unet_calls"] == 2 * (2 + 4) + (2 + 4)
    for wrong in ("1920", "100x100", "1920x1080x3"):
        assert run(*about[:-1], wrong, "--json").json["error"]["code"] == "E-frame-option"
    assert run(*about[:-2], "--call-ms", "10", "--json").json["error"]["code"] == "E-frame-option"


def test_bench_multiplies_the_measured_call(tiny_bundle: Path) -> None:
    done = run("bench", tiny_bundle, "--batch", "1,2", "--repeats", "1", "--frame", "53x40", "--json").json
    cost, speeds = done["frame"], done["speeds"]
    assert cost["unet_calls"] == 15 * 4
    wanted = [60 * s["step_ms"] / s["batch"] / 1e3 for s in speeds]
    assert cost["seconds"] == pytest.approx(wanted)

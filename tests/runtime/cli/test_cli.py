"""The commands as a user runs them: another process, with what goes to stdout, to stderr and into files."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_process import command, environment, run
from PIL import Image
from tiny_bundle import IMAGE, images, reference_purification

import edgepure
from edgepure.cli.options import RESIZES
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset

COMMANDS = ("demo", "export", "verify", "purify", "classify", "plan", "presets", "inspect", "bench", "doctor")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five PNG files, dark and bright in turn."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, image in enumerate(images(5)):
        write_png(image, folder / f"photo{i}.png")
    return folder


def write_png(image: np.ndarray, path: Path) -> None:
    Image.fromarray(np.rint(255.0 * image[0]).astype(np.uint8)).save(path)


def read_png(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), np.float32)[None] / 255.0


# ---- help ------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.code == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert "130 interrupted" in " ".join(done.stdout.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_a_worked_example_and_json(name: str) -> None:
    done = run(name, "--help")
    assert done.code == 0
    assert f"    edgepure {name}" in done.stdout.split("Examples:")[1]
    assert "--json" in done.stdout


def test_wrong_usage_is_exit_code_2(tiny_bundle: Path) -> None:
    for arguments in (
        ["verfy", tiny_bundle],
        ["verify"],
        ["plan", "--no-such-option"],
        ["bench", tiny_bundle, "--repeats", "0"],
    ):
        done = run(*arguments)
        assert done.code == 2
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        told = run(*arguments, "--json")
        assert told.code == 2
        assert told.json["error"]["exit_code"] == 2 and told.json["error"]["message"] in told.stderr


# ---- plan ------------------------------------------------------------------------------------------------------------


def test_plan_without_a_bundle_counts_first() -> None:
    done = run("plan", "--method", "uniform", "--set", "t_star=100", "--set", "steps=10")
    assert done.code == 0
    assert done.stdout.splitlines()[0] == "UNet calls for one decision: 10 = 10 rows x 1 vote"
    assert len([line for line in done.stdout.splitlines() if " denoise " in line]) == 10


def test_plan_json_is_the_plan_of_python() -> None:
    settings = {"method": "heterogeneous", "t_l": 200, "t_s": 100, "ddim_steps": 500, "variant": "official"}
    changes = [part for key, value in settings.items() if key != "method" for part in ("--set", f"{key}={value}")]
    found = run("plan", "--method", "heterogeneous", *changes, "--json").json
    preset = Preset.parse({"method": settings, "mask": {"area": 0.5}})
    expected = Planner(edgepure.NoiseSchedule.linear(), 3 * 32 * 32).plan(preset).to_dict()
    assert {key: found[key] for key in expected} == json.loads(json.dumps(expected))
    assert found["decision"] == {"rows": 100, "votes": 1, "probes": 0, "unet_calls": 100}


def test_plan_counts_votes_and_probes(tiny_bundle: Path) -> None:
    assert run("plan", tiny_bundle, "--preset", "voted", "--json").json["decision"]["unet_calls"] == 12
    done = run("plan", tiny_bundle, "--preset", "adaptive", "--set", "votes.count=3")
    assert done.stdout.startswith("UNet calls for one decision: 14 = 4 rows x 3 votes + 2 probes\n")


def test_plan_for_a_score_norm(tiny_bundle: Path) -> None:
    rows = {
        norm: run("plan", tiny_bundle, "--preset", "adaptive", "--score-norm", norm, "--json").json for norm in (15, 60)
    }
    assert rows[15]["levels"]["t_star"] == 10 and rows[60]["levels"]["t_star"] == 40
    assert rows[15]["unet_calls"] < rows[60]["unet_calls"]
    run("plan", tiny_bundle, "--preset", "uniform", "--score-norm", "15").fails(2, "--score-norm", "SSNI")


def test_long_plans_are_shortened_unless_all_is_asked_for() -> None:
    short = run("plan", "--method", "uniform", "--set", "t_star=150")
    full = run("plan", "--method", "uniform", "--set", "t_star=150", "--all", "--wide")
    assert short.stdout.splitlines()[0] == full.stdout.splitlines()[0]
    assert "(126 rows)" in short.stdout
    assert "out_eps" in full.stdout and "rows)" not in full.stdout
    assert sum(" denoise " in line for line in full.stdout.splitlines()) == 150


def test_plan_reads_preset_and_schedule_files(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('{"method": {"method": "uniform", "t_star": 20}, "votes": {"count": 2}}')
    (tmp_path / "cosine.json").write_text('{"kind": "cosine", "timesteps": 50}')
    found = run("plan", "--preset", tmp_path / "mine.json", "--schedule", tmp_path / "cosine.json", "--json").json
    assert found["preset"] == "mine"
    assert found["decision"]["unet_calls"] == 40
    run("plan", "--method", "uniform", "--set", "t_star=60", "--schedule", tmp_path / "cosine.json").fails(2, "T = 50")


# ---- inspect and verify ----------------------------------------------------------------------------------------------


def test_inspect_shows_what_the_manifest_says(tiny_bundle: Path) -> None:
    done = run("inspect", tiny_bundle)
    assert done.code == 0
    for part in ("1 x 16 x 16", "dark, bright", "coeffs[B,16]", "uniform *", "weights.bin", "four DDIM steps"):
        assert part in done.stdout
    found = run("inspect", tiny_bundle, "--json").json
    manifest = json.loads((tiny_bundle / "bundle.json").read_text())
    assert {key: found[key] for key in manifest} == manifest
    assert found["unet_calls"] == {"uniform": 4, "heterogeneous": 6, "voted": 12, "adaptive": 6}
    assert all(manifest["files"][f]["sha256"] in done.stdout for f in manifest["files"])


def test_verify_checks_every_graph_and_the_recorded_presets(tiny_bundle: Path) -> None:
    found = run("verify", tiny_bundle, "--json")
    assert found.code == 0
    assert found.json["ok"] is True
    subjects = {check["subject"] for check in found.json["checks"]}
    presets = ("uniform", "heterogeneous", "voted")
    assert subjects == {"rows heterogeneous"}.union(
        (f"graph {g}" for g in ("classifier", "mask", "step", "unet")),
        (f"pipeline {p}" for p in presets),
        (f"decisions {p} (self-test)" for p in presets),
    )
    assert [level["status"] for level in found.json["levels"]] == ["passed"] * 4
    assert found.json["unrecorded"] == ["adaptive"]
    graphs = run("verify", tiny_bundle, "--graphs-only")
    assert "pipeline" not in graphs.stdout and "ok" in graphs.stdout


# ---- purify and classify ---------------------------------------------------------------------------------------------


def test_purify_writes_what_numpy_computes(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "purified"
    done = run("purify", tiny_bundle, photos, "-o", out, "--seed", "7", "--preset", "heterogeneous", "--json")
    assert done.code == 0
    assert "warning: --seed makes the noise predictable" in done.stderr
    files = sorted(photos.iterdir())
    assert sorted(p.name for p in out.iterdir()) == [p.name for p in files]
    assert [r["file"] for r in done.json["results"]] == [str(out / p.name) for p in files]
    clean = np.stack([read_png(p) for p in files])
    manifest = edgepure.Bundle.open(tiny_bundle).manifest
    planner = manifest.planner()
    expected = reference_purification(clean, manifest.presets["heterogeneous"], planner, 7)
    found = np.stack([read_png(out / p.name) for p in files])
    assert np.abs(found - expected).max() <= 0.51 / 255.0  # one rounding to 8 bits
    assert np.abs(found - clean).max() > 2.0 / 255.0


def test_purify_one_file_and_its_mask(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    done = run(
        "purify",
        tiny_bundle,
        photos / "photo1.png",
        "-o",
        tmp_path / "clean.png",
        "--mask-out",
        tmp_path / "masks",
        "--preset",
        "heterogeneous",
    )
    assert done.code == 0
    assert read_png(tmp_path / "clean.png").shape == IMAGE.shape
    mask = read_png(tmp_path / "masks" / "clean.png")
    assert set(np.unique(mask)) == {0.0, 1.0}


def test_a_seed_gives_the_same_image_whatever_else_is_in_the_batch(
    tiny_bundle: Path, photos: Path, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    third = photos / "photo2.png"
    alone = ["purify", tiny_bundle, photos / "photo0.png", bad, third, "-o", tmp_path / "a", "--seed", "5"]
    assert run(*alone).code == 4
    assert run("purify", tiny_bundle, photos, "-o", tmp_path / "b", "--seed", "5", "--slots", "2").code == 0
    assert (tmp_path / "a" / "photo2.png").read_bytes() == (tmp_path / "b" / "photo2.png").read_bytes()


def test_without_a_seed_the_noise_is_fresh(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        done = run("purify", tiny_bundle, photos / "photo0.png", "-o", tmp_path / f"{name}.png")
        assert done.code == 0 and "warning" not in done.stderr
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_classify_agrees_with_python(tiny_bundle: Path, photos: Path) -> None:
    done = run("classify", tiny_bundle, photos, "--votes", "3", "--rule", "majority", "--seed", "9", "--json")
    with edgepure.load(tiny_bundle, threads=1) as purifier:
        preset = purifier.preset().model_dump() | {"votes": {"count": 3, "rule": "majority"}}
        expected = purifier.classify(photos, preset, noise=9)
    for found, result in zip(done.json["results"], expected, strict=True):
        wanted = result.to_dict()
        assert {k: v for k, v in found.items() if k != "seconds"} == {k: v for k, v in wanted.items() if k != "seconds"}
    assert done.json["unet_calls"] == 5 * 12
    assert [r["class_name"] for r in done.json["results"]] == ["dark", "bright", "dark", "bright", "dark"]


def test_classify_table_has_what_the_method_knows(tiny_bundle: Path, photos: Path) -> None:
    for preset, words in (
        ("uniform", ["t_star"]),
        ("heterogeneous", ["t_l", "t_s", "mask area", "plain"]),
        ("adaptive", ["score norm"]),
    ):
        done = run("classify", tiny_bundle, photos, "--preset", preset)
        assert done.code == 0
        head = done.stdout.splitlines()[0]
        assert all(word in head for word in ["image", "label", "prob.", "UNet calls", "ms", *words])
        assert "photo4.png" in done.stdout


def test_arrays_are_images_too(tiny_bundle: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", images(3))
    np.savez(tmp_path / "bytes.npz", images=np.zeros((2, 16, 16, 1), np.uint8), labels=np.zeros(2))
    done = run("classify", tiny_bundle, tmp_path / "floats.npy", tmp_path / "bytes.npz", "--json")
    names = [r["name"] for r in done.json["results"]]
    assert names == [f"{tmp_path}/floats.npy[{i}]" for i in range(3)] + [f"{tmp_path}/bytes.npz[{i}]" for i in range(2)]


def test_presets_can_be_changed_and_brought_along(tiny_bundle: Path, photos: Path, tmp_path: Path) -> None:
    changed = run(
        "classify", tiny_bundle, photos / "photo0.png", "--set", "t_star=10", "--set", "steps=2", "--json"
    ).json
    assert changed["results"][0]["levels"] == {"t_star": 10}
    assert changed["results"][0]["unet_calls"] == 2
    own = tmp_path / "own.json"
    own.write_text('{"method": {"method": "heterogeneous", "t_l": 50, "t_s": 20}, "mask": {"threshold": 0.5}}')
    brought = run(
        "classify", tiny_bundle, photos / "photo0.png", "--preset", own, "--set", "mask.area=0.4", "--json"
    ).json
    assert brought["preset"] == "own (mask.area=0.4)"
    assert brought["results"][0]["levels"] == {"t_l": 50, "t_s": 20}


def test_resize_is_only_done_when_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("L", (20, 24), 200).save(tmp_path / "big.png")
    run("classify", tiny_bundle, tmp_path / "big.png").fails(4, "20 x 24", "16 x 16", "--resize")
    for how in (["--resize"], ["--resize", "crop"], ["--resize=pad"], ["--resize", "--bgr"]):
        done = run("classify", tiny_bundle, tmp_path / "big.png", *how, "--json").json
        assert done["results"][0]["class_name"] == "bright"
    wrong = run("classify", tiny_bundle, tmp_path / "big.png", "--resize=huge", "--json")
    assert (wrong.code, wrong.json["error"]["code"]) == (2, "E-usage")
    assert "squash, crop, pad" in wrong.json["error"]["message"]
    assert "Traceback" not in wrong.stderr


def test_ways_to_resize_differ(tiny_bundle: Path, tmp_path: Path) -> None:
    """A wide image, black but for its middle: a crop shows the middle alone, padding adds more black."""
    wide = np.zeros((16, 64), np.uint8)
    wide[:, 24:40] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    means = {}
    for how in RESIZES:
        run("purify", tiny_bundle, tmp_path / "wide.png", "-o", tmp_path / f"{how}.png", "--resize", how, "--seed", "1")
        means[how] = float(np.asarray(Image.open(tmp_path / f"{how}.png")).mean())
    assert means["crop"] > means["squash"] > means["pad"]


# ---- bench, doctor, version ------------------------------------------------------------------------------------------


def test_bench_measures_every_batch(tiny_bundle: Path) -> None:
    found = run("bench", tiny_bundle, "--preset", "heterogeneous", "--batch", "1,3", "--repeats", "2", "--json").json
    assert [s["batch"] for s in found["speeds"]] == [1, 3]
    assert all(
        s[key] > 0.0 for s in found["speeds"] for key in ("unet_ms", "step_ms", "loop_cost", "images_per_second")
    )
    assert (found["unet_calls"], found["rows_timed"], found["threads"]) == (6, 6, 1)
    assert found["peak_memory_bytes"] > 1 << 20
    assert found["lanes"] == []
    run("bench", tiny_bundle, "--batch", "1,0").fails(2, "--batch", "1,8")


def test_bench_measures_lanes(tiny_bundle: Path) -> None:
    options = ("--preset", "uniform", "--batch", "1", "--repeats", "1", "--lanes", "1,2")
    one, two = run("bench", tiny_bundle, *options, "--json").json["lanes"]
    assert (one["lanes"], two["lanes"]) == (1, 2)
    assert all(rate[key] > 0.0 for rate in (one, two) for key in ("images_per_second", "alone_ms"))
    run("bench", tiny_bundle, "--lanes", "1,0").fails(2, "--lanes", "1,2")


def test_version_and_closed_pipes(tiny_bundle: Path) -> None:
    assert run("--version").code == 0
    # the reader of the pipe is gone before anything is written
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("plan", tiny_bundle), stdout=write, stderr=subprocess.PIPE, env=environment(), text=True
    )
    os.close(write)
    assert done.returncode == 1
    assert done.stderr == ""

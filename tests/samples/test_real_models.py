"""The recipes for real checkpoints: the papers' subset, their data files, and the report, on what fits into a test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import model_folders
import numpy as np
import pytest
from codes import raises_code
from PIL import Image

import edgepure
from edgepure.bundle.bundle import Bundle, write_manifest
from samples.cifar10 import evaluate as cifar10
from samples.cifar10 import export as cifar10_export
from samples.imagenet import evaluate as imagenet
from samples.imagenet import export as imagenet_export
from samples.real_models import evaluation, papers, recipe

pytestmark = pytest.mark.samples


def test_the_papers_subset() -> None:
    """NumPy keeps the stream of RandomState, so these indices are those that the papers' code draws."""
    chosen = evaluation.subset(10_000)
    assert chosen.shape == (512,)
    assert len(set(chosen.tolist())) == 512
    assert chosen[:4].tolist() == [9394, 898, 2398, 5906]


def test_cifar10_is_read_from_its_binary_file(tmp_path: Path) -> None:
    records = np.zeros((cifar10.TEST_IMAGES, cifar10.RECORD), np.uint8)
    records[7, 0], records[7, 1:1025], records[7, 1025], records[7, -1] = 3, 255, 51, 102
    records.tofile(tmp_path / "test_batch.bin")
    images, labels = cifar10.read(tmp_path, np.array([7, 2]))
    assert images.shape == (2, 3, 32, 32)
    assert labels.tolist() == [3, 0]
    assert images.dtype == np.float32
    assert images[0, 0].min() == 1.0  # red comes first
    assert images[0, 1, 0, 0] == np.float32(51 / 255)
    assert images[0, 2, 31, 31] == np.float32(102 / 255)
    (tmp_path / "test_batch.bin").write_bytes(b"<html>")
    with raises_code("E-image"):
        cifar10.read(tmp_path, None)
    with raises_code("E-image"):
        cifar10.read(tmp_path / "elsewhere", None)


def test_imagenet_images_are_made_as_the_papers_make_them(tmp_path: Path) -> None:
    pixels = np.zeros((512, 1024, 3), np.uint8)
    pixels[:, 512:] = 255  # black left half, white right half
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = imagenet.load(tmp_path / "a.png")
    assert image.shape == (3, 256, 256)
    assert image.dtype == np.float32
    assert image[:, :, :120].max() == 0.0
    assert image[:, :, 136:].min() == 1.0
    with raises_code("E-image"):
        imagenet.files(tmp_path)


def test_the_table_of_a_bundle_with_published_values_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the digits, under a name that has published values: the whole script, two images."""
    bundle = shutil.copytree(edgepure.demo_bundle(), tmp_path / "bundle")
    manifest = Bundle.open(bundle).manifest
    named = {"cifar10-diffpure-linf": manifest.presets["uniform"]}
    write_manifest(bundle, manifest.model_copy(update={"presets": {**manifest.presets, **named}}))
    words = [
        "--random-images",
        "--bundle",
        bundle,
        "--preset",
        "cifar10-diffpure-linf",
        "--attack",
        "surrogate,pgd",
        "--images",
        2,
        "--steps",
        1,
        "--eot",
        1,
        "--votes",
        2,
        "--worst",
        2,
        "--threads",
        1,
        "--out",
        tmp_path / "r.json",
    ]
    monkeypatch.setattr("sys.argv", ["evaluate", *map(str, words)])
    evaluation.main("cifar10", cifar10.read, cifar10.TEST_IMAGES, "unused")
    shown = capsys.readouterr().out
    assert "70.64 %" in shown and "DiffBreak" in shown and "surrogate gradient" in shown
    report = json.loads((tmp_path / "r.json").read_text())
    (preset,) = report["presets"]
    assert [a["attack"] for a in preset["attacks"]] == ["surrogate", "pgd"]
    assert preset["attacks"][0]["accuracies"][0]["protocol"]["surrogate"]
    assert report["random"] is True


def test_published_values_belong_to_presets_that_exist() -> None:
    from edgepure.methods.published import published

    for value in papers.PUBLISHED:
        assert any(name.startswith(value.presets) for name in published()), value
    assert {name for name in papers.TABLES} == {"cifar10", "imagenet"}


@pytest.mark.parametrize("made", [cifar10_export.RECIPE, imagenet_export.RECIPE], ids=lambda r: r.name)
def test_recipes_name_presets_that_exist(made: recipe.Recipe) -> None:
    from edgepure.methods.published import choose, mask_input

    assert list(choose(made.presets)) == list(made.presets)
    assert mask_input(made.presets) == "own"
    assert set(made.files) == set(made.untrained) == {"classifier", "diffusion"}
    assert all(text.endswith("weights=random") or "weights=random&" in text for text in made.untrained.values())


@pytest.mark.slow
def test_a_recipe_on_small_networks(tmp_path: Path) -> None:
    folder = model_folders.diffusers_folder(tmp_path / "unet", model_folders.diffusers_unet())
    classifier = "robustbench-wrn:WRN-10-1?weights=random"
    import edgepure_export

    assert edgepure_export.__all__
    report = recipe.run(
        cifar10_export.RECIPE,
        classifier,
        f"diffusers:{folder}",
        tmp_path / "bundle",
        ["cifar10-edge-uniform-2"],
        threads=1,
        image=(3, 32, 32),
        check_epsilon=False,
    )
    assert report["verified"]
    assert report["peak_memory_gib"] > 0.1
    assert max(report["largest_difference_to_pytorch"].values()) < 1e-4
    assert report["parameters"]["classifier"] == 77_850
    assert json.loads(json.dumps(report)) == report
    text = recipe.markdown(report)
    assert "| verified through the runtime | yes |" in text


def test_committed_results_are_within_what_was_promised() -> None:
    """The true sizes: at most 20 GB of memory, and within 1e-4 of PyTorch."""
    folder = Path(__file__).resolve().parents[2] / "docs" / "results"
    for name, millions in (("cifar10", 106.6), ("imagenet", 552.8)):
        report = json.loads((folder / f"export-{name}.json").read_text())
        assert round(report["parameters"]["diffusion"] / 1e6, 1) == millions
        assert report["peak_memory_gib"] < 20e9 / 2**30
        assert max(report["largest_difference_to_pytorch"].values()) < 1e-4
        assert report["verified"]
        assert (folder / f"export-{name}.md").read_text() == recipe.markdown(report)

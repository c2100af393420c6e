"""What ships with the package is what the sample makes: weights, graphs, presets, images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from build_bundle import PACKAGE_DATA, TRANSFER, build, sha256
from data import load_digits_split
from models import WEIGHTS, load_classifier
from presets import DEFAULT, fixed_presets, ssni_presets

import edgepure
from edgepure.bundle.calibration import ScoreNorms
from edgepure.demo import demo_bundle, demo_images
from edgepure.parity.verify import verify


@pytest.fixture(scope="module")
def shipped() -> edgepure.Bundle:
    return edgepure.Bundle.open(demo_bundle())


def clean_norms(bundle: edgepure.Bundle) -> ScoreNorms:
    """What the bundle says of the score norms of the training images."""
    calibration = bundle.manifest.calibration
    assert calibration is not None
    measured = calibration.find(calibration.chosen)
    assert measured is not None
    return measured.clean


def test_package_data_is_small(shipped: edgepure.Bundle) -> None:
    total = sum(p.stat().st_size for p in PACKAGE_DATA.rglob("*") if p.is_file())
    assert total < 4_000_000
    assert sum(p.stat().st_size for p in WEIGHTS.glob("*.safetensors")) < 3_000_000


@pytest.mark.parametrize(("network", "file"), [("classifier", "classifier"), ("diffusion", "unet")])
def test_provenance_names_the_shipped_weights(shipped: edgepure.Bundle, network: str, file: str) -> None:
    said = getattr(shipped.manifest.provenance, network)
    assert sha256(WEIGHTS / f"{file}.safetensors") in said


def test_shipped_bundle_passes_its_own_self_test() -> None:
    verification = verify(demo_bundle(), threads=1)
    assert verification, str(verification)
    assert verification.unrecorded == ()
    assert [level.status for level in verification.levels] == ["passed"] * 4


def test_shipped_presets_are_those_of_the_sample(shipped: edgepure.Bundle) -> None:
    manifest = shipped.manifest
    assert manifest.default_preset == DEFAULT
    assert manifest.calibration is not None
    expected = {**fixed_presets(), **ssni_presets(manifest.calibration)}
    assert dict(manifest.presets) == {name: edgepure.Preset.parse(preset) for name, preset in expected.items()}


def test_statistics_are_of_score_norms_of_the_shipped_graphs(shipped: edgepure.Bundle) -> None:
    measured = clean_norms(shipped)
    images = load_digits_split().train.images[:64]
    with edgepure.load(demo_bundle(), threads=1) as purifier:
        norms = purifier.score_norms(images, "uniform-ssni", noise=3)
    assert norms.min() >= 0.95 * measured.min
    assert norms.max() <= 1.05 * measured.max
    # five standard errors of a mean of 64
    assert abs(norms.mean() - measured.mean) < 5 * measured.std / 8


@pytest.mark.slow
def test_a_fresh_export_agrees_with_the_shipped_bundle(shipped: edgepure.Bundle, tmp_path: Path) -> None:
    fresh = edgepure.Bundle.open(build(tmp_path / "digits"))
    assert set(fresh.manifest.presets) == set(shipped.manifest.presets)
    assert fresh.manifest.graphs == shipped.manifest.graphs
    recorded = shipped.selftest()
    with edgepure.load(fresh.path, threads=1) as purifier:
        for name, vectors in recorded.graphs.items():
            outputs = purifier.engine(name).run(vectors.inputs)
            for output, expected in vectors.outputs.items():
                scale = max(1.0, float(np.abs(expected).max()))
                if output == "mask":
                    assert (outputs[output] != expected).mean() <= 0.005
                else:
                    np.testing.assert_allclose(outputs[output], expected, rtol=0, atol=1e-4 * scale)
    shipped_norms, fresh_norms = clean_norms(shipped), clean_norms(fresh)
    for key in ("mean", "std", "min", "max"):
        assert getattr(fresh_norms, key) == pytest.approx(getattr(shipped_norms, key), rel=1e-3)


def test_demo_images_are_test_images_and_their_attacks() -> None:
    images = demo_images()
    test = load_digits_split().test
    with np.load(PACKAGE_DATA / "digits_images.npz", allow_pickle=False) as arrays:
        index = arrays["index"]
    assert len(np.unique(index)) == len(images) == 64
    np.testing.assert_array_equal(images.clean, test.images[index])
    np.testing.assert_array_equal(images.labels, test.labels[index])
    assert set(images.labels.tolist()) == set(range(10))
    assert np.abs(images.adversarial - images.clean).max() <= TRANSFER.eps + 1e-6
    assert images.adversarial.min() >= 0.0
    assert images.adversarial.max() <= 1.0
    assert images.protocol["eps"] == TRANSFER.eps
    assert images.protocol["steps"] == TRANSFER.steps


def test_demo_images_fool_the_shipped_classifier() -> None:
    import torch

    images = demo_images()
    with torch.no_grad():
        answers = load_classifier()(torch.from_numpy(images.adversarial)).argmax(1).numpy()
    assert (answers == images.labels).mean() <= 0.02

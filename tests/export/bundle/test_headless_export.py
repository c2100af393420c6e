"""Bundles without a classifier: a diffusion model alone, or with the network whose blocks make the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from in_process import invoke
from torch import Tensor, nn

import edgepure
from edgepure.methods.presets import Preset
from edgepure.parity.side_by_side import ImageSet
from edgepure.rows.noise import SeededNoise
from edgepure_export.bundle.from_sources import export_from_sources
from edgepure_export.bundle.writer import export_bundle
from edgepure_export.compare.against_torch import verify_against_torch
from edgepure_export.twin.twin import load_twin

PRESETS: dict[str, Any] = {
    "uniform": {"method": {"method": "uniform", "t_star": 60, "steps": 2, "sampler": "ddim"}},
    "heterogeneous": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 1, "stage2_steps": 1},
        "mask": {"threshold": 0.4},
    },
    "given": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 1, "stage2_steps": 1},
        "mask": {"source": "caller"},
    },
}


class Detector(nn.Module):
    """The tiny classifier as part of a network whose answer is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_models.TinyClassifier()

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        return {"boxes": [self.body(image)]}


def make(out: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {
        "backbone": Detector(),
        "blocks": ("body.stem", "body.body.1"),
        "presets": PRESETS,
        "image_size": tiny_models.SIZE,
        "threads": 1,
    }
    return export_bundle(None, tiny_models.TinyUNet(), out, **{**given, **changes})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("headless") / "bundle")


def test_a_backbone_makes_the_mask_and_nothing_else(bundle: Path) -> None:
    manifest = edgepure.Bundle.open(bundle).manifest
    assert set(manifest.graphs) == {"mask", "step", "unet"}
    assert [tensor.name for tensor in manifest.graphs["mask"].outputs] == ["mask", "attention"]
    assert manifest.classes == ()
    assert (manifest.provenance.classifier, manifest.provenance.backbone) == (None, "Detector")
    found = edgepure.verify(bundle, threads=1)
    assert found, str(found)
    assert set(edgepure.Bundle.open(bundle).selftest().pipelines) == set(PRESETS)


def test_its_mask_is_that_of_the_network_as_a_classifier(bundle: Path, tmp_path: Path) -> None:
    with_labels = export_bundle(
        tiny_models.TinyClassifier(), tiny_models.TinyUNet(), tmp_path / "b", image_size=tiny_models.SIZE,
        blocks=("stem", "body.1"), presets=PRESETS, threads=1,
    )  # fmt: skip
    images = tiny_models.images(3).numpy()
    with edgepure.load(bundle, threads=1) as mine, edgepure.load(with_labels, threads=1) as theirs:
        for a, b in zip(*(p.purify(images, "heterogeneous", noise=1) for p in (mine, theirs)), strict=True):
            assert a.mask is not None and b.mask is not None
            np.testing.assert_array_equal(a.mask, b.mask)
            np.testing.assert_allclose(a.image, b.image, atol=1e-6)


def test_pytorch_beside_it_agrees(bundle: Path) -> None:
    clean = ImageSet("clean", tiny_models.images(3, seed=2).numpy())
    networks = {"diffusion": tiny_models.TinyUNet(), "backbone": Detector()}
    found = verify_against_torch(bundle, **networks, images=[clean], presets=["heterogeneous", "given"], threads=1)
    assert found, str(found)
    with raises_code("E-against-torch"):
        verify_against_torch(bundle, **networks, classifier=tiny_models.TinyClassifier(), threads=1)


def test_the_twin_takes_the_callers_mask(bundle: Path) -> None:
    twin, images = load_twin(bundle), tiny_models.images(2)
    mask = torch.zeros((2, 1, tiny_models.SIZE, tiny_models.SIZE))
    mask[:, :, :3] = 1.0
    mine = twin.run_preset(images, Preset.parse(PRESETS["given"]), SeededNoise(3), mask=mask)
    assert mine.logits.shape == (2, 0)
    with edgepure.load(bundle, threads=1) as purifier:
        theirs = purifier.purify(images.numpy(), "given", noise=3, mask=mask.numpy())
    np.testing.assert_allclose(mine.purified.numpy(), np.stack([r.image for r in theirs]), atol=1e-5)
    with raises_code("E-mask-missing"):
        twin.run_preset(images, Preset.parse(PRESETS["given"]), SeededNoise(3))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"backbone": None}, "E-export-networks"),
        ({"blocks": None}, "E-export-networks"),
        ({"classes": ("a", "b")}, "E-classes"),
        ({"backbone": "detector"}, "E-network-kind"),
        ({"blocks": ("body.head",)}, "E-layout-maps"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], code: str) -> None:
    with raises_code(code):
        make(tmp_path / "bundle", **changes)
    assert not (tmp_path / "bundle").exists()


NETWORKS = """
import tiny_models
from torch import nn

class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = tiny_models.TinyClassifier()

    def forward(self, image):
        return {"boxes": [self.body(image)]}

unet = tiny_models.TinyUNet
"""


def test_from_sources(tmp_path: Path) -> None:
    (tmp_path / "networks.py").write_text(NETWORKS)
    backbone, unet = f"python:{tmp_path}/networks.py:Detector", f"python:{tmp_path}/networks.py:unet"
    image = (tiny_models.CHANNELS, tiny_models.SIZE, tiny_models.SIZE)
    done = invoke(
        "export", "--diffusion", unet, "--backbone", backbone, "--blocks", "body.stem", "--image", "3x8x8", "--threads",
        1, "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    made = edgepure.Bundle.open(tmp_path / "bundle").manifest
    assert str(made.provenance.backbone).startswith("python:networks.py:Detector (sha256 ")
    for given, code in (
        ({"presets": {"h": PRESETS["heterogeneous"]}}, "E-taps-needed"),
        ({"blocks": ("stem",)}, "E-export-networks"),
        ({"backbone": backbone}, "E-taps-needed"),
    ):
        with raises_code(code):
            export_from_sources(None, unet, tmp_path / "other", image=image, threads=1, **given)
    export_from_sources(None, unet, tmp_path / "other", image=image, presets={"g": PRESETS["given"]}, threads=1)
    assert set(edgepure.Bundle.open(tmp_path / "other").manifest.graphs) == {"step", "unet"}

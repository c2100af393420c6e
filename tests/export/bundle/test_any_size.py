"""Bundles with a graph of any size: exported, compared at two sizes, and run on whole frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor, nn
from torch.nn import functional as F

import edgepure
from edgepure import Purifier
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.engines.tensorrt.build import chosen_graphs
from edgepure.errors import BundleError
from edgepure.parity.verify import verify
from edgepure_export.bundle.checks import size_multiple
from edgepure_export.bundle.writer import export_bundle
from edgepure_export.twin.noise_batches import SourceNoise
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

PRESETS = {
    "uniform": {"method": {"method": "uniform", "t_star": 60, "steps": 3, "sampler": "ddim"}},
    "heterogeneous": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2},
        "mask": {"area": 0.25},
    },
    "adaptive": {
        "method": {"method": "uniform", "t_star": 60, "steps": 3, "sampler": "ddim"},
        "ssni": {"reweighting": "sigmoid", "mu": 20.0, "tau": 10.0, "probe": {"probes": 3, "label": "index"}},
    },
}


class AnyUNet(nn.Module):
    """Two strided levels, attention over all positions, group norm: nothing of it knows a size."""

    def __init__(self, attention: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.conv_in, self.down = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 8, 2, 2)
            self.norm, self.qkv = nn.GroupNorm(2, 8), nn.Conv2d(8, 24, 1)
            self.down2, self.up2 = nn.Conv2d(8, 8, 2, 2), nn.ConvTranspose2d(8, 8, 2, 2)
            self.up, self.conv_out = nn.ConvTranspose2d(16, 8, 2, 2), nn.Conv2d(16, 3, 3, 1, 1)
            self.time = nn.Linear(1, 8)
        self.attention = attention
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        high = self.conv_in(x) + self.time(0.001 * t[:, None])[:, :, None, None]
        low = F.silu(self.norm(self.down(high)))
        if self.attention:
            _, channels, height, width = low.shape
            q, k, v = self.qkv(low).reshape(-1, 3, 1, channels, height * width).transpose(3, 4).unbind(1)
            mixed = F.scaled_dot_product_attention(q, k, v)
            low = low + mixed.transpose(2, 3).reshape(-1, channels, height, width)
        low = torch.cat([self.up2(F.silu(self.down2(low))), low], 1)
        high = torch.cat([self.up(low), high], 1)
        epsilon: Tensor = 0.8 * x + 0.3 * self.conv_out(F.silu(high))
        return epsilon


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(
        tiny_models.TinyClassifier(),
        AnyUNet(),
        tmp_path_factory.mktemp("any") / "any",
        image_size=tiny_models.SIZE,
        blocks=tiny_models.BLOCKS,
        presets=PRESETS,
        any_size=True,
        threads=1,
    )


@pytest.fixture(scope="module")
def purifier(bundle: Path) -> Iterator[Purifier]:
    with edgepure.load(bundle, threads=1) as opened:
        yield opened


def frame(height: int = 20, width: int = 28) -> np.ndarray:
    return np.random.default_rng(0).random((3, height, width), np.float32)


def test_the_manifest_says_what_sizes_it_takes(bundle: Path) -> None:
    manifest = Bundle.open(bundle).manifest
    assert manifest.any_size is not None
    assert manifest.any_size.multiple == 4
    assert manifest.any_size.checked == ((8, 8), (12, 16))
    assert manifest.provenance.parity["step_any"] < 1e-4
    assert [t.shape for t in manifest.graphs["step_any"].outputs] == [("batch", 3, "height", "width")]
    assert manifest.graphs["step"].inputs[0].shape == ("batch", 3, 8, 8), "the others keep their size"
    vectors = Bundle.open(bundle).selftest().graphs["step_any"]
    assert vectors.inputs["x"].shape == (3, 3, 12, 16)


def test_it_is_verified_and_its_weights_are_shared(bundle: Path) -> None:
    verification = verify(bundle, threads=1)
    assert verification, str(verification)
    assert "graph step_any" in {check.subject for check in verification.checks}
    sizes = {path.name: path.stat().st_size for path in bundle.iterdir()}
    with_it, weights = sizes["step_any.onnx"], sum(p.numel() for p in AnyUNet().parameters()) * 4
    assert with_it < sizes["step.onnx"] + weights + 8192


def test_a_whole_frame_is_what_pytorch_computes(purifier: Purifier) -> None:
    """Rows, noise of the frame's pixels and all, by the source network at the frame's own size."""
    reference = TorchReference(AnyUNet(), schedule=purifier.schedule)
    x = torch.from_numpy(frame())[None]
    plan = purifier.plan("uniform")
    noise = SourceNoise(edgepure.SeededNoise(3), [plan], x)
    with torch.no_grad():
        wanted = reference.purify(x, plan, noise).numpy()[0]
    found = purifier.purify_frame(frame(), "uniform", noise=3, whole=True)
    np.testing.assert_allclose(found.image, wanted, atol=2e-5)
    assert (found.tiles, found.unet_calls) == ((1, 1), 3)
    by_tiles = purifier.purify_frame(frame(), "uniform", noise=3)
    assert np.abs(by_tiles.image - found.image).max() > 1e-3, "attention sees the whole frame here"


def test_masks_levels_and_padding_of_whole_frames(purifier: Purifier) -> None:
    whole, tiles = (purifier.purify_frame(frame(), "heterogeneous", noise=3, whole=w) for w in (True, False))
    assert whole.mask is not None and tiles.mask is not None and np.array_equal(whole.mask, tiles.mask)
    adaptive = purifier.purify_frame(frame(), "adaptive", noise=3, whole=True)
    assert adaptive.score_norms is not None and len(adaptive.score_norms) == 1
    with raises_code("E-frame-size"):
        purifier.purify_frame(frame(21, 28), noise=3, whole=True)
    padded = purifier.purify_frame(frame(21, 5), noise=3, whole=True, pad="reflect")
    assert padded.image.shape == (3, 21, 5)
    one = purifier.purify_frame(frame(8, 8), noise=3, whole=True).image
    np.testing.assert_allclose(one, purifier.purify(frame(8, 8)[None], noise=3)[0].image, atol=2e-5)


def test_the_twin_leaves_it_out(bundle: Path) -> None:
    assert len(load_twin(bundle).networks) == 3


def test_what_cannot_run_it_says_so(bundle: Path, tmp_path: Path) -> None:
    opened = Bundle.open(bundle)
    assert "step_any" not in chosen_graphs(opened, "fp32", None)
    with raises_code("E-provider-any-size"):
        chosen_graphs(opened, "fp32", ["step_any"])
    with edgepure.load(bundle, "openvino", threads=1) as other, raises_code("E-provider-any-size"):
        other.purify_frame(frame(), whole=True)
    assert verify(bundle, provider="openvino", threads=1)
    with edgepure.load(edgepure.demo_bundle(), threads=1) as without, raises_code("E-frame-whole"):
        without.purify_frame(np.zeros((1, 32, 32), np.float32), whole=True)


def test_networks_of_one_size_are_refused() -> None:
    image = Manifest.model_fields["image"].annotation(channels=3, height=8, width=8)  # type: ignore[misc]
    assert size_multiple(AnyUNet(), image) == 4
    assert size_multiple(nn_of_one_pixel(), image) == 1
    with raises_code("E-export-size"):
        size_multiple(tiny_models.TinyUNet(), image)  # its attention knows that maps are 4 x 4


def nn_of_one_pixel() -> nn.Module:
    class OnePixel(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return 0.9 * x + 0.0001 * t[:, None, None, None]

    return OnePixel()


def test_an_entry_without_its_graph_is_refused(bundle: Path) -> None:
    data = Bundle.open(bundle).manifest.model_dump(mode="json")
    with pytest.raises(BundleError, match="step_any"):
        Manifest.from_data({**data, "any_size": None})

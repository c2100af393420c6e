"""A bundle beside its source networks: it agrees, and every kind of fault is found and named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_models
import torch
from changed_bundles import perturb, rehash
from codes import raises_code
from in_process import invoke
from torch import nn

from edgepure.bundle.bundle import Bundle, update_manifest
from edgepure.bundle.manifest import Manifest
from edgepure.parity.levels import Level
from edgepure.parity.side_by_side import ImageSet
from edgepure.parity.verify import verify
from edgepure_export.compare.against_torch import verify_against_torch


def networks() -> dict[str, nn.Module]:
    return {"classifier": tiny_models.TinyClassifier(), "diffusion": tiny_models.TinyUNet(learned=True)}


def statuses(levels: tuple[Level, ...]) -> list[str]:
    return [level.status for level in levels]


def test_a_bundle_agrees_with_its_networks(tiny_bundle: Path) -> None:
    clean = ImageSet("clean", tiny_models.images(6, seed=4).numpy(), np.arange(6) % 5)
    found = verify_against_torch(tiny_bundle, **networks(), images=[clean], presets=["heterogeneous", "sde"], threads=1)
    assert found, str(found)
    assert found.reference == "PyTorch" and found.findings == ()
    assert statuses(found.levels) == ["passed"] * 4
    assert {c.subject for c in found.levels[0].checks} == {
        f"graph {g}" for g in ("classifier", "mask", "step", "step_learned", "unet")
    }
    assert {c.subject for c in found.levels[1].checks} >= {"rows heterogeneous", "rows sde", "rows sde (clean)"}
    decisions = [part.to_json() for part in found.levels[3].parts if part.to_json()["data"] == "clean"]
    assert [d["images"] for d in decisions] == [6, 6]
    for one in decisions:
        assert one["flips"] == one["beyond"] == 0 and one["redraw_flips"] is not None
        assert one["margin_shift"]["max_abs"] < 1e-4 < one["redraw_shift"]["max_abs"]
        assert 0.0 <= one["accuracy_reference"] == one["accuracy_deployed"] <= 1.0
        assert 0.4 < one["interval"][1] < 0.5  # Clopper-Pearson of 0 in 6
    json.dumps(found.to_json(), allow_nan=False)


def test_arrays_in_opencvs_order_of_colours(tiny_bundle: Path, tmp_path: Path) -> None:
    """``verify --bgr`` finds of images the other way round what it finds of these."""
    source = tmp_path / "networks.py"
    source.write_text(
        "import tiny_models\n"
        "def classifier(): return tiny_models.TinyClassifier()\n"
        "def unet(): return tiny_models.TinyUNet(learned=True)\n"
    )
    bgr, rgb = tmp_path / "bgr.npz", tmp_path / "rgb.npz"
    images = tiny_models.images(4, seed=6).numpy()
    np.savez(rgb, images=images, labels=np.arange(4))
    np.savez(bgr, images=images[:, ::-1], labels=np.arange(4))

    def decisions(data: Path, *more: str) -> dict[str, Any]:
        done = invoke(
            "verify", tiny_bundle, "--against", "torch", "--classifier", f"python:{source}:classifier", "--diffusion",
            f"python:{source}:unet", "--data", data, "--preset", "heterogeneous", "--json", *more,
        )  # fmt: skip
        found = json.loads(done.stdout)
        parts = [part for level in found["levels"] for part in level["comparisons"]]
        (one,) = [part for part in parts if part.get("data") == "clean" and "redraw_shift" in part]
        assert isinstance(one, dict)
        return one

    right = decisions(rgb)
    assert decisions(bgr, "--bgr") == right
    assert decisions(bgr)["redraw_shift"] != right["redraw_shift"]


def test_a_preset_without_vectors_is_compared_if_it_is_asked_for(tiny_bundle: Path) -> None:
    found = verify_against_torch(tiny_bundle, **networks(), presets=["long", "adaptive"], threads=1)
    assert found, str(found)
    assert found.unrecorded == ()
    rows = {part.to_json()["preset"]: len(part.to_json()["rows"]) for part in found.levels[1].parts}
    assert set(rows) == {"long", "adaptive"} and rows["long"] == 60


@pytest.mark.parametrize(
    ("graph", "weight", "by", "module"),
    [
        ("unet", "unet.conv1.weight", 0.05, "unet.conv1"),
        ("step", "unet.qkv.weight", 0.1, "unet.qkv"),
        ("classifier", "classifier.body.1.0.weight", 0.05, "classifier.body.1.0"),
    ],
)
def test_a_changed_layer_fails_level_1_and_is_named(
    graph: str, weight: str, by: float, module: str, own_bundle: Path
) -> None:
    perturb(own_bundle, graph, weight, by)
    found = verify_against_torch(own_bundle, **networks(), threads=1, pipelines=False)
    assert not found and not found.levels[0]
    named = {finding.graph: finding for finding in found.findings}
    assert graph in named
    for finding in named.values():
        assert finding.layer is not None and finding.layer.module == module, str(finding)
        assert finding.layer.operator in ("Conv", "MatMul", "Gemm")
        assert "other weights" in str(finding)
        before = [layer.relative_l2 for layer in finding.layers[: finding.first]]
        assert max(before, default=0.0) < 1e-5
    assert not verify(own_bundle, threads=1, pipelines=False)


def test_other_networks_are_no_reference(tiny_bundle: Path) -> None:
    other = tiny_models.TinyUNet(learned=True, seed=5)
    found = verify_against_torch(
        tiny_bundle, classifier=tiny_models.TinyClassifier(), diffusion=other, threads=1, presets=["uniform"]
    )
    assert statuses(found.levels)[:3] == ["failed"] * 3
    assert {finding.graph for finding in found.findings} == {"step", "step_learned", "unet"}
    assert all(finding.layer is not None for finding in found.findings)
    with raises_code("E-against-torch-fit"):
        verify_against_torch(tiny_bundle, classifier=nn.Linear(3, 5), diffusion=other, threads=1)


def test_a_batch_norm_that_was_folded_is_one_layer_with_its_convolution(own_bundle: Path) -> None:
    changed = tiny_models.TinyClassifier()
    with torch.no_grad():
        changed.stem[1].running_mean += 0.5  # type: ignore[union-attr, operator]
    found = verify_against_torch(
        own_bundle, classifier=changed, diffusion=networks()["diffusion"], threads=1, pipelines=False
    )
    layers = {finding.graph: finding.layer for finding in found.findings}
    assert {"classifier", "mask"} == set(layers)
    assert all(layer is not None and layer.module.endswith("stem.0") for layer in layers.values())


def test_sources_come_from_the_provenance_or_have_to_be_given(own_bundle: Path, tmp_path: Path) -> None:
    with raises_code("E-against-torch-sources"):
        verify_against_torch(own_bundle, threads=1)
    source = tmp_path / "source.py"
    source.write_text(
        "from tiny_models import TinyClassifier as classifier\nfrom tiny_models import TinyUNet\n"
        "def unet():\n    return TinyUNet(learned=True)\n"
    )
    text = {"classifier": f"python:{source}:classifier", "diffusion": f"python:{source}:unet"}

    def named(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"provenance": manifest.provenance.model_copy(update=text)})

    update_manifest(own_bundle, named)
    with raises_code("E-against-torch-sources"):  # a bundle may not choose what code runs here
        verify_against_torch(own_bundle, threads=1)
    assert verify_against_torch(own_bundle, **text, threads=1, pipelines=False)
    with raises_code("E-against-torch"):
        verify_against_torch(own_bundle, classifier=f"python:{tmp_path}/none.py:f", diffusion=text["diffusion"])


def test_the_manifest_decides_which_blocks_are_tapped(own_bundle: Path) -> None:
    def fewer(manifest: Manifest) -> Manifest:
        assert manifest.attention is not None
        return manifest.model_copy(update={"attention": manifest.attention.model_copy(update={"blocks": ("stem",)})})

    update_manifest(own_bundle, fewer)
    found = verify_against_torch(Bundle.open(own_bundle), **networks(), threads=1, pipelines=False)
    assert {c.quantity for c in found.levels[0].checks if not c} >= {"attention"}


def test_another_resize_mode_is_named_although_it_stands_between_two_modules(own_bundle: Path) -> None:
    path = own_bundle / "unet.onnx"
    model = onnx.load(path, load_external_data=False)
    (node,) = [n for n in model.graph.node if n.op_type == "Resize"]
    kept = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(onnx.helper.make_attribute("coordinate_transformation_mode", "align_corners"))
    node.attribute.append(onnx.helper.make_attribute("nearest_mode", "ceil"))
    path.write_bytes(model.SerializeToString())
    rehash(own_bundle)
    found = verify_against_torch(own_bundle, **networks(), threads=1, pipelines=False)
    (finding,) = found.findings
    assert finding.layer is not None and (finding.graph, finding.layer.operator) == ("unet", "Resize")
    assert "resize mode" in finding.causes[0]


def test_another_preprocessing_is_named(tiny_bundle: Path) -> None:
    class Brighter(nn.Module):
        """The classifier on images that are normalised with another mean."""

        def __init__(self) -> None:
            super().__init__()
            inner = tiny_models.TinyClassifier()
            self.stem, self.body, self.head = inner.stem, inner.body, inner.head

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            h = self.body(self.stem(4.0 * (image - 0.4)))
            logits: torch.Tensor = 3.0 * self.head(h.mean((2, 3)))
            return logits

    found = verify_against_torch(
        tiny_bundle, classifier=Brighter(), diffusion=networks()["diffusion"], threads=1, pipelines=False
    )
    finding = next(finding for finding in found.findings if finding.graph == "classifier")
    assert finding.layer is not None and finding.layer.operator in ("Sub", "Mul", "Add")
    assert any("preprocessing" in cause for cause in finding.causes)

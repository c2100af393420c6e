"""Classifiers by name and file: the right weights, the right preprocessing, taps that are found by themselves."""

from __future__ import annotations

from pathlib import Path

import model_folders
import network_goldens
import numpy as np
import pytest
import torch
from codes import raises_code
from safetensors.torch import save_file
from torch import Tensor

from edgepure_export.bundle.from_sources import choose_taps, preview_taps
from edgepure_export.graphs.attention import RULES, MaskModule
from edgepure_export.graphs.tap_families import Taps
from edgepure_export.sources.preprocessing import Preprocessed
from edgepure_export.sources.resolve import resolve_classifier
from edgepure_export.sources.scheme import ClassifierSource


def taps_of(source: ClassifierSource) -> Taps:
    taps = choose_taps(source, "auto", {})
    assert taps is not None
    return taps


def image(size: int, count: int = 2) -> Tensor:
    return torch.rand((count, 3, size, size), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize(
    ("text", "family", "maps"),
    [
        ("timm:test_resnet?weights=random", "ResNet", [40, 20, 10, 5]),
        ("timm:test_convnext?weights=random&num_classes=7", "timm ConvNeXt", [40, 20, 10, 5]),
        ("timm:test_vit?weights=random", "timm ViT", [10, 10, 10, 10]),
        ("torchvision:resnet18?weights=random&num_classes=5&size=64", "ResNet", [16, 8, 4, 2]),
    ],
)
def test_libraries_by_name(text: str, family: str, maps: list[int]) -> None:
    source = resolve_classifier(text, image_size=(32, 32))
    assert source.untrained
    assert source.origin == text
    taps = taps_of(source)
    assert taps.family == family
    assert all(name.startswith("network.") for name in taps.names)
    assert [shape[1:] for shape in preview_taps(source, taps, (3, 32, 32)).values()] == [(n, n) for n in maps]
    logits = source.model(image(32))
    assert logits.shape == (2, 7 if "=7" in text else 5 if "=5" in text else 1000)


@pytest.mark.parametrize(
    ("family", "found"),
    [
        ("resnet", "transformers ResNet or ConvNeXt"),
        ("convnext", "transformers ResNet or ConvNeXt"),
        ("vit", "transformers ViT"),
    ],
)
def test_transformers_folders(family: str, found: str, tmp_path: Path) -> None:
    """Against the library itself: its processor's numbers, its model."""
    from transformers import AutoModelForImageClassification

    folder = model_folders.transformers_folder(tmp_path, family)
    source = resolve_classifier(f"transformers:{folder}", image_size=(16, 16))
    assert source.classes == ("cat", "dog", "newt")
    assert not source.untrained
    assert isinstance(source.model, Preprocessed)
    assert taps_of(source).family == found
    library = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        wanted = library(source.model.preprocess(image(16))).logits
        torch.testing.assert_close(source.model(image(16)), wanted, atol=1e-5, rtol=0)


def test_weights_from_files_of_both_kinds(tmp_path: Path) -> None:
    first = resolve_classifier("timm:test_resnet?weights=random&num_classes=4")
    assert first.network is not None
    state = first.network.state_dict()
    save_file(state, tmp_path / "net.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "net.pt")
    with torch.no_grad():
        wanted = first.model(image(160))
        for name in ("net.safetensors", "net.pt"):
            found = resolve_classifier("timm:test_resnet?num_classes=4", tmp_path / name)
            torch.testing.assert_close(found.model(image(160)), wanted)
            assert name in found.origin and "sha256" in found.origin
            assert not found.untrained
    with raises_code("E-checkpoint-keys"):
        resolve_classifier("timm:test_resnet?num_classes=5", tmp_path / "net.pt")
    with raises_code("E-source-weights-twice"):
        resolve_classifier("timm:test_resnet?weights=random", tmp_path / "net.pt")


def test_random_weights_repeat() -> None:
    one, other = (resolve_classifier("robustbench-wrn:DM-WRN-10-1?weights=random") for _ in range(2))
    with torch.no_grad():
        torch.testing.assert_close(one.model(image(32)), other.model(image(32)), atol=0, rtol=0)
        assert float(one.model(image(32)).std()) > 0


def test_variant_official_shows_the_image_as_it_is() -> None:
    """The authors' ImageNet code gives its classifier neither the resized nor the normalised image."""
    own = resolve_classifier("timm:test_resnet?weights=random", image_size=(48, 48))
    official = resolve_classifier("timm:test_resnet?weights=random&variant=official", image_size=(48, 48))
    assert own.network is not None and official.network is not None
    with torch.no_grad():
        x = image(48)
        torch.testing.assert_close(official.model(x), own.network(x))
        assert not torch.allclose(official.model(x), own.model(x), atol=1e-2)


def test_blocks_named_as_in_the_library() -> None:
    source = resolve_classifier("timm:test_resnet?weights=random")
    taps = choose_taps(source, ("layer2", "network.layer4.0"), {})
    assert taps is not None and taps.names == ("network.layer2", "network.layer4.0")
    with raises_code("E-taps-name"):
        choose_taps(source, ("layer9",), {})


def test_a_cifar_network_on_larger_images() -> None:
    source = resolve_classifier("robustbench-wrn:WRN-10-1?weights=random", image_size=(64, 64))
    assert "32 x 32" in source.preprocessing
    assert source.model(image(64)).shape == (2, 10)
    assert taps_of(source).names[-1] == "network.relu"


@pytest.mark.goldens
@pytest.mark.parametrize("name", network_goldens.names("G10_robustbench_wrn", "wrn_*.safetensors"))
def test_golden_wideresnets(name: str, tmp_path: Path) -> None:
    """Logits, and the authors' mask of the network, with their own input and the blocks found by themselves."""
    golden = network_goldens.load("G10_robustbench_wrn", name)
    source = resolve_classifier(f"robustbench-wrn:{golden.weights}")
    x = golden.tensor("x")
    mask = MaskModule(source.model, taps_of(source), tuple(x.shape[2:]), input="official")
    full = torch.ones(len(x))
    tau = float(golden.arrays["dhni_tau"])
    areas = {k: float(k.removeprefix("dhni_mask_top")) / 100 for k in golden.arrays if k.startswith("dhni_mask_top")}
    assert areas
    inputs = {"image": x, "threshold": full * tau, "area": full * 0, "rule": full * RULES["minmax"]}
    graph = model_folders.ExportedGraph(mask, inputs, ["logits", "mask", "attention"], tmp_path)
    logits, by_tau, attention = graph(*inputs.values())
    assert np.abs(logits - golden.arrays["logits"]).max() <= network_goldens.TOLERANCE
    fused = golden.arrays["dhni_fused"]
    assert np.abs(attention[:, 0] - fused.reshape(attention[:, 0].shape)).max() <= 2e-5
    assert np.array_equal(by_tau, golden.arrays["dhni_mask_tau"].reshape(by_tau.shape))
    for key, area in areas.items():
        _, by_area, _ = graph(x, full * 0, full * area, full * RULES["minmax"])
        assert np.array_equal(by_area, golden.arrays[key].reshape(by_area.shape)), key
    seen = golden.arrays["logits_on_dhni_mask_input"]
    with torch.no_grad():
        assert network_goldens.difference(source.model(mask.official_input(x)), seen) <= 1e-4


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("timm:resnet49", "E-source-model-unknown"),
        ("torchvision:resnet49", "E-source-model-unknown"),
        ("torchvision:resnet50?weights=IMAGENET1K_V7", "E-source-weights-unknown"),
        ("timm:resnet18?num_classes=ten", "E-source-option-number"),
        ("timm:resnet18?resize=stretch", "E-source-option-choice"),
        ("timm:test_resnet?weights=random&variant=official&size=64", "E-source-option-official"),
        ("torchvision:resnet18?resize=none&size=64", "E-source-option-size"),
        ("robustbench-wrn:WRN?weights=random", "E-source-architecture"),
        ("robustbench-wrn:x.pt?mean=a,b,c", "E-source-option-numbers"),
        ("python:a.py:make?weights=random", "E-source-random"),
        ("keras:resnet50", "E-source-scheme"),
    ],
)
def test_what_a_source_text_cannot_say(text: str, code: str) -> None:
    with raises_code(code):
        resolve_classifier(text)


def test_a_folder_that_is_no_image_classifier(tmp_path: Path) -> None:
    folder = model_folders.transformers_folder(tmp_path, "vit")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with raises_code("E-source-config"):
        resolve_classifier(f"transformers:{folder}")
    (folder / "config.json").write_text("<html>")
    with raises_code("E-source-config-json"):
        resolve_classifier(f"transformers:{folder}")
    (folder / "preprocessor_config.json").unlink()
    with raises_code("E-source-config-json"):
        resolve_classifier(f"transformers:{folder}")

"""The maps that are tapped, beside an independent reading of each library's own spatial maps; square and not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure.engines.open import open_graph
from edgepure_export.graphs.attention import MaskModule
from edgepure_export.graphs.taps import find_taps
from edgepure_export.graphs.to_onnx import export_graph
from edgepure_export.graphs.window import Window
from edgepure_export.sources.preprocessing import Preprocessed, Transform

SMALL = {"embed_dim": 32, "num_classes": 4}
#: timm's name, how it is made small, and the size of its images.
TIMM: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "ResNet": ("resnet18", {"num_classes": 4}, (64, 96)),
    "ConvNeXt": ("test_convnext", {"num_classes": 4}, (64, 96)),
    "ViT, 2 x 8 patches": (
        "vit_tiny_patch16_224",
        {"img_size": (32, 128), "depth": 4, **SMALL, "num_heads": 2},
        (32, 128),
    ),
    "ViT with registers": (
        "vit_tiny_patch16_224",
        {"img_size": (48, 32), "depth": 2, **SMALL, "num_heads": 2, "reg_tokens": 4},
        (48, 32),
    ),
    "ViT without a class token": (
        "vit_tiny_patch16_224",
        {"img_size": (32, 64), "depth": 2, **SMALL, "num_heads": 2, "class_token": False, "global_pool": "avg"},
        (32, 64),
    ),
    "DeiT": ("deit_tiny_distilled_patch16_224", {"img_size": (32, 64), "depth": 2, **SMALL, "num_heads": 2}, (32, 64)),
    "BEiT": ("beit_base_patch16_224", {"img_size": (32, 64), "depth": 2, **SMALL, "num_heads": 2}, (32, 64)),
    "EVA": ("eva02_tiny_patch14_224", {"img_size": (28, 56), "depth": 2, **SMALL, "num_heads": 2}, (28, 56)),
    "Swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": (64, 96), "window_size": 4, "depths": (1, 1), "num_heads": (1, 2), **SMALL},
        (64, 96),
    ),
    "Hiera": ("hiera_tiny_224", {"img_size": (64, 64), **SMALL, "num_heads": 1, "stages": (1, 1, 2, 1)}, (64, 64)),
    "Hiera, wide": (
        "hiera_tiny_224",
        {"img_size": (64, 128), **SMALL, "num_heads": 1, "stages": (1, 1, 2, 1)},
        (64, 128),
    ),
    "CaiT": ("cait_xxs24_224", {"img_size": (32, 64), "depth": 2, **SMALL, "num_heads": 2}, (32, 64)),
    "XCiT": ("xcit_nano_12_p16_224", {"img_size": (64, 64), "depth": 2, **SMALL, "num_heads": 2}, (64, 64)),
    "ConViT": ("convit_tiny", {"img_size": 64, "depth": 3, "local_up_to_layer": 2, "num_classes": 4}, (64, 64)),
    "TNT": ("tnt_s_legacy_patch16_224", {"img_size": 64, "depth": 2, "num_classes": 4}, (64, 64)),
    "Mixer": ("mixer_s32_224", {"img_size": 64, "num_classes": 4}, (64, 64)),
    "MobileNet": ("mobilenetv3_small_050", {"num_classes": 4}, (64, 96)),
}


def tapped(network: nn.Module, image: Tensor) -> list[Tensor]:
    taps = find_taps(network)
    mask = MaskModule(network, taps, (int(image.shape[2]), int(image.shape[3])))
    try:
        with torch.no_grad():
            network(image)
            return mask.activations()
    finally:
        mask.close()


@pytest.mark.parametrize("case", TIMM)
def test_timm(case: str) -> None:
    """``forward_intermediates`` is the library's own reading, of another image than the one that found the layout."""
    timm = pytest.importorskip("timm")
    name, changes, size = TIMM[case]
    torch.manual_seed(0)
    network = timm.create_model(name, **changes).eval()
    image = torch.rand((2, 3, *size), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        maps = network.forward_intermediates(image, output_fmt="NCHW", intermediates_only=True, norm=False)
    for found in tapped(network, image):
        assert any(m.shape == found.shape and torch.allclose(m, found, atol=1e-4) for m in maps)


def test_blocks_that_are_none_of_the_librarys_maps_are_not_chosen() -> None:
    with raises_code("E-taps-family"):
        find_taps(Scrambled().eval())


class Scrambled(nn.Module):
    """A network in timm's manner whose blocks keep their tokens in an order of their own."""

    num_prefix_tokens = 0

    def __init__(self) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 32, 32)}
        self.patch_embed = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList([nn.Identity(), nn.Identity()])
        self.head = nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.patch_embed(image).flatten(2).transpose(1, 2).flip(1)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(tokens.mean(1))
        return logits

    def forward_intermediates(self, image: Tensor, **options: Any) -> list[Tensor]:
        return [self.patch_embed(image)] * 2


def transformers_vit(size: tuple[int, int]) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=list(size),
        patch_size=16,
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=4,
    )
    network: nn.Module = transformers.ViTForImageClassification(config)
    return network


@pytest.mark.parametrize(("size", "grid"), [((32, 128), (2, 8)), ((64, 64), (4, 4)), ((48, 16), (3, 1))])
def test_transformers_vits(size: tuple[int, int], grid: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = transformers_vit(size).eval()
    image = torch.rand(2, 3, *size)

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.network(x).logits
            return logits

    with torch.no_grad():
        hidden = network(image, output_hidden_states=True).hidden_states[1:]
    for found, wanted in zip(tapped(Logits(), image), hidden, strict=True):
        torch.testing.assert_close(found, wanted[:, 1:].transpose(1, 2).unflatten(2, grid))


def torchvision_swin() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    network: nn.Module = models.SwinTransformer([4, 4], 24, [1, 1, 1, 1], [2, 2, 2, 2], [7, 7], num_classes=4)
    return network


@pytest.mark.parametrize("make", [torchvision_swin])
def test_channels_last_behind_a_resize_of_another_shape(make: Callable[[], nn.Module]) -> None:
    """7 x 7 x 192 behind images of 32 x 48: no two numbers say which is which, the class does."""
    torch.manual_seed(0)
    classifier = Preprocessed(make(), Transform(size=(56, 56)), (32, 48)).eval()
    image, seen = torch.rand(2, 3, 32, 48), {}
    modules = dict(classifier.named_modules())
    names = find_taps(classifier).names
    hooks = [modules[n].register_forward_hook(lambda m, a, out, n=n: seen.__setitem__(n, out)) for n in names]
    found = tapped(classifier, image)
    for hook in hooks:
        hook.remove()
    for name, one in zip(names, found, strict=True):
        torch.testing.assert_close(one, seen[name].permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [(32, 32), (32, 48), (48, 32)])
def test_a_network_that_sees_the_middle_alone(size: tuple[int, int], tmp_path: Path) -> None:
    """Behind a centre crop the maps lie in the middle of the image: as the map of a network that finds bright spots."""

    class Bright(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spots = nn.AvgPool2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.spots(x).mean((2, 3))

    classifier = Preprocessed(Bright(), Transform(size=(28, 28), resized=32), size).eval()
    top, left = (size[0] - 28) // 2, (size[1] - 28) // 2
    image, wanted = torch.zeros(4, 3, *size), []
    for index, (row, column) in enumerate(((1, 1), (1, 4), (4, 1), (3, 3))):
        place = (slice(top + 4 * row, top + 4 * row + 8), slice(left + 4 * column, left + 4 * column + 8))
        image[index, :, place[0], place[1]] = 1.0
        wanted.append((place[0].start + 3.5, place[1].start + 3.5))
    mask = MaskModule(classifier, ["network.spots@nchw"], size)
    half, zero = torch.full((4,), 0.7), torch.zeros(4)
    inputs = {"image": image, "threshold": half, "area": zero, "rule": zero}
    with torch.no_grad():
        _, found, attention = mask(*inputs.values())
    for one, (row, column) in zip(found[:, 0], wanted, strict=True):
        rows, columns = torch.nonzero(one, as_tuple=True)
        assert float(rows.float().mean()) == pytest.approx(row, abs=0.01)
        assert float(columns.float().mean()) == pytest.approx(column, abs=0.01)
    outside = torch.ones(size, dtype=torch.bool)
    outside[top : top + 28, left : left + 28] = False
    assert not attention[:, 0, outside].any()

    path = tmp_path / "mask.onnx"
    ir.save(export_graph("mask", mask, inputs, ["logits", "mask", "attention"]).model, path)
    with open_graph(path, threads=1) as engine:
        there = engine.run({name: value.numpy() for name, value in inputs.items()})
    assert (there["mask"] == found.numpy()).all()


def test_a_network_that_sees_more_than_the_image() -> None:
    """Black bars beside a small image: what lies in them is cut off again."""
    classifier = Preprocessed(nn.Identity(), Transform(size=(16, 16), resized=8), (8, 8))
    assert classifier.window == Window((-4.0, 12.0), (-4.0, 12.0))
    values = torch.zeros(1, 1, 4, 4)
    values[0, 0, 1, 2] = 1.0  # rows 0 to 4, columns 4 to 8 of the image
    placed = classifier.window.place(values, (8, 8))[0, 0]
    assert placed[:4, 4:].min() > placed[4:, :4].max()

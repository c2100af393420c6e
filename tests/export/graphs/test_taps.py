"""The blocks that the attention mask taps, for the classifier families that people use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure_export.graphs.attention import MaskModule
from edgepure_export.graphs.layouts import token_map_to_grid
from edgepure_export.graphs.tap_families import Taps
from edgepure_export.graphs.taps import default_taps, find_taps, named_taps
from edgepure_export.networks.wideresnet import DMWideResNet, WideResNet, WideResNetConfig

#: Side of the images that the small classifiers below take.
SIZE = 64


def timm_model(name: str, **kwargs: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        timm = pytest.importorskip("timm")
        return timm.create_model(name, pretrained=False, **kwargs)  # type: ignore[no-any-return]

    return make


def torchvision_model(name: str, **kwargs: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        models = pytest.importorskip("torchvision.models")
        return getattr(models, name)(**kwargs)  # type: ignore[no-any-return]

    return make


def torchvision_vit() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    vit: nn.Module = models.VisionTransformer(SIZE, 16, 6, 2, 16, 16)
    return vit


TRANSFORMERS = {
    "ResNet": {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 2, 1, 1]},
    "ConvNext": {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 2, 1]},
    "ConvNextV2": {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "ViT": {"hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 16},
    "DeiT": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16},
    "Dinov2": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 16},
    "Dinov2WithRegisters": {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "patch_size": 16},
}


def transformers_model(family: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        transformers = pytest.importorskip("transformers")
        settings = dict(TRANSFORMERS[family])
        if "num_attention_heads" in settings:
            settings["image_size"] = SIZE
        config = getattr(transformers, f"{family}Config")(**settings)
        return getattr(transformers, f"{family}ForImageClassification")(config)  # type: ignore[no-any-return]

    return make


#: Classifier, its taps, tokens before the patches (None: maps).
CASES: dict[str, tuple[Callable[[], nn.Module], list[str], int | None]] = {
    "torchvision resnet50": (
        torchvision_model("resnet50"),
        ["layer1.2", "layer2.3", "layer3.5", "layer4.2"],
        None,
    ),
    "timm resnet18": (timm_model("resnet18"), ["layer1.1", "layer2.1", "layer3.1", "layer4.1"], None),
    "torchvision convnext": (
        torchvision_model("convnext_tiny"),
        ["features.1", "features.3", "features.5", "features.7"],
        None,
    ),
    "timm convnext": (timm_model("convnext_atto"), ["stages.0", "stages.1", "stages.2", "stages.3"], None),
    "torchvision vit": (
        torchvision_vit,
        [f"encoder.layers.encoder_layer_{i}" for i in (0, 2, 3, 5)],
        1,
    ),
    "timm vit": (timm_model("vit_tiny_patch16_224", img_size=SIZE), [f"blocks.{i}" for i in (2, 5, 8, 11)], 1),
    "timm deit distilled": (
        timm_model("deit_tiny_distilled_patch16_224", img_size=SIZE),
        [f"blocks.{i}" for i in (2, 5, 8, 11)],
        2,
    ),
    "transformers ResNet": (
        transformers_model("ResNet"),
        [f"resnet.encoder.stages.{i}" for i in range(4)],
        None,
    ),
    "transformers ConvNext": (
        transformers_model("ConvNext"),
        [f"convnext.encoder.stages.{i}" for i in range(4)],
        None,
    ),
    "transformers ConvNextV2": (
        transformers_model("ConvNextV2"),
        [f"convnextv2.encoder.stages.{i}" for i in range(4)],
        None,
    ),
    "transformers ViT": (transformers_model("ViT"), [f"vit.layers.{i}" for i in (0, 1, 2, 4)], 1),
    "transformers DeiT": (transformers_model("DeiT"), [f"deit.layers.{i}" for i in range(4)], 2),
    "transformers Dinov2": (
        transformers_model("Dinov2"),
        [f"dinov2.encoder.layer.{i}" for i in range(4)],
        1,
    ),
    "transformers Dinov2WithRegisters": (
        transformers_model("Dinov2WithRegisters"),
        [f"dinov2_with_registers.encoder.layer.{i}" for i in range(4)],
        5,
    ),
}


def torchvision_swin() -> nn.Module:
    models = pytest.importorskip("torchvision.models")
    swin: nn.Module = models.SwinTransformer([4, 4], 12, [1, 1], [1, 2], [4, 4], num_classes=5)
    return swin


def timm_swin() -> nn.Module:
    sizes = {"window_size": 4, "depths": (1, 1), "num_heads": (1, 2), "embed_dim": 12}
    return timm_model("swin_tiny_patch4_window7_224", img_size=SIZE, num_classes=5, **sizes)()


#: Classifiers with other layouts than [B, C, h, w]: their taps, and channels and side of each map.
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], list[str], list[tuple[int, int]]]] = {
    "torchvision swin": (torchvision_swin, ["features.1", "features.3"], [(12, 16), (24, 8)]),
    "timm swin": (timm_swin, ["layers.0", "layers.1"], [(12, 16), (24, 8)]),
    "timm mixer": (
        timm_model("mixer_s32_224", img_size=SIZE),
        [f"blocks.{i}" for i in (4, 5, 6, 7)],
        [(512, 2)] * 4,
    ),
    "timm mobilenet": (
        timm_model("mobilenetv3_small_050"),
        [f"blocks.{i}" for i in (0, 1, 3, 5)],
        [(8, 16), (16, 8), (24, 4), (288, 2)],
    ),
}


def tapped_maps(module: nn.Module, taps: Taps, image: Tensor) -> list[Tensor]:
    mask = MaskModule(module.eval(), taps, (int(image.shape[2]), int(image.shape[3])))
    try:
        with torch.no_grad():
            module(image)
        return mask.activations()
    finally:
        mask.close()


@pytest.mark.parametrize("case", CASES)
def test_known_families(case: str) -> None:
    make, names, prefix_tokens = CASES[case]
    module = make()
    taps = find_taps(module)
    # Older transformers keep the blocks of ViT and DeiT one level deeper.
    assert [n.replace("encoder.layer.", "layers.") for n in taps.names] == [
        n.replace("encoder.layer.", "layers.") for n in names
    ]
    assert taps.prefix_tokens == prefix_tokens and taps.family
    maps = tapped_maps(module, taps, torch.rand(2, 3, SIZE, SIZE))
    assert all(m.ndim == 4 and m.shape[0] == 2 for m in maps)
    sides = [m.shape[2] for m in maps]
    assert sides == [SIZE // s for s in ((4, 8, 16, 32) if prefix_tokens is None else (16,) * 4)]


@pytest.mark.parametrize("case", LAYOUTS)
def test_stages_of_every_layout_become_maps(case: str) -> None:
    make, names, shapes = LAYOUTS[case]
    torch.manual_seed(0)
    module = make().eval()
    taps = find_taps(module)
    assert list(taps.names) == names
    mask = MaskModule(module, taps, (SIZE, SIZE))
    with torch.no_grad():
        module(torch.rand(2, 3, SIZE, SIZE))
    assert [tuple(m.shape) for m in mask.activations()] == [(2, c, side, side) for c, side in shapes]


class ChannelsLast(nn.Module):
    """Gives [B, h, w, C], as the blocks of a Swin do."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, channels, 4, 4), nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(self.conv(x).permute(0, 2, 3, 1))
        return out


def test_a_block_of_an_unknown_network_with_its_channels_last() -> None:
    """Height and width are the input's, divided by the same number; where both ends fit, nobody knows."""
    wide = nn.Sequential(ChannelsLast(5))
    assert tapped_maps(wide, named_taps(wide, ["0"]), torch.rand(1, 3, 32, 64))[0].shape == (1, 5, 8, 16)
    cube = nn.Sequential(ChannelsLast(8))
    with raises_code("E-layout-channels"):
        tapped_maps(cube, named_taps(cube, ["0"]), torch.rand(1, 3, 32, 32))
    image = torch.rand(1, 3, 32, 32)
    said = tapped_maps(cube, named_taps(cube, ["0@nhwc"]), image)[0]
    torch.testing.assert_close(said, cube(image).permute(0, 3, 1, 2))
    convolution = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.ReLU()))
    assert torch.equal(tapped_maps(convolution, named_taps(convolution, ["0"]), image)[0], convolution(image))


class Patches(nn.Module):
    """Tokens of patches, after some others."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.conv, self.last, self.before = nn.Conv2d(3, 6, 8, 8), nn.Identity(), before

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        others = torch.zeros(len(x), self.before, 6)
        out: Tensor = self.last(torch.cat([others, tokens], 1))
        return out


@pytest.mark.parametrize("before", [0, 1, 9])
def test_tokens_of_an_unknown_network_lie_as_its_patch_embedding_has_them(before: int) -> None:
    """16 patches are 2 x 8 here, and 4 x 4 nowhere."""
    module, image = Patches(before), torch.rand(2, 3, 16, 64)
    found = tapped_maps(module, named_taps(module, ["last"]), image)[0]
    torch.testing.assert_close(found, module.conv(image))
    said = tapped_maps(module, named_taps(module, [f"last@tokens:{before}:2x8"]), image)[0]
    torch.testing.assert_close(said, module.conv(image))


@pytest.mark.parametrize("text", ["0@chw", "0@tokens", "0@tokens:1:7", "0@"])
def test_a_layout_that_is_none(text: str) -> None:
    if text == "0@":
        assert named_taps(unknown(), [text]).names == ("0",)
        return
    with raises_code("E-layout-text"):
        named_taps(unknown(), [text])


def test_wideresnets() -> None:
    config = WideResNetConfig(16, 1)
    with torch.device("meta"):
        assert default_taps(WideResNet(config)) == [*(f"block{i}.layer.1.relu2" for i in (1, 2, 3)), "relu"]
        assert default_taps(DMWideResNet(config)) == [*(f"layer.{i}.block.1.relu_1" for i in range(3)), "relu"]


def test_classifier_inside_a_wrapper() -> None:
    class Normalised(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.model((x - 0.5) / 0.25)
            return out

    wrapped = Normalised(torchvision_model("resnet18")())
    assert default_taps(wrapped) == [f"model.layer{i}.1" for i in (1, 2, 3, 4)]
    tapped_maps(wrapped, find_taps(wrapped), torch.rand(1, 3, SIZE, SIZE))


def unknown() -> nn.Module:
    return nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Flatten(), nn.Linear(16, 2)))


def test_unknown_family_lists_what_could_be_named() -> None:
    with raises_code("E-taps-family") as caught:
        default_taps(unknown())
    assert str(caught.value).endswith("it has 0, 1")
    with raises_code("E-taps-family"):
        default_taps(nn.Linear(3, 2))


def test_blocks_named_by_hand() -> None:
    assert named_taps(unknown(), ["0"]).names == ("0",)
    with raises_code("E-taps-name") as caught:
        named_taps(unknown(), ["0.7"])
    assert str(caught.value).endswith("it has 0, 0.0, 0.1")
    with raises_code("E-taps-empty"):
        named_taps(unknown(), [])
    vit = torchvision_vit()
    assert named_taps(vit, ["encoder.layers.encoder_layer_1"]).prefix_tokens == 1  # of its family
    assert named_taps(vit, ["encoder.layers.encoder_layer_1"], prefix_tokens=3).prefix_tokens == 3


def test_tokens_become_a_grid_row_by_row() -> None:
    grid = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(2, 4, 1, 1)
    tokens = torch.cat([torch.full((2, 2, 4), -1.0), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(token_map_to_grid(tokens, prefix_tokens=2, grid_hw=(2, 3)), grid)
    ten = torch.randn(1, 10, 4)
    for bad, prefix, code in (
        (ten, 0, "E-layout-grid"),
        (ten[:, :1], 1, "E-layout-grid"),
        (grid, 1, "E-layout-tokens"),
    ):
        with raises_code(code):
            token_map_to_grid(bad, prefix, (3, 3))

"""The blocks that the attention mask taps, for the classifier families that people use."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgepure.errors import ExportError
from edgepure_export.graphs.attention import MaskModule
from edgepure_export.graphs.taps import Taps, channels_first, default_taps, find_taps, named_taps, token_map_to_grid
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
        torchvision_model("resnet50"), ["layer1.2", "layer2.3", "layer3.5", "layer4.2"], None,
    ),
    "timm resnet18": (timm_model("resnet18"), ["layer1.1", "layer2.1", "layer3.1", "layer4.1"], None),
    "torchvision convnext": (
        torchvision_model("convnext_tiny"), ["features.1", "features.3", "features.5", "features.7"], None,
    ),
    "timm convnext": (timm_model("convnext_atto"), ["stages.0", "stages.1", "stages.2", "stages.3"], None),
    "torchvision vit": (
        torchvision_vit, [f"encoder.layers.encoder_layer_{i}" for i in (0, 2, 3, 5)], 1,
    ),
    "timm vit": (timm_model("vit_tiny_patch16_224", img_size=SIZE), [f"blocks.{i}" for i in (2, 5, 8, 11)], 1),
    "timm deit distilled": (
        timm_model("deit_tiny_distilled_patch16_224", img_size=SIZE), [f"blocks.{i}" for i in (2, 5, 8, 11)], 2,
    ),
    "transformers ResNet": (
        transformers_model("ResNet"), [f"resnet.encoder.stages.{i}" for i in range(4)], None,
    ),
    "transformers ConvNext": (
        transformers_model("ConvNext"), [f"convnext.encoder.stages.{i}" for i in range(4)], None,
    ),
    "transformers ConvNextV2": (
        transformers_model("ConvNextV2"), [f"convnextv2.encoder.stages.{i}" for i in range(4)], None,
    ),
    "transformers ViT": (transformers_model("ViT"), [f"vit.layers.{i}" for i in (0, 1, 2, 4)], 1),
    "transformers DeiT": (transformers_model("DeiT"), [f"deit.layers.{i}" for i in range(4)], 2),
    "transformers Dinov2": (
        transformers_model("Dinov2"), [f"dinov2.encoder.layer.{i}" for i in range(4)], 1,
    ),
    "transformers Dinov2WithRegisters": (
        transformers_model("Dinov2WithRegisters"), [f"dinov2_with_registers.encoder.layer.{i}" for i in range(4)], 5,
    ),
}  # fmt: skip


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
        timm_model("mixer_s32_224", img_size=SIZE), [f"blocks.{i}" for i in (4, 5, 6, 7)], [(512, 2)] * 4,
    ),
    "timm mobilenet": (
        timm_model("mobilenetv3_small_050"), [f"blocks.{i}" for i in (0, 1, 3, 5)],
        [(8, 16), (16, 8), (24, 4), (288, 2)],
    ),
}  # fmt: skip


def tapped_maps(module: nn.Module, taps: Taps, image: Tensor) -> list[Tensor]:
    seen: dict[str, Tensor] = {}
    for name in taps.names:
        module.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.__setitem__(name, out))
    with torch.no_grad():
        module.eval()(image)
    return [taps.to_map(seen[name]) for name in taps.names]


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


def test_channels_first_goes_by_the_shape_of_the_image() -> None:
    wide = torch.randn(1, 4, 8, 5)  # [B, h, w, C] of an image twice as wide as high
    assert torch.equal(channels_first(wide, (32, 64)), wide.permute(0, 3, 1, 2))
    assert channels_first(wide.permute(0, 3, 1, 2), (32, 64)).shape == (1, 5, 4, 8)
    square = torch.randn(1, 7, 7, 7)  # nothing tells: as PyTorch has it
    assert torch.equal(channels_first(square, (56, 56)), square)
    odd = torch.randn(1, 6, 5, 6)  # a map of 17 x 23 pixels, rounded up
    assert channels_first(odd, (17, 23)) is odd


def test_tokens_of_an_unknown_family() -> None:
    taps = Taps(("block",), None, "named by hand")
    assert taps.to_map(torch.randn(2, 9, 4)).shape == (2, 4, 3, 3)
    assert taps.to_map(torch.randn(2, 10, 4)).shape == (2, 10, 4)  # refused by whoever needs a map


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
    with pytest.raises(ExportError, match=r"no known blocks in a Sequential: name the modules .* it has 0, 1$"):
        default_taps(unknown())
    with pytest.raises(ExportError, match="it has no blocks"):
        default_taps(nn.Linear(3, 2))


def test_blocks_named_by_hand() -> None:
    assert named_taps(unknown(), ["0"]) == Taps(("0",), None, "named by hand")
    with pytest.raises(ExportError, match=r"no module named '0\.7'; it has 0, 0\.0, 0\.1"):
        named_taps(unknown(), ["0.7"])
    with pytest.raises(ExportError, match="no blocks named"):
        named_taps(unknown(), [])
    vit = torchvision_vit()
    assert named_taps(vit, ["encoder.layers.encoder_layer_1"]).prefix_tokens == 1  # of its family
    assert named_taps(vit, ["encoder.layers.encoder_layer_1"], prefix_tokens=3).prefix_tokens == 3


def test_tokens_become_a_grid_row_by_row() -> None:
    grid = torch.arange(6.0).reshape(1, 1, 2, 3).repeat(2, 4, 1, 1)
    tokens = torch.cat([torch.full((2, 2, 4), -1.0), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(token_map_to_grid(tokens, prefix_tokens=2, grid_hw=(2, 3)), grid)
    square = torch.randn(1, 10, 4)
    assert token_map_to_grid(square).shape == (1, 4, 3, 3)
    for bad, prefix, said in (
        (square, 0, "10 patch tokens"), (square[:, :1], 1, "0 patch tokens"), (grid, 1, "expected tokens"),
    ):  # fmt: skip
        with pytest.raises(ExportError, match=said):
            token_map_to_grid(bad, prefix)


def test_maps_pass_unchanged() -> None:
    activation = torch.randn(1, 4, 3, 3)
    assert Taps(("a",), None, "").to_map(activation) is activation
    assert Taps(("a",), 1, "").to_map(activation) is activation

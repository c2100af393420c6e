"""The families of classifiers that are known: which of their blocks are tapped, and how the outputs become maps.

The authors' choice for ResNet-50 is the output of the last block of each of the four stages, and for the WideResNets
the activation before the last convolution of each group and the final one. Other families get the matching places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..networks.wideresnet import DMWideResNet, WideResNet
from .layouts import Layout, Maps, Tokens, told_by_the_pass

#: Taps in a transformer, which has no stages: after a quarter, a half, three quarters and all of its blocks.
_TRANSFORMER_TAPS = 4
#: Where timm's networks have the convolution that cuts an image into patches.
EMBEDDINGS = ("patch_embed.proj", "patch_embed", "stem.proj")


@dataclass(frozen=True)
class Taps:
    """Where to tap a classifier.

    Attributes:
        names: modules whose *output* is tapped, in the order of the forward pass.
        layouts: how each output becomes a map [B, C, h, w].
        family: what the classifier was recognised as.
        parts: of outputs that are tuples, which element; None: the first, or the output itself.
    """

    names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    family: str
    parts: tuple[int | None, ...] = ()

    @property
    def prefix_tokens(self) -> int | None:
        """Tokens before the patches (class token, registers); None if the outputs are no tokens."""
        return next((layout.prefix for layout in self.layouts if isinstance(layout, Tokens)), None)

    def part(self, number: int, output: Any) -> Any:
        """The element of a tapped output that has the layout."""
        index = self.parts[number] if self.parts else None
        if isinstance(output, (tuple, list)) and output:
            return output[index or 0]
        return output


def _wideresnet(module: nn.Module) -> Taps | None:
    if isinstance(module, WideResNet):
        groups = [module.block1, module.block2, module.block3]
        return _maps([f"block{i + 1}.layer.{len(g.layer) - 1}.relu2" for i, g in enumerate(groups)] + ["relu"])
    if isinstance(module, DMWideResNet):
        sizes = [len(g.block) for g in module.layer]  # type: ignore[arg-type]
        return _maps([f"layer.{i}.block.{n - 1}.relu_1" for i, n in enumerate(sizes)] + ["relu"])
    return None


def _resnet(module: nn.Module) -> Taps | None:
    """torchvision and timm (ResNet, ResNeXt, wide ResNet, and what else has layer1 .. layer4 as sequences)."""
    stages = [getattr(module, f"layer{i}", None) for i in range(1, 5)]
    if not all(isinstance(s, nn.Sequential) and len(s) for s in stages):
        return None
    return _maps([f"layer{i + 1}.{len(s) - 1}" for i, s in enumerate(stages)])  # type: ignore[arg-type]


def _convnext_torchvision(module: nn.Module) -> Taps | None:
    features = getattr(module, "features", None)
    if type(module).__name__ != "ConvNeXt" or not isinstance(features, nn.Sequential):
        return None
    # Even entries are the stem and the downsampling layers.
    return _maps([f"features.{i}" for i in range(1, len(features), 2)])


def _swin_torchvision(module: nn.Module) -> Taps | None:
    features = getattr(module, "features", None)
    if type(module).__name__ != "SwinTransformer" or not isinstance(features, nn.Sequential):
        return None
    # Even entries are the patch embedding and the merging of patches.
    return _maps([f"features.{i}" for i in range(1, len(features), 2)], last=True)


def stages_timm(module: nn.Module) -> Taps | None:
    """What timm's networks say of their stages; the last four."""
    info = getattr(module, "feature_info", None)
    if not isinstance(info, list):
        return None
    inside = {name for name, _ in module.named_modules()}
    names = [str(stage["module"]) for stage in info if isinstance(stage, dict) and stage.get("module") in inside]
    return _maps(tuple(dict.fromkeys(names))[-4:]) if names else None


def _convnext_timm(module: nn.Module) -> Taps | None:
    stages = getattr(module, "stages", None)
    if type(module).__name__ != "ConvNeXt" or not isinstance(stages, nn.Sequential):
        return None
    return _maps([f"stages.{i}" for i in range(len(stages))])


def _stages_transformers(module: nn.Module) -> Taps | None:
    """transformers: ResNet, ConvNeXt, ConvNeXt V2 and others with ``encoder.stages``."""
    stages = getattr(getattr(module, "encoder", None), "stages", None)
    if not isinstance(stages, nn.ModuleList) or not re.match(r"(ResNet|ConvNext|RegNet)", type(module).__name__):
        return None
    return _maps([f"encoder.stages.{i}" for i in range(len(stages))])


def _vit_torchvision(module: nn.Module) -> Taps | None:
    layers = getattr(getattr(module, "encoder", None), "layers", None)
    if not isinstance(layers, nn.Sequential) or not hasattr(module, "class_token"):
        return None
    names = [f"encoder.layers.{name}" for name, _ in layers.named_children()]
    return _tokens(module, names, 1, "conv_proj")


def _vit_timm(module: nn.Module) -> Taps | None:
    blocks = getattr(module, "blocks", None)
    prefix = getattr(module, "num_prefix_tokens", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not isinstance(prefix, int):
        return None
    return _tokens(module, [f"blocks.{i}" for i in range(len(blocks))], prefix, *EMBEDDINGS)


def _vit_transformers(module: nn.Module) -> Taps | None:
    """ViT, DeiT and DINOv2 models: ``layers`` (``encoder.layer`` in older releases) after ``embeddings``."""
    embeddings = getattr(module, "embeddings", None)
    if embeddings is None or not hasattr(embeddings, "cls_token"):
        return None
    for path in ("layers", "encoder.layer", "encoder.layers"):
        layers: object = module
        for part in path.split("."):
            layers = getattr(layers, part, None)
        if isinstance(layers, nn.ModuleList):
            others = 1 if isinstance(getattr(embeddings, "distillation_token", None), Tensor) else 0
            registers = getattr(embeddings, "register_tokens", None)
            others += int(registers.shape[1]) if isinstance(registers, Tensor) else 0
            names = [f"{path}.{i}" for i in range(len(layers))]
            places = ("embeddings.patch_embeddings.projection", "embeddings.patch_embeddings")
            return _tokens(module, names, 1 + others, *places)
    return None


def _maps(names: Sequence[str], last: bool = False) -> Taps:
    return Taps(tuple(names), (Maps(last),) * len(names), "")


def _tokens(module: nn.Module, blocks: Sequence[str], prefix_tokens: int, *embeddings: str) -> Taps:
    """Evenly spaced blocks, the last one included; their grid is that of the first of ``embeddings`` that is there."""
    count = min(_TRANSFORMER_TAPS, len(blocks))
    chosen = tuple(blocks[(i + 1) * len(blocks) // count - 1] for i in range(count))
    inside = dict(module.named_modules())
    embedding = next((n for n in embeddings if isinstance(inside.get(n), (nn.Conv2d, nn.Sequential))), None)
    if embedding is None:
        return Taps(chosen, tuple(told_by_the_pass(module, n) for n in chosen), "")
    return Taps(chosen, (Tokens(prefix_tokens, embedding),) * count, "")


#: Asked in this order, for the classifier itself and then for each module inside it.
FAMILIES: tuple[tuple[str, Callable[[nn.Module], Taps | None]], ...] = (
    ("RobustBench WideResNet", _wideresnet),
    ("ResNet", _resnet),
    ("torchvision ConvNeXt", _convnext_torchvision),
    ("timm ConvNeXt", _convnext_timm),
    ("transformers ResNet or ConvNeXt", _stages_transformers),
    ("torchvision ViT", _vit_torchvision),
    ("timm ViT", _vit_timm),
    ("transformers ViT", _vit_transformers),
    ("torchvision Swin", _swin_torchvision),
    ("timm stages", stages_timm),
)

"""Which activations of a classifier show where it looks: the blocks that the attention mask taps.

The authors' choice for ResNet-50 is the output of the last block of each of the four stages, and for the WideResNets
the activation before the last convolution of each group and the final one. Other families get the matching places.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from edgepure.errors import ExportError

from ..networks.wideresnet import DMWideResNet, WideResNet

#: Taps in a transformer, which has no stages: after a quarter, a half, three quarters and all of its blocks.
_TRANSFORMER_TAPS = 4


@dataclass(frozen=True)
class Taps:
    """Where to tap a classifier.

    Attributes:
        names: modules whose *output* is tapped, in the order of the forward pass.
        prefix_tokens: None if the outputs are maps [B, C, h, w], or of a family that is not known; otherwise they are
            tokens [B, n, C], of which the first ``prefix_tokens`` (class token, registers) are no image patches.
        family: what the classifier was recognised as.
    """

    names: tuple[str, ...]
    prefix_tokens: int | None
    family: str

    def to_map(self, activation: Tensor) -> Tensor:
        """A tapped activation as a map [B, C, h, w]; as it is if it cannot be told what it is."""
        if activation.ndim != 3:
            return activation
        if self.prefix_tokens is None and math.isqrt(activation.shape[1]) ** 2 != activation.shape[1]:
            return activation
        return token_map_to_grid(activation, self.prefix_tokens or 0)


def default_taps(module: nn.Module) -> list[str]:
    """Names of the modules whose outputs are tapped; see `find_taps`."""
    return list(find_taps(module).names)


def find_taps(module: nn.Module) -> Taps:
    """The taps of a known family, also where it sits inside a wrapper (normalisation, preprocessing).

    Known: ResNets, ConvNeXts and ViTs of torchvision, timm and transformers, torchvision's Swins, what else of timm
    lists its stages (``feature_info``), and RobustBench's two WideResNets.

    Raises:
        ExportError: unknown family; lists modules that could be named by hand.
    """
    names = dict(module.named_modules())
    for prefix, candidate in names.items():
        for family, find in _FAMILIES:
            found = find(candidate)
            if found is not None:
                full = tuple(f"{prefix}.{n}" if prefix else n for n in found.names)
                return replace(found, names=full, family=family)
    candidates = [n for n in candidate_blocks(module) if n]
    listed = ", ".join(candidates[:20]) + (" ..." if len(candidates) > 20 else "")
    raise ExportError(
        f"no known blocks in a {type(module).__name__}: name the modules whose outputs show where it looks "
        f"(maps [B, C, h, w] or tokens [B, n, C]), usually the last block of each stage; it has {listed or 'no blocks'}"
    )


def named_taps(module: nn.Module, names: Sequence[str], prefix_tokens: int | None = None) -> Taps:
    """Taps that a user named. If the family is known, its token layout is taken over.

    Raises:
        ExportError: a name that is no module; says the nearest ones.
    """
    modules = dict(module.named_modules())
    for name in names:
        if name not in modules or not name:
            last = name.rsplit(".", 1)[-1]
            near = [n for n in modules if n and (last in n.split(".") or n.startswith(name.split(".", 1)[0]))]
            listed = ", ".join((near or candidate_blocks(module))[:20])
            raise ExportError(f"the classifier has no module named {name!r}; it has {listed}")
    if not names:
        raise ExportError("no blocks named; leave the option out to use the default ones")
    if prefix_tokens is None:
        try:
            prefix_tokens = find_taps(module).prefix_tokens
        except ExportError:
            prefix_tokens = None
    return Taps(tuple(names), prefix_tokens, "named by hand")


def candidate_blocks(module: nn.Module) -> list[str]:
    """Modules worth naming: those that are composed of others, two to four levels deep, no single layers."""
    return [
        name
        for name, child in module.named_modules()
        if name and name.count(".") <= 3 and any(True for _ in child.children())
    ]


def token_map_to_grid(act: Tensor, prefix_tokens: int = 1, grid_hw: tuple[int, int] | None = None) -> Tensor:
    """Tokens [B, prefix_tokens + h*w, C] -> map [B, C, h, w], row by row.

    Args:
        grid_hw: h and w; None: a square.

    Raises:
        ExportError: the number of patches does not fit.
    """
    if act.ndim != 3:
        raise ExportError(f"expected tokens [B, n, C], got a tensor of shape {list(act.shape)}")
    patches = int(act.shape[1]) - prefix_tokens
    side = math.isqrt(max(patches, 0))
    h, w = grid_hw or (side, side)
    if patches < 1 or h * w != patches:
        raise ExportError(
            f"{patches} patch tokens (after {prefix_tokens} others) do not make a {h} x {w} grid; pass the grid's size "
            "or the right number of prefix tokens"
        )
    return torch.unflatten(act[:, prefix_tokens:].transpose(1, 2), 2, (h, w))


def channels_first(activation: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """A map [B, C, h, w], also from [B, h, w, C] as Swin transformers have it.

    The layout is told by the image's shape, which only the height and width of a map share.
    """
    (_, first, second, third), (height, width) = activation.shape, size_hw
    if first * width == second * height and second * width != third * height:
        return activation.permute(0, 3, 1, 2)
    return activation


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
    return _maps([f"features.{i}" for i in range(1, len(features), 2)])


def _stages_timm(module: nn.Module) -> Taps | None:
    """What timm's networks say of their stages; the last four."""
    info = getattr(module, "feature_info", None)
    if not isinstance(info, list):
        return None
    inside = {name for name, _ in module.named_modules()}
    names = [str(stage["module"]) for stage in info if isinstance(stage, dict) and stage.get("module") in inside]
    return Taps(tuple(dict.fromkeys(names))[-4:], 0, "") if names else None


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
    return _tokens(names, prefix_tokens=1)


def _vit_timm(module: nn.Module) -> Taps | None:
    blocks = getattr(module, "blocks", None)
    prefix = getattr(module, "num_prefix_tokens", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList) or not isinstance(prefix, int):
        return None
    return _tokens([f"blocks.{i}" for i in range(len(blocks))], prefix)


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
            return _tokens([f"{path}.{i}" for i in range(len(layers))], 1 + others)
    return None


def _maps(names: Sequence[str]) -> Taps:
    return Taps(tuple(names), None, "")


def _tokens(blocks: Sequence[str], prefix_tokens: int) -> Taps:
    """Evenly spaced blocks, the last one included."""
    count = min(_TRANSFORMER_TAPS, len(blocks))
    chosen = [blocks[(i + 1) * len(blocks) // count - 1] for i in range(count)]
    return Taps(tuple(chosen), prefix_tokens, "")


#: Asked in this order, for the classifier itself and then for each module inside it.
_FAMILIES: tuple[tuple[str, Callable[[nn.Module], Taps | None]], ...] = (
    ("RobustBench WideResNet", _wideresnet),
    ("ResNet", _resnet),
    ("torchvision ConvNeXt", _convnext_torchvision),
    ("timm ConvNeXt", _convnext_timm),
    ("transformers ResNet or ConvNeXt", _stages_transformers),
    ("torchvision ViT", _vit_torchvision),
    ("timm ViT", _vit_timm),
    ("transformers ViT", _vit_transformers),
    ("torchvision Swin", _swin_torchvision),
    ("timm stages", _stages_timm),
)

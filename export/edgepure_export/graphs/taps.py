"""Which activations of a classifier show where it looks: the blocks that the attention mask taps.

They are those of its family (`tap_families`), or named by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgepure.errors import ExportError

from .layouts import Layout, Maps, Tokens, compared_layout, told_by_the_pass, written_layout
from .tap_families import EMBEDDINGS, FAMILIES, Taps, stages_timm


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
    for prefix, candidate in dict(module.named_modules()).items():
        for family, find in FAMILIES:
            found = find(candidate)
            if found is not None and hasattr(candidate, "forward_intermediates"):
                compared = _compared(candidate, found.names, getattr(module, "input_size", None))
                maps = all(isinstance(x, Maps) for x in found.layouts)
                found = compared or (found if maps and _convolutions_only(candidate, found.names) else None)
            elif found is not None and find is stages_timm and not _convolutions_only(candidate, found.names):
                found = replace(found, layouts=tuple(told_by_the_pass(candidate, n) for n in found.names))
            if found is not None:
                return replace(_inside(found, prefix), family=family)
    candidates = [n for n in candidate_blocks(module) if n]
    listed = ", ".join(candidates[:20]) + (" ..." if len(candidates) > 20 else "")
    raise ExportError(
        f"no known blocks in a {type(module).__name__}: name the modules whose outputs show where it looks "
        "(maps [B, C, h, w] or tokens [B, n, C]), usually the last block of each stage; "
        f"it has {listed or 'no blocks'}",
        code="E-taps-family",
    )


def named_taps(module: nn.Module, names: Sequence[str], prefix_tokens: int | None = None) -> Taps:
    """Taps that a user named, each perhaps with its layout behind it (``blocks.3@nhwc``, see `layouts.written_layout`).

    Without one the layout is that of the network's family, else what the pass itself shows (`layouts.Told`).

    Raises:
        ExportError: a name that is no module; says the nearest ones.
    """
    modules = dict(module.named_modules())
    written = {name.partition("@")[0]: name.partition("@")[2] for name in names}
    for name in written:
        if name not in modules or not name:
            last = name.rsplit(".", 1)[-1]
            near = [n for n in modules if n and (last in n.split(".") or n.startswith(name.split(".", 1)[0]))]
            listed = ", ".join((near or candidate_blocks(module))[:20])
            raise ExportError(f"the classifier has no module named {name!r}; it has {listed}", code="E-taps-name")
    if not names:
        raise ExportError("no blocks named; leave the option out to use the default ones", code="E-taps-empty")
    known = {name: written_layout(text) for name, text in written.items() if text}
    parts: dict[str, int | None] = {}
    try:
        family = find_taps(module)
    except ExportError:
        family = None
    for prefix, candidate in modules.items():
        if hasattr(candidate, "forward_intermediates"):
            start, size = f"{prefix}." if prefix else "", getattr(module, "input_size", None)
            inner = [n.removeprefix(start) for n in written if n not in known and n.startswith(start)]
            together = _compared(candidate, inner, size) if inner else None
            for found in [together] if together else [_compared(candidate, [n], size) for n in inner]:
                if found is not None:
                    full = _inside(found, prefix)
                    known.update(zip(full.names, full.layouts, strict=True))
                    parts.update(zip(full.names, full.parts, strict=True))
            break
    if family is not None:
        for name in written:
            if name not in known and (layout := _of_family(modules, family, name)) is not None:
                known[name] = layout
    layouts = tuple(known.get(name) or told_by_the_pass(module, name) for name in written)
    if prefix_tokens is not None:
        layouts = tuple(replace(x, prefix=prefix_tokens) if isinstance(x, Tokens) else x for x in layouts)
    return Taps(tuple(written), layouts, "named by hand", tuple(parts.get(name) for name in written))


def candidate_blocks(module: nn.Module) -> list[str]:
    """Modules worth naming: those that are composed of others, two to four levels deep, no single layers."""
    return [
        name
        for name, child in module.named_modules()
        if name and name.count(".") <= 3 and any(True for _ in child.children())
    ]


def _of_family(modules: dict[str, nn.Module], family: Taps, name: str) -> Layout | None:
    """The layout of a tapped module of the same class; None if the family taps no such module."""
    for known, layout in zip(family.names, family.layouts, strict=True):
        if type(modules[known]) is type(modules[name]) and not isinstance(modules[name], (nn.Sequential, nn.ReLU)):
            return layout
    return Maps() if all(isinstance(x, Maps) and not x.last for x in family.layouts) else None


def _compared(network: nn.Module, names: Sequence[str], size: tuple[int, int] | None = None) -> Taps | None:
    """The layouts of blocks of a network of timm, from its own spatial maps of a random image.

    None if the blocks' outputs are none of them, whatever way they are read: then nobody says where they lie.
    """
    from .to_onnx import evaluating

    modules = dict(network.named_modules())
    embedding = next((n for n in EMBEDDINGS if isinstance(modules.get(n), nn.Conv2d)), None)
    outputs: dict[str, Any] = {}
    watched = [*names, *([embedding] if embedding else [])]
    hooks = [modules[n].register_forward_hook(lambda m, a, out, n=n: outputs.__setitem__(n, out)) for n in watched]
    try:
        with evaluating(network):
            for shape in _input_shapes(network, size):
                outputs.clear()
                try:
                    image = torch.rand((1, *shape), generator=torch.Generator().manual_seed(0))
                    maps = network.forward_intermediates(  # type: ignore[operator]
                        image, output_fmt="NCHW", intermediates_only=True, norm=False
                    )
                    outputs.clear()
                    network(image)
                except Exception:  # it takes images of another size, or has no spatial maps
                    continue
                maps = [m for m in maps if isinstance(m, Tensor) and m.ndim == 4]
                patches = (embedding, outputs[embedding]) if embedding in outputs else None
                found = [compared_layout(network, n, outputs.get(n), maps, patches) for n in names]
                if all(found):
                    return Taps(tuple(names), tuple(f[0] for f in found if f), "", tuple(f[1] for f in found if f))
                return None
    finally:
        for hook in hooks:
            hook.remove()
    return None


def _convolutions_only(network: nn.Module, names: Sequence[str]) -> bool:
    """Whether nothing in these modules works with the channels last."""
    parts = [m for name in names for m in network.get_submodule(name).modules()]
    convolves = any(isinstance(m, nn.Conv2d) for m in parts)
    return convolves and not any(isinstance(m, (nn.Linear, nn.LayerNorm)) for m in parts)


def _input_shapes(network: nn.Module, size: tuple[int, int] | None) -> list[tuple[int, int, int]]:
    """Channels, height and width of images that a network of timm may be made for, the surest first."""
    patches: Any = getattr(network, "patch_embed", None)
    config: Any = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    tokens, info = getattr(network, "tokens_spatial_shape", None), getattr(network, "feature_info", None)
    sizes: list[Any] = [size, getattr(patches, "img_size", None), getattr(network, "img_size", None)]
    if tokens is not None and isinstance(info, list) and info:
        sizes.append(tuple(int(n) * int(info[0]["reduction"]) for n in tokens))
    sizes += [tuple(config["input_size"])[1:] if config.get("input_size") else None, 224, 256, 64]
    channels = next((m.in_channels for m in network.modules() if isinstance(m, nn.Conv2d)), 3)
    pairs = [(s, s) if isinstance(s, int) else tuple(s) for s in sizes if s is not None]
    return list(dict.fromkeys((channels, int(p[0]), int(p[1])) for p in pairs if len(p) == 2))


def _inside(taps: Taps, prefix: str) -> Taps:
    """The taps of a module under its place in a larger one."""
    if not prefix:
        return taps
    layouts = tuple(x.inside(prefix) for x in taps.layouts)
    return replace(taps, names=tuple(f"{prefix}.{n}" for n in taps.names), layouts=layouts)

"""The attention mask: which pixels of an image the classifier looks at, as one PyTorch module that exports to ONNX.

For every tapped block with activations ``A`` [B, C, h, w], bilinear resize with half-pixel centres to the image:

- ``minmax`` (the authors' code of "Divide and Conquer", arXiv 2503.01407): ``m = sum_c |A|^2``, resized, then per-image
  min-max; the attention is the maximum over the blocks; ``mask = attention >= threshold``.
- ``softmax`` (the paper): ``u = (sum_c |A|^p)^(1/p)``, resized, softmax over all pixels per block; the mask is the
  union of the blocks, ``softmax > threshold``, which is the maximum over the blocks > threshold.

With an ``area`` the mask is instead that fraction of the pixels, the highest ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.errors import ExportError

from .mask_cut import MaskGradient, cut_map
from .tap_families import Taps
from .taps import named_taps
from .window import Window, resized, window_of

#: Codes of the rules in the graph input ``rule``.
RULES = {"minmax": 0.0, "softmax": 1.0}


class AttentionHead(nn.Module):
    """Activations of the tapped blocks -> mask and fused attention map.

    Args:
        size_hw: height and width of the image.
        norm_p: p of the softmax rule, at least 1.
        window: what the classifier sees of the image; None: all of it.
        temperature: width of the sigmoid of the soft mask, as a fraction of the map's maximum (threshold) or of its
            range (area). Only gradients and ``gradient="soft"`` see it.
    """

    def __init__(
        self,
        size_hw: tuple[int, int],
        norm_p: float = 2.0,
        temperature: float = 0.05,
        *,
        window: Window | None = None,
    ) -> None:
        super().__init__()
        if norm_p < 1:
            raise ExportError(
                f"norm_p {norm_p} of the attention mask must be at least 1; the paper uses 2", code="E-mask"
            )
        if temperature <= 0:
            raise ExportError(f"temperature {temperature} of the soft mask must be positive", code="E-mask")
        self.size_hw = (int(size_hw[0]), int(size_hw[1]))
        self.norm_p = float(norm_p)
        self.temperature = float(temperature)
        self.window = window

    def forward(
        self,
        activations: Sequence[Tensor],
        threshold: Tensor,
        area: Tensor,
        rule: Tensor,
        gradient: MaskGradient = "none",
    ) -> tuple[Tensor, Tensor]:
        """Fuse the blocks and cut the map.

        Args:
            activations: one [B, C, h, w] per block; any number of channels and any size.
            threshold: [B], used where ``area`` is 0.
            area: [B] in [0, 1]; 0 means threshold. ``k = int(H * W * area)`` pixels (truncated) are attended, and with
                them all that tie with the k-th.
            rule: [B], 0 = minmax, 1 = softmax.
            gradient: see `MaskGradient`.

        Returns:
            mask [B, 1, H, W], exactly 0 or 1 unless ``gradient="soft"``, and attention [B, 1, H, W] of the rule.
        """
        threshold, area, rule = (v.reshape(-1, 1, 1, 1) for v in (threshold, area, rule))
        attention, score = self.fuse(activations, rule)

        return cut_map(attention, score, threshold, area, rule, gradient, self.temperature), attention

    def fuse(self, activations: Sequence[Tensor], rule: Tensor) -> tuple[Tensor, Tensor]:
        """Fused maps, both [B, 1, H, W], of the rule [B, 1, 1, 1] of each image: ``attention``, which thresholds refer
        to, and ``score``, which orders the pixels the same way without underflow (the logarithm, for softmax)."""
        fused = self.minmax_map(activations)
        log_softmax = self.log_softmax_maps(activations).amax(1, keepdim=True)
        is_softmax = rule > 0.5
        attention = torch.where(is_softmax, log_softmax.exp(), fused)
        return attention, torch.where(is_softmax, log_softmax, fused)

    def minmax_map(self, activations: Sequence[Tensor]) -> Tensor:
        """[B, 1, H, W] in [0, 1], the authors' fusion. A block that is constant over an image (0/0) adds nothing."""
        maps = self._resize([(a * a).sum(1, keepdim=True) for a in activations])
        low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
        span = high - low
        # Resizing a constant map may leave a rounding error; it must not be blown up to the range [0, 1].
        varies = span > 16.0 * torch.finfo(maps.dtype).eps * high
        scaled = (maps - low) / torch.where(varies, span, 1.0)
        return torch.where(varies, scaled, 0.0).amax(1, keepdim=True)

    def log_softmax_maps(self, activations: Sequence[Tensor]) -> Tensor:
        """[B, blocks, H, W]: logarithm of the spatial softmax of each block (the paper's rule)."""
        maps = self._resize([self._norm(a) for a in activations])
        return F.log_softmax(maps.flatten(2), dim=2).reshape(maps.shape)

    def _norm(self, a: Tensor) -> Tensor:
        """L^p norm over the channels, [B, 1, h, w], with gradient 0 where the activations are all 0."""
        if self.norm_p == 1.0:
            return a.abs().sum(1, keepdim=True)
        total = (a * a if self.norm_p == 2.0 else a.abs() ** self.norm_p).sum(1, keepdim=True)
        if torch.compiler.is_exporting():
            return total.sqrt() if self.norm_p == 2.0 else total ** (1.0 / self.norm_p)
        positive = total > 0
        return torch.where(positive, torch.where(positive, total, 1.0) ** (1.0 / self.norm_p), 0.0)

    def _resize(self, maps: list[Tensor]) -> Tensor:
        return resized(maps, self.size_hw, self.window)


#: ImageNet's mean and standard deviation per colour channel, images in [0, 1].
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

#: Turns the output of a tapped block into a map [B, C, h, w], for example the tokens of a vision transformer.
BlockTransform = Callable[[Any], Tensor]


class MaskModule(nn.Module):
    """A classifier with tapped blocks: images -> logits, mask and attention map in one pass.

    Args:
        classifier: images [B, C, H, W] in [0, 1] -> logits [B, N], preprocessing included. Of a backbone that stands in
            for one the output may be anything; `MapsAlone` leaves it out.
        blocks: names of the modules whose outputs are tapped, as in ``classifier.named_modules()``, or `Taps`. How an
            output becomes a map is known for many families; behind a name it can be said (``blocks.3@nhwc``).
        size_hw: height and width of the image.
        norm_p: see `AttentionHead`.
        input: what the tapped classifier sees. ``own``: the image. ``official``: ``((2 * image - 1) - mean) / std``
            with ImageNet's mean and std, an oddity of the authors' code that its published masks have; it costs a
            second pass, because the logits are always those of the image itself.
        transforms: per block name, how its output becomes a map [B, C, h, w], where that needs help.

    Raises:
        ExportError: no blocks, or a name that is not a module of the classifier.
    """

    def __init__(
        self,
        classifier: nn.Module,
        blocks: Sequence[str] | Taps,
        size_hw: tuple[int, int],
        *,
        norm_p: float = 2.0,
        input: Literal["own", "official"] = "own",
        transforms: Mapping[str, BlockTransform] | None = None,
        temperature: float = 0.05,
    ) -> None:
        super().__init__()
        names = blocks.names if isinstance(blocks, Taps) else tuple(blocks)
        plain = tuple(name.partition("@")[0] for name in names)
        if not names:
            raise ExportError(
                "the attention mask needs at least one block of the classifier to tap; `blocks` is empty",
                code="E-taps-empty",
            )
        if input not in ("own", "official"):
            raise ExportError(f"mask input {input!r} is unknown; choose 'own' or 'official'", code="E-mask-input")
        self.classifier = classifier
        self.head = AttentionHead(size_hw, norm_p, temperature, window=window_of(classifier, size_hw))
        self.blocks = plain
        self.input = input
        self._transforms = dict(transforms or {})
        self._taps: dict[str, Any] = {}
        modules = dict(classifier.named_modules())
        for block in self.blocks:
            if block not in modules:
                raise ExportError(_no_such_block(block, [name for name in modules if name]), code="E-taps-name")
        self._layouts = blocks if isinstance(blocks, Taps) else named_taps(classifier, names)
        self._shapes: dict[str, tuple[int, ...]] = {}
        # Registered once: hooks that are added on every call leak, and slow each call down further.
        self._hooks = [modules[block].register_forward_hook(self._tap(block)) for block in self.blocks]
        for name in dict.fromkeys(w for layout in self._layouts.layouts for w in layout.watched):
            self._hooks.append(self._watch(modules, name))

    def forward(
        self,
        image: Tensor,
        threshold: Tensor,
        area: Tensor,
        rule: Tensor,
        gradient: MaskGradient = "none",
    ) -> tuple[Any, Tensor, Tensor]:
        """image [B, C, H, W] in [0, 1]; threshold, area, rule [B] -> logits [B, N], mask and attention [B, 1, H, W]."""
        if self.input == "official":
            self._run(self.official_input(image))
            activations = self.activations()
            logits = self._run(image)
            self._taps.clear()
        else:
            logits = self._run(image)
            activations = self.activations()
        mask, attention = self.head(activations, threshold, area, rule, gradient)
        return logits, mask, attention

    @staticmethod
    def official_input(image: Tensor) -> Tensor:
        """What the authors' code shows the tapped classifier: [-1, 1] normalised as if it were [0, 1]."""
        if image.shape[1] != len(IMAGENET_MEAN):
            raise ExportError(
                f"mask input 'official' normalises 3 colour channels, but the images have {image.shape[1]}; use 'own'",
                code="E-mask-input-colour",
            )
        mean, std = (image.new_tensor(v)[None, :, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        return ((2.0 * image - 1.0) - mean) / std

    def activations(self) -> list[Tensor]:
        """The maps of the last pass, one [B, C, h, w] per block; they can be asked for once."""
        maps = []
        for block in self.blocks:
            if block not in self._taps:
                raise ExportError(
                    f"block {block!r} of the classifier did not run in its forward pass; tap another one",
                    code="E-taps-silent",
                )
            maps.append(self._map(block, self._taps[block]))
        self._taps.clear()
        return maps

    def close(self) -> None:
        """Take the hooks off the classifier again."""
        for hook in self._hooks:
            hook.remove()

    def _run(self, image: Tensor) -> Any:
        self._taps.clear()
        return self.classifier(image)

    def _tap(self, block: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            self._taps[block] = output

        return hook

    def shape(self, module: str) -> tuple[int, ...] | None:
        """Shape of a watched module's output in the present pass (`layouts.Seen`)."""
        return self._shapes.get(module)

    def _watch(self, modules: Mapping[str, nn.Module], name: str) -> Any:
        """Keep the shape of a module's output, or (``input of NAME``) of what it gets."""
        watched = name.removeprefix("input of ")
        if watched not in modules:
            raise ExportError(
                f"the classifier has no module {watched!r}, which shows where its tokens lie", code="E-layout-module"
            )

        def output(module: nn.Module, args: Any, found: Any) -> None:
            if isinstance(found, Tensor):
                self._shapes[name] = tuple(found.shape)

        def given(module: nn.Module, args: Any) -> None:
            if args and isinstance(args[0], Tensor):
                self._shapes[name] = tuple(args[0].shape)

        if watched != name:
            return modules[watched].register_forward_pre_hook(given)
        return modules[watched].register_forward_hook(output)

    def _map(self, block: str, output: Any) -> Tensor:
        number = self.blocks.index(block)
        if block in self._transforms:
            output = self._transforms[block](output)
        else:
            output = self._layouts.part(number, output)
            if isinstance(output, Tensor):
                try:
                    output = self._layouts.layouts[number](output, self)
                except ExportError as error:
                    raise ExportError(f"block {block!r} of the classifier: {error}", code=error.code) from None
        if not isinstance(output, Tensor) or output.ndim != 4:
            got = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ExportError(
                f"block {block!r} of the classifier gives {got}, but the attention mask needs maps [B, C, h, w]; "
                "tap another block, or pass `transforms` with a function that makes such a map",
                code="E-layout-maps",
            )
        return output


class MapsAlone(nn.Module):
    """The mask module of a backbone: mask and attention map, without what the network itself says."""

    def __init__(self, module: MaskModule) -> None:
        super().__init__()
        self.module = module

    def forward(self, image: Tensor, threshold: Tensor, area: Tensor, rule: Tensor) -> tuple[Tensor, Tensor]:
        """The arguments of `MaskModule.forward` -> mask and attention [B, 1, H, W]."""
        _, mask, attention = self.module(image, threshold, area, rule)
        return mask, attention


def _no_such_block(block: str, names: list[str]) -> str:
    close = get_close_matches(block, names, n=5, cutoff=0.4)
    others = [name for name in names if name not in close]
    listed = ", ".join([*close, *others][:40]) + (", ..." if len(names) > 40 else "")
    return f"the classifier has no module {block!r} to tap; it has: {listed or 'no named modules'}"

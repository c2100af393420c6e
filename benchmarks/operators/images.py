"""Cases: convolutions, pools, norms, resizes, pads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .common import Case, layer, tokens, weights


def conv(*shape: int, **options: Any) -> Case:
    """A two-dimensional convolution with fixed weights and a bias."""
    return lambda x: F.conv2d(x, weights(*shape), weights(shape[0], seed=1), **options)


def transposed(*shape: int, groups: int = 1, **options: Any) -> Case:
    bias = weights(shape[1] * groups, seed=1)
    return lambda x: F.conv_transpose2d(x, weights(*shape), bias, groups=groups, **options)


CONVOLUTIONS: dict[str, Case] = {
    "3 x 3": conv(6, 4, 3, 3),
    "padded": conv(6, 4, 3, 3, padding=1),
    "strided": conv(6, 4, 3, 3, stride=2, padding=1),
    "strides that differ": conv(6, 4, 3, 5, stride=(2, 3), padding=(1, 2)),
    "dilated": conv(6, 4, 3, 3, dilation=2, padding=2),
    "depthwise": conv(4, 1, 3, 3, groups=4, padding=1),
    "depthwise, strided": conv(4, 1, 5, 5, groups=4, stride=2, padding=2),
    "depthwise, doubled": conv(8, 1, 3, 3, groups=4),
    "groups": conv(6, 2, 3, 3, groups=2),
    "1 x 1": conv(6, 4, 1, 1),
    "patches": conv(6, 4, 3, 3, stride=3),
    "no bias": lambda x: F.conv2d(x, weights(6, 4, 3, 3)),
    "same": conv(6, 4, 3, 3, padding="same"),
    "same, even kernel": conv(6, 4, 4, 2, padding="same"),
    "valid": conv(6, 4, 3, 3, padding="valid"),
    "reflect": layer(lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="reflect")),
    "replicate": layer(lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="replicate")),
    "circular": layer(lambda: nn.Conv2d(4, 6, 3, padding=2, padding_mode="circular")),
    "standardized weights": lambda x: F.conv2d(x, F.layer_norm(weights(6, 4, 3, 3), (4, 3, 3))),
    "one dimension": lambda x: F.conv1d(x.flatten(2), weights(6, 4, 5), padding=2, stride=2),
    "three dimensions": lambda x: F.conv3d(x.unsqueeze(1), weights(2, 1, 2, 3, 3), padding=(1, 0, 1)),
    "transposed": transposed(4, 6, 3, 3),
    "transposed, strided": transposed(4, 6, 4, 4, stride=2, padding=1),
    "transposed, output padding": transposed(4, 6, 3, 3, stride=2, padding=1, output_padding=1),
    "transposed, dilated": transposed(4, 6, 3, 3, dilation=2),
    "transposed, groups": transposed(4, 3, 3, 3, groups=2, stride=2),
    "transposed, depthwise": transposed(4, 1, 2, 2, groups=4, stride=2),
    "transposed, one dimension": lambda x: F.conv_transpose1d(x.flatten(2), weights(4, 6, 4), stride=2),
    "deformed": lambda x: _deformed(x),
}


def _deformed(x: Tensor) -> Tensor:
    from torchvision.ops import deform_conv2d

    offset = F.conv2d(x, weights(18, 4, 3, 3), padding=1)
    return deform_conv2d(x, offset, weights(6, 4, 3, 3), padding=1)  # type: ignore[no-any-return]


POOLS: dict[str, Case] = {
    "average": nn.AvgPool2d(2),
    "average, padded": nn.AvgPool2d(3, 2, 1),
    "average, padding left out": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average, rounded up": nn.AvgPool2d(3, 3, 1, ceil_mode=True),
    "average, other divisor": nn.AvgPool2d(3, 2, divisor_override=5),
    "average, padded in one direction": nn.AvgPool2d((3, 1), 1, (1, 0)),
    "average, padding differs": nn.AvgPool2d((5, 3), 1, (2, 1)),
    "average, padding differs, rounded up": nn.AvgPool2d((4, 3), 3, (2, 1), ceil_mode=True),
    "average, padding differs, left out": nn.AvgPool2d((5, 3), 2, (2, 1), count_include_pad=False),
    "average of a padded image": lambda x: F.avg_pool2d(F.pad(x, (0, 1, 1, 2)), 3, 2),
    "average of a padded image, padding left out": lambda x: F.avg_pool2d(
        F.pad(x, (1, 1, 1, 1)), 3, 2, count_include_pad=False
    ),
    "average, padded, other divisor": nn.AvgPool2d(3, 2, 1, divisor_override=4),
    "maximum of a padded image": lambda x: F.max_pool2d(F.pad(x - 9, (1, 1, 1, 1)), 3, 2),
    "average, kernel not square": nn.AvgPool2d((2, 3), (1, 2)),
    "average, one dimension": lambda x: F.avg_pool1d(x.flatten(2), 3, 2, 1),
    "average, three dimensions": lambda x: F.avg_pool3d(x.unsqueeze(1), 2),
    "maximum": nn.MaxPool2d(2),
    "maximum, padded": nn.MaxPool2d(3, 2, 1),
    "maximum of negatives, padded": lambda x: F.max_pool2d(x - 9, 3, 2, 1),
    "maximum, dilated": nn.MaxPool2d(3, 1, 0, dilation=2),
    "maximum, rounded up": nn.MaxPool2d(3, 2, 1, ceil_mode=True),
    "maximum, one dimension": lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1),
    "maximum, stride 1, padded": nn.MaxPool2d(5, 1, 2),
    "adaptive to 1": nn.AdaptiveAvgPool2d(1),
    "adaptive, divides": nn.AdaptiveAvgPool2d((3, 11)),
    "adaptive, overlaps": nn.AdaptiveAvgPool2d((4, 5)),
    "adaptive maximum": nn.AdaptiveMaxPool2d(1),
    "adaptive maximum, divides": nn.AdaptiveMaxPool2d((3, 1)),
    "power average": lambda x: F.lp_pool2d(x.abs() + 0.1, 3, 2),
    "generalized mean": lambda x: F.avg_pool2d(x.clamp(min=1e-6).pow(3), (9, 11)).pow(1 / 3),
    "unfold": lambda x: F.unfold(x, 3, padding=1, stride=2),
    "fold": lambda x: F.fold(F.unfold(x, 3), (9, 11), 3),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x[:, :, :8, :10], 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
}

NORMS: dict[str, Case] = {
    "batch": lambda x: F.batch_norm(
        x, weights(4), weights(4, seed=1).abs() + 0.1, weights(4, seed=2), weights(4, seed=3)
    ),
    "batch, eps 1e-3": lambda x: F.batch_norm(x, weights(4), weights(4, seed=1).abs(), eps=1e-3),
    "batch, tiny variance": lambda x: F.batch_norm(x, weights(4), torch.full((4,), 1e-6), eps=1e-6),
    "batch, tokens": lambda x: F.batch_norm(tokens(x).transpose(1, 2), weights(44), weights(44, seed=1).abs() + 0.1),
    "layer": lambda x: F.layer_norm(tokens(x), (44,), weights(44), weights(44, seed=1)),
    "layer, plain": lambda x: F.layer_norm(tokens(x), (44,)),
    "layer, eps 1e-6": lambda x: F.layer_norm(tokens(x) * 1e-3, (44,), eps=1e-6),
    "layer, three axes": lambda x: F.layer_norm(x, (4, 9, 11)),
    "layer, channels last": lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,), weights(4)).permute(0, 3, 1, 2),
    "group": lambda x: F.group_norm(x, 2, weights(4), weights(4, seed=1)),
    "group of all": lambda x: F.group_norm(x, 1),
    "group of one": lambda x: F.group_norm(x, 4, eps=1e-6),
    "instance": lambda x: F.instance_norm(x, weight=weights(4), bias=weights(4, seed=1)),
    "response": lambda x: F.local_response_norm(x, 3, 0.1, 0.7, 1.5),
    "root mean square": lambda x: F.rms_norm(tokens(x), (44,), weights(44), 1e-6),
    "to length 1": lambda x: F.normalize(x, dim=1),
    "to length 1, last": lambda x: F.normalize(x, p=1.0, dim=-1),
    "global response": lambda x: x * (x.norm(2, (2, 3), True) / (x.norm(2, (2, 3), True).mean(1, True) + 1e-6)),
}


def resized(mode: str, align: bool | None = None, antialias: bool = False, **to: Any) -> Case:
    return lambda x: F.interpolate(x, mode=mode, align_corners=align, antialias=antialias, **to)


def sampled(mode: str, padding: str, align: bool) -> Case:
    def work(x: Tensor) -> Tensor:
        grid = torch.stack([x[:, 0] * 0.7, x[:, 1] * 0.7], -1)
        return F.grid_sample(x, grid, mode, padding, align)

    return work


RESIZES: dict[str, Case] = {
    "nearest, doubled": resized("nearest", scale_factor=2),
    "nearest, smaller": resized("nearest", size=(5, 7)),
    "nearest, larger": resized("nearest", size=(13, 16)),
    "nearest by 1.5": resized("nearest", scale_factor=1.5),
    "nearest exact, smaller": resized("nearest-exact", size=(5, 7)),
    "nearest exact, larger": resized("nearest-exact", size=(13, 16)),
    "linear": resized("bilinear", False, size=(13, 7)),
    "linear, doubled": resized("bilinear", False, scale_factor=2),
    "linear by 0.7": resized("bilinear", False, scale_factor=0.7),
    "linear by 0.7, scale computed anew": resized("bilinear", False, scale_factor=0.7, recompute_scale_factor=True),
    "linear, corners": resized("bilinear", True, size=(13, 7)),
    "linear, antialias": resized("bilinear", False, True, size=(5, 6)),
    "cubic": resized("bicubic", False, size=(13, 7)),
    "cubic, corners": resized("bicubic", True, size=(13, 7)),
    "cubic, antialias": resized("bicubic", False, True, size=(5, 17)),
    "area": resized("area", size=(3, 1)),
    "linear, one dimension": lambda x: F.interpolate(x.flatten(2), size=50, mode="linear"),
    "linear, three dimensions": lambda x: F.interpolate(x.unsqueeze(1), size=(5, 6, 7), mode="trilinear"),
    **{
        f"sampled, {mode}, {padding}, corners {align}": sampled(mode, padding, align)
        for mode in ("bilinear", "nearest", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    },
    "affine": lambda x: F.grid_sample(
        x,
        F.affine_grid(weights(1, 2, 3).expand(2, 2, 3)[:1], [1, 4, 6, 6], False).repeat(x.shape[0], 1, 1, 1),
        align_corners=False,
    ),
}

PADS: dict[str, Case] = {
    "zeros": lambda x: F.pad(x, (1, 2, 3, 4)),
    "a value": lambda x: F.pad(x, (1, 0, 0, 2), value=-1.5),
    "negative": lambda x: F.pad(x, (-1, 2, -3, 0)),
    "channels": lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "reflect": lambda x: F.pad(x, (1, 2, 3, 4), "reflect"),
    "replicate": lambda x: F.pad(x, (1, 2, 3, 4), "replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 3, 4), "circular"),
    "lowest": lambda x: F.max_pool2d(F.pad(x - 9, (1, 1, 1, 1), value=float("-inf")), 3),
    "windows": lambda x: F.pad(x, (0, 1, 0, 3)).reshape(-1, 4, 3, 4, 3, 4).permute(0, 2, 4, 1, 3, 5).flatten(1, 2),
}

"""Random networks of a few thousand weights that have what the real ones have, for tests of export.

Images are 3 x 8 x 8. All of them are deterministic: the same seed gives the same weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, SIZE, CLASSES = 3, 8, 5
BLOCKS = ("stem", "body.0", "body.1")


class TinyClassifier(nn.Module):
    """Images [B, 3, 8, 8] in [0, 1] -> logits [B, 5]; three blocks of sizes 8, 4 and 2 to tap."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(nn.Conv2d(CHANNELS, 6, 3, 1, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
            self.body = nn.Sequential(
                nn.Sequential(nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU()), nn.Sequential(nn.Conv2d(8, 10, 3, 2, 1), nn.ReLU())
            )
            self.head = nn.Linear(10, CLASSES)
            self.stem[1].running_mean.normal_(0.0, 0.1)  # type: ignore[union-attr, operator]
            self.stem[1].running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr, operator]
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        h = self.body(self.stem(4.0 * (image - 0.5)))
        logits: Tensor = 3.0 * self.head(h.mean((2, 3)))
        return logits


class TinyUNet(nn.Module):
    """x [B, 3, 8, 8], t [B] -> epsilon [B, 3, 8, 8], or [B, 6, 8, 8] with ``learned``.

    GroupNorm, SiLU, self-attention, a strided convolution and a nearest upsampling. A part of x is added to the output,
    so that it predicts pure noise as noise, as a trained network does; ``skip=0`` leaves that out.
    """

    def __init__(self, learned: bool = False, seed: int = 0, skip: float = 0.8) -> None:
        super().__init__()
        self.learned, self.skip = learned, skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.time = nn.Linear(8, 16)
            self.conv_in = nn.Conv2d(CHANNELS, 16, 3, 1, 1)
            self.norm1, self.conv1 = nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, 1, 1)
            self.down = nn.Conv2d(16, 16, 3, 2, 1)
            self.norm2, self.qkv, self.proj = nn.GroupNorm(4, 16), nn.Conv2d(16, 48, 1), nn.Conv2d(16, 16, 1)
            self.up = nn.Conv2d(16, 16, 3, 1, 1)
            self.norm3 = nn.GroupNorm(4, 16)
            self.conv_out = nn.Conv2d(16, (2 if learned else 1) * CHANNELS, 3, 1, 1)
            for norm in (self.norm1, self.norm2, self.norm3):
                norm.weight.data.uniform_(0.5, 1.5)
                norm.bias.data.normal_(0.0, 0.2)
        self.register_buffer("frequencies", torch.exp(-2.0 * torch.arange(4.0)), persistent=False)
        self.eval()

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        shift = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        high = self.conv_in(x)
        high = high + self.conv1(F.silu(self.norm1(high) + shift[:, :, None, None]))
        low = self.down(high)
        q, k, v = self.qkv(self.norm2(low)).flatten(2).unflatten(1, (3, 2, 8)).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        low = low + self.proj(mixed.unflatten(2, (SIZE // 2, SIZE // 2)))
        high = high + self.up(F.interpolate(low, scale_factor=2.0, mode="nearest"))
        out = self.conv_out(F.silu(self.norm3(high)))
        eps = self.skip * x + 0.5 * out[:, :CHANNELS]
        return torch.cat([eps, torch.tanh(out[:, CHANNELS:])], 1) if self.learned else eps


def images(count: int, seed: int = 0) -> Tensor:
    """Smooth images [count, 3, 8, 8] in [0, 1]."""
    coarse = torch.rand((count, CHANNELS, 3, 3), generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, size=(SIZE, SIZE), mode="bilinear", align_corners=False)

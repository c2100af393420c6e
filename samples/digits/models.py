"""The networks of the digits sample: a residual classifier and an epsilon-prediction UNet for 16 x 16 images."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).resolve().parent / "weights"


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut; the output is never negative (it has passed a ReLU)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(h)) + self.shortcut(x))


class DigitsClassifier(nn.Module):
    """Classify digits: images [B, 1, 16, 16] in [0, 1] -> logits [B, 10].

    The mean and standard deviation of the training images are applied inside. `TAPS` names the blocks whose outputs
    feed the attention mask; all four are non-negative: `stem` [B, 16, 16, 16], `block1` [B, 16, 16, 16],
    `block2` [B, 32, 8, 8], `block3` [B, 64, 4, 4].
    """

    TAPS = ("stem", "block1", "block2", "block3")

    def __init__(self, channels: int = 16, mean: float = 0.305, std: float = 0.319) -> None:
        super().__init__()
        self.mean = mean
        self.std = std
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        self.block1 = ResidualBlock(channels, channels, stride=1)
        self.block2 = ResidualBlock(channels, 2 * channels, stride=2)
        self.block3 = ResidualBlock(2 * channels, 4 * channels, stride=2)
        self.head = nn.Linear(4 * channels, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem((x - self.mean) / self.std)
        h = self.block3(self.block2(self.block1(h)))
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


class TimeResidualBlock(nn.Module):
    """GroupNorm, SiLU, 3 x 3 convolution, twice, with a shortcut; `shift` [B, C] brings the timestep in between."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 1, 1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + shift[:, :, None, None]
        out: Tensor = self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)
        return out


class SelfAttention(nn.Module):
    """Self-attention over all positions of a small feature map, with a residual connection."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        qkv = self.qkv(self.norm(x)).reshape(-1, 3, self.heads, channels // self.heads, height * width)
        query, key, value = qkv.transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(query, key, value)
        update: Tensor = self.out(mixed.transpose(2, 3).reshape(-1, channels, height, width))
        return x + update


class DigitsUNet(nn.Module):
    """Predict the noise in a noisy digit: x [B, 1, 16, 16] around [-1, 1], t [B] float -> epsilon [B, 1, 16, 16].

    `t` is the real-valued index 0..999 of the linear VP schedule (beta 1e-4..0.02, T = 1000); `t = 999 * s` of the
    continuous VP-SDE works too. The first convolution halves the image at once, so all of the work happens at 8 x 8
    and 4 x 4: on maps this small a few wide operations are cheaper than many narrow ones.
    """

    frequencies: Tensor

    def __init__(self, channels: int = 48, time_channels: int = 64) -> None:
        super().__init__()
        wide = 2 * channels
        half = time_channels // 2
        frequencies = torch.exp(-math.log(10_000.0) / half * torch.arange(half, dtype=torch.float32))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.shift_sizes = [channels, wide, wide, channels]
        self.time1 = nn.Linear(time_channels, 2 * time_channels)
        self.time2 = nn.Linear(2 * time_channels, sum(self.shift_sizes))

        self.conv_in = nn.Conv2d(1, channels, 6, stride=2, padding=2)
        self.down = TimeResidualBlock(channels, channels)
        self.shrink = nn.Conv2d(channels, wide, 2, stride=2)
        self.middle1 = TimeResidualBlock(wide, wide)
        self.attention = SelfAttention(wide, heads=4)
        self.middle2 = TimeResidualBlock(wide, wide)
        self.grow = nn.ConvTranspose2d(wide, channels, 2, stride=2)
        self.up = TimeResidualBlock(2 * channels, channels)
        self.norm_out = nn.GroupNorm(8, channels)
        self.conv_out = nn.ConvTranspose2d(channels, 1, 6, stride=2, padding=2)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding = F.silu(self.time1(torch.cat([angles.sin(), angles.cos()], dim=1)))
        shifts = self.time2(embedding).split(self.shift_sizes, dim=1)

        high = self.down(self.conv_in(x), shifts[0])
        low = self.middle1(self.shrink(high), shifts[1])
        low = self.middle2(self.attention(low), shifts[2])
        high = self.up(torch.cat([self.grow(low), high], dim=1), shifts[3])
        epsilon: Tensor = self.conv_out(F.silu(self.norm_out(high)))
        return epsilon


def load_classifier(weights: Path = WEIGHTS) -> DigitsClassifier:
    """The trained classifier, in eval mode."""
    model = DigitsClassifier()
    model.load_state_dict(load_file(weights / "classifier.safetensors"))
    return model.eval()


def load_unet(weights: Path = WEIGHTS) -> DigitsUNet:
    """The trained UNet, in eval mode."""
    model = DigitsUNet()
    model.load_state_dict(load_file(weights / "unet.safetensors"))
    return model.eval()

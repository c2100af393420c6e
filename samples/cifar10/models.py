"""The networks of the CIFAR-10 sample, for an edge device: a residual classifier and an epsilon-prediction UNet."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).resolve().parent / "weights"


class Stage(nn.Module):
    """A 3 x 3 convolution with pooling, then a residual one; halves the map. The output is never negative."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return h + F.relu(self.norm2(self.conv2(h)))


class CifarClassifier(nn.Module):
    """Classify: images [B, 3, 32, 32] in [0, 1] -> logits [B, 10]. 2.0 M parameters, 124 million multiplications.

    Mean and standard deviation are applied inside. `TAPS` names the blocks whose outputs feed the attention mask, all
    non-negative: `stage1` [B, 64, 16, 16], `stage2` [B, 256, 8, 8], `stage3` [B, 256, 4, 4].
    """

    TAPS = ("stage1", "stage2", "stage3")
    mean: Tensor
    std: Tensor

    def __init__(self, widths: tuple[int, int, int] = (64, 256, 256), stem: int = 24) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.2470, 0.2435, 0.2616])[:, None, None], persistent=False)
        self.stem = nn.Conv2d(3, stem, 3, padding=1)  # the main directions of training patches, and their opposites
        self.stage1 = Stage(stem, widths[0])
        self.stage2 = Stage(widths[0], widths[1])
        self.stage3 = Stage(widths[1], widths[2])
        self.head = nn.Linear(widths[2], 10)

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs of the three stages, for images [B, 3, 32, 32] in [0, 1]."""
        first = self.stage1(F.relu(self.stem((x - self.mean) / self.std)))
        second = self.stage2(first)
        return first, second, self.stage3(second)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x)[-1].amax((2, 3)))
        return logits


class TimeBlock(nn.Module):
    """GroupNorm, SiLU, 3 x 3 convolution, twice, with a shortcut; `shift` [B, C] brings the timestep in between."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels, 1) if channels_in != channels else nn.Identity()
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + shift[:, :, None, None]
        out: Tensor = self.conv2(F.silu(self.norm2(h))) + self.shortcut(x)
        return out


class CifarUNet(nn.Module):
    """Predict the noise in a noisy image: x [B, 3, 32, 32] around [-1, 1], t [B] float -> epsilon [B, 3, 32, 32].

    `t` is the index 0..999 of the linear VP schedule (beta 1e-4..0.02, T = 1000); it is trained on t up to 400 only
    (four of five up to 210), which is where purification lives. The first convolution halves the image, so that all of
    the work happens at 16 x 16 and 8 x 8. The layers correct the best estimate that is a multiple of x (as in Karras et
    al. 2022): a network that has learnt nothing is already a linear denoiser.
    """

    frequencies: Tensor

    def __init__(
        self, channels: int = 96, wide: int = 192, time_channels: int = 64, data_variance: float = 0.25
    ) -> None:
        super().__init__()
        half = time_channels // 2
        frequencies = torch.exp(-math.log(10_000.0) / half * torch.arange(half, dtype=torch.float32))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.data_variance = data_variance
        self.shift_sizes = [channels, channels, wide, wide, wide, channels, channels]
        self.time1 = nn.Linear(time_channels, 2 * time_channels)
        self.time2 = nn.Linear(2 * time_channels, sum(self.shift_sizes))

        self.conv_in = nn.Conv2d(3, channels, 6, stride=2, padding=2)
        self.down1 = TimeBlock(channels, channels)
        self.down2 = TimeBlock(channels, channels)
        self.shrink = nn.Conv2d(channels, wide, 2, stride=2)
        self.middle1 = TimeBlock(wide, wide)
        self.middle2 = TimeBlock(wide, wide)
        self.middle3 = TimeBlock(wide, wide)
        self.grow = nn.ConvTranspose2d(wide, channels, 2, stride=2)
        self.up1 = TimeBlock(2 * channels, channels)
        self.up2 = TimeBlock(channels, channels)
        self.norm_out = nn.GroupNorm(8, channels)
        self.conv_out = nn.ConvTranspose2d(channels, 3, 6, stride=2, padding=2)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * self.frequencies
        embedding = F.silu(self.time1(torch.cat([angles.sin(), angles.cos()], dim=1)))
        shifts = self.time2(embedding).split(self.shift_sizes, dim=1)

        # The schedule's alpha bar in closed form (sum of the betas and of their squares' halves, within 1e-4).
        bar = torch.exp(-(1e-4 * (t + 1) + 0.0199 / 999 * t * (t + 1) / 2))[:, None, None, None]
        variance = bar * self.data_variance + 1 - bar
        linear = x * ((1 - bar).sqrt() / variance)
        scale = (bar * self.data_variance / variance).sqrt()

        high = self.down1(self.conv_in(x / variance.sqrt()), shifts[0])
        high = self.down2(high, shifts[1])
        low = self.middle1(self.shrink(high), shifts[2])
        low = self.middle2(low, shifts[3])
        low = self.middle3(low, shifts[4])
        high = self.up1(torch.cat([self.grow(low), high], dim=1), shifts[5])
        high = self.up2(high, shifts[6])
        epsilon: Tensor = linear + scale * self.conv_out(F.silu(self.norm_out(high)))
        return epsilon


def load_classifier(weights: Path = WEIGHTS) -> CifarClassifier:
    """The trained classifier, in eval mode."""
    model = CifarClassifier()
    model.load_state_dict({k: v.float() for k, v in load_file(weights / "classifier.safetensors").items()})
    return model.eval()


def load_unet(weights: Path = WEIGHTS) -> CifarUNet:
    """The trained UNet, in eval mode."""
    model = CifarUNet()
    model.load_state_dict({k: v.float() for k, v in load_file(weights / "unet.safetensors").items()})
    return model.eval()

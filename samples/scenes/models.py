"""A segmenter and a detector of scenes: two small convolutional networks."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

WEIGHTS = Path(__file__).with_name("weights")
#: Pixels between the cells of the detector.
STRIDE = 4


class Body(nn.Module):
    """image [B, 1, H, W] -> maps of 16 channels at full size, 32 at half and 64 at a quarter."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1), nn.ReLU())
        self.medium = nn.Sequential(nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
        self.coarse = nn.Sequential(
            nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 3, 1, 1),
            nn.ReLU(),
        )  # fmt: skip

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        full = self.fine(2.0 * image - 1.0)
        half = self.medium(full)
        return full, half, self.coarse(half)


class Segmenter(nn.Module):
    """image [B, 1, H, W] in [0, 1] -> logits [B, 11, H, W] of background and the ten digits."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Body()
        self.up_half, self.up_full = nn.Conv2d(96, 32, 3, 1, 1), nn.Conv2d(48, 24, 3, 1, 1)
        self.head = nn.Conv2d(24, 11, 1)

    def forward(self, image: Tensor) -> Tensor:
        full, half, quarter = self.body(image)
        h = F.relu(self.up_half(torch.cat([F.interpolate(quarter, scale_factor=2.0, mode="nearest"), half], 1)))
        h = F.relu(self.up_full(torch.cat([F.interpolate(h, scale_factor=2.0, mode="nearest"), full], 1)))
        logits: Tensor = self.head(h)
        return logits


class Detector(nn.Module):
    """image [B, 1, 48, 48] in [0, 1] -> boxes [B, 144, 4] in pixels and scores [B, 144, 10] in [0, 1].

    Each cell of 4 x 4 pixels says which digit has its middle there, and how far its four sides are.
    """

    middles: Tensor

    def __init__(self, size: int = 48) -> None:
        super().__init__()
        self.body = Body()
        self.head = nn.Sequential(nn.Conv2d(64, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 14, 1))
        nn.init.constant_(self.head[2].bias[4:], -4.0)  # type: ignore[index, arg-type]
        along = STRIDE * (torch.arange(size // STRIDE) + 0.5)
        ys, xs = torch.meshgrid(along, along, indexing="ij")
        self.register_buffer("middles", torch.stack([xs, ys], -1).reshape(1, -1, 2), persistent=False)

    def raw(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes as `forward`, and logits in place of scores."""
        found = self.head(self.body(image)[2]).flatten(2).transpose(1, 2)
        sides = 8.0 * F.softplus(found[..., :4])
        return torch.cat([self.middles - sides[..., :2], self.middles + sides[..., 2:]], -1), found[..., 4:]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        boxes, logits = self.raw(image)
        return boxes, torch.sigmoid(logits)


def load(name: str) -> nn.Module:
    """``segmenter`` or ``detector`` with its trained weights, in eval mode."""
    model: nn.Module = Segmenter() if name == "segmenter" else Detector()
    model.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return model.eval()


def load_segmenter() -> nn.Module:
    """The trained segmenter."""
    return load("segmenter")


def load_detector() -> nn.Module:
    """The trained detector."""
    return load("detector")

"""The CIFAR-10 UNet of DDPM (Ho et al. 2020), 35.7 M parameters, with random weights: speed does not depend on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from edgepure_export.bundle.writer import export_bundle


class DdpmUnet(torch.nn.Module):
    """diffusers' UNet2DModel in the configuration of google/ddpm-cifar10-32, as ``epsilon(x, t)``."""

    def __init__(self) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.unet: Any = UNet2DModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=(128, 256, 256, 256),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
            act_fn="silu",
            attention_head_dim=None,
        )

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        epsilon: torch.Tensor = self.unet(x, t, return_dict=False)[0]
        return epsilon


class PooledClassifier(torch.nn.Module):
    """A stand-in classifier: only the diffusion model is measured."""

    def __init__(self, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.features = torch.nn.Sequential(torch.nn.Conv2d(channels, 16, 3, stride=2, padding=1), torch.nn.ReLU())
        self.head = torch.nn.Linear(16, classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(image).mean(dim=(2, 3)))
        return logits


def build(out: Path) -> tuple[Path, DdpmUnet]:
    """Export the random network (once: a bundle that is already there and loads is used again)."""
    torch.manual_seed(0)
    unet, classifier = DdpmUnet().eval(), PooledClassifier().eval()
    if not (out / "bundle.json").exists():
        export_bundle(
            classifier,
            unet,
            out,
            image_size=32,
            channels=3,
            blocks=["features"],
            presets={
                "heterogeneous": {
                    "method": {
                        "method": "heterogeneous",
                        "variant": "official",
                        "t_l": 200,
                        "t_s": 100,
                        "ddim_steps": 50,
                        "U": 3,
                    },
                    "mask": {"area": 0.5},
                }
            },
            check_epsilon=False,
            name="ddpm-cifar10-random-weights",
        )
    return out, unet

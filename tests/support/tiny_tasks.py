"""Tiny networks of the three kinds of tasks, and bundles of them, for 3 x 8 x 8 images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models
import torch
from torch import Tensor, nn

from edgepure_export import Task, export_bundle

PRESETS: dict[str, Any] = {
    "uniform": {"method": {"method": "uniform", "t_star": 60, "steps": 2, "sampler": "ddim"}},
    "heterogeneous": {
        "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 1, "stage2_steps": 1},
        "mask": {"threshold": 0.4},
    },
}


class Segmenter(nn.Module):
    """Logits of three classes at half the resolution, in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.body = tiny_models.TinyClassifier().stem
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            self.head = nn.Conv2d(6, 3, 3, 2, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"aux": image, "out": 4.0 * self.head(self.body(image))}


class Detector(nn.Module):
    """A candidate for each of 4 x 4 cells: boxes around them, scores of two classes."""

    def __init__(self, labelled: bool = False, relative: bool = False) -> None:
        super().__init__()
        self.labelled, self.relative = labelled, relative
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(4)
            self.conv = nn.Conv2d(3, 6, 3, 2, 1)
        ys, xs = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        self.register_buffer("centres", 2.0 * torch.stack([xs, ys], -1).reshape(1, 16, 2) + 1.0)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        found = self.conv(image).flatten(2).transpose(1, 2)
        half = 1.0 + torch.sigmoid(found[..., :2])
        boxes = torch.cat([self.centres - half, self.centres + half], -1)
        scores = torch.sigmoid(4.0 * found[..., 4:])
        if self.labelled:
            best, labels = scores.max(-1)
            return best, boxes, labels
        return (boxes / 8.0 if self.relative else boxes), scores


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = tiny_models.TinyClassifier()

    def forward(self, image: Tensor) -> Tensor:
        h: Tensor = self.network.body(self.network.stem(4.0 * (image - 0.5)))
        return h.mean((2, 3), keepdim=True)


TASKS = {
    "segmentation": Task("segmentation", Segmenter(), ("sky", "road", "car"), {"logits": "out"}),
    "detection": Task("detection", Detector(), ("cat", "dog"), settings={"score": 0.4, "most": 5}),
    "embedding": Task("embedding", Embedder()),
}


def make(out: Path, task: Task, **changes: Any) -> Path:
    given: dict[str, Any] = {"presets": {"uniform": PRESETS["uniform"]}, "image_size": tiny_models.SIZE, "threads": 1}
    return export_bundle(None, tiny_models.TinyUNet(), out, task=task, **{**given, **changes})

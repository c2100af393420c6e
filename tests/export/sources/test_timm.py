"""timm's data configs: what the exported preprocessing gives, beside the library's own evaluation transform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from codes import raises_code
from PIL import Image
from torch import nn

from edgepure_export.sources.preprocessing import Preprocessed
from edgepure_export.sources.scheme import SourceText
from edgepure_export.sources.timm import read_transform

timm = pytest.importorskip("timm")
BASE = {"input_size": (3, 48, 48), "interpolation": "bicubic", "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.25)}


class Network(nn.Module):
    """Anything with a config."""

    def __init__(self, **config: Any) -> None:
        super().__init__()
        self.pretrained_cfg = {**BASE, **config}


@pytest.mark.parametrize("size", [(61, 61), (70, 100)])
@pytest.mark.parametrize(
    "config",
    [
        {"crop_pct": 0.875},
        {"crop_pct": 0.95, "interpolation": "bilinear"},
        {"crop_pct": 1.0},
        {"crop_pct": 0.9, "interpolation": "lanczos"},
        {"crop_pct": 0.9, "interpolation": "random"},
        {"crop_pct": 0.9, "crop_mode": "squash"},
        {"crop_pct": 1.0, "crop_mode": "squash"},
        {"crop_pct": 0.9, "crop_mode": "border"},
        {"crop_pct": 0.8, "input_size": (3, 32, 56)},
        {},
    ],
    ids=str,
)
def test_the_librarys_own_transform(config: dict[str, Any], size: tuple[int, int]) -> None:
    network = Network(**config)
    data = timm.data.resolve_model_data_config(network)
    source = SourceText("timm:x", "timm", "x", {"resize": "crop"})
    if config.get("crop_mode") == "border" and size[0] != size[1]:
        with raises_code("E-preprocessing-bars"):
            read_transform(timm, network, source, size)
        return
    ours = Preprocessed(nn.Identity(), read_transform(timm, network, source, size).fitted("crop", None), size)
    if data["interpolation"] == "random":
        data["interpolation"] = "bilinear"
    theirs = timm.data.create_transform(**data, is_training=False)
    coarse = np.random.default_rng(0).integers(40, 216, (7, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    wanted = theirs(image)
    x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
    std = torch.tensor(data["std"])[:, None, None]
    assert float(((ours.preprocess(x)[0] - wanted) * std).abs().max()) <= 2.1 / 255


def test_the_whole_image_is_shown_unless_asked_otherwise() -> None:
    transform = read_transform(timm, Network(crop_pct=0.8), SourceText("timm:x", "timm", "x", {}), (64, 64))
    assert transform.fitted("library", None).steps((64, 64)) == ((48, 48), (48, 48))
    assert transform.fitted("crop", None).steps((64, 64)) == ((60, 60), (48, 48))
    assert transform.fitted("none", None).steps((64, 64)) == ((64, 64), (64, 64))


def test_a_crop_mode_that_nobody_knows() -> None:
    with raises_code("E-preprocessing-crop"):
        read_transform(timm, Network(crop_mode="swirl"), SourceText("timm:x", "timm", "x", {}))

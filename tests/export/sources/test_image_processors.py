"""The exported preprocessing against the image processors of transformers themselves, whatever their switches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from codes import raises_code
from PIL import Image
from torch import nn

from edgepure_export.sources.image_processors import load_processor, read_processor
from edgepure_export.sources.preprocessing import Preprocessed
from edgepure_export.sources.scheme import SourceText

transformers = pytest.importorskip("transformers")
SOURCE = SourceText("transformers:x", "transformers", "x", {})
EDGE = {"shortest_edge": 48}
BOTH = {"height": 48, "width": 48}
CROP = {"height": 40, "width": 40}
#: Processor class -> settings of its file; what is left out takes the class's own default.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ViT": ("ViTImageProcessor", {"size": BOTH}),
    "ViT, other numbers": (
        "ViTImageProcessor",
        {"size": BOTH, "resample": 3, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]},
    ),
    "ViT, not normalised": ("ViTImageProcessor", {"size": BOTH, "do_normalize": False}),
    "ViT, 0..255": ("ViTImageProcessor", {"size": BOTH, "do_rescale": False, "do_normalize": False}),
    "ViT, 0..255 normalised": (
        "ViTImageProcessor",
        {"size": BOTH, "do_rescale": False, "image_mean": [120.0] * 3, "image_std": [60.0] * 3},
    ),
    "ViT, other factor": ("ViTImageProcessor", {"size": BOTH, "rescale_factor": 1 / 127.5, "do_normalize": False}),
    "ViT, not resized": ("ViTImageProcessor", {"do_resize": False}),
    "ViT, wide": ("ViTImageProcessor", {"size": {"height": 32, "width": 56}}),
    "ConvNeXt, small": ("ConvNextImageProcessor", {"size": EDGE, "crop_pct": 0.8}),
    "ConvNeXt, own crop": ("ConvNextImageProcessor", {"size": EDGE}),
    "ConvNeXt, large": ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "ConvNeXt, not resized": ("ConvNextImageProcessor", {"do_resize": False, "size": {"shortest_edge": 384}}),
    "CLIP": ("CLIPImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "CLIP, no crop": ("CLIPImageProcessor", {"size": EDGE, "do_center_crop": False}),
    "CLIP, crop alone": ("CLIPImageProcessor", {"do_resize": False, "crop_size": CROP}),
    "BiT": ("BitImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "DeiT": ("DeiTImageProcessor", {"size": BOTH, "crop_size": CROP}),
    "BEiT": ("BeitImageProcessor", {"size": BOTH, "do_center_crop": False}),
    "EfficientNet": ("EfficientNetImageProcessor", {"size": BOTH}),
    "EfficientNet, no top": ("EfficientNetImageProcessor", {"size": BOTH, "include_top": False}),
    "EfficientNet, offset": (
        "EfficientNetImageProcessor",
        {"size": BOTH, "rescale_offset": True, "rescale_factor": 1 / 127.5},
    ),
    "EfficientNet, nearest": ("EfficientNetImageProcessor", {"size": BOTH, "resample": 0}),
    "MobileViT": ("MobileViTImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "MobileViT, RGB": ("MobileViTImageProcessor", {"size": EDGE, "crop_size": CROP, "do_flip_channel_order": False}),
    "MobileViT, padded": ("MobileViTImageProcessor", {"size": {"shortest_edge": 36}, "crop_size": CROP}),
    "MobileNet V1": ("MobileNetV1ImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "MobileNet V2": ("MobileNetV2ImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "LeViT": ("LevitImageProcessor", {"size": EDGE, "crop_size": CROP}),
    "PoolFormer": ("PoolFormerImageProcessor", {"size": EDGE, "crop_size": CROP, "crop_pct": 0.9}),
    "PVT": ("PvtImageProcessor", {"size": BOTH}),
    "SigLIP": ("SiglipImageProcessor", {"size": BOTH}),
}


def write(folder: Path, kind: str, settings: dict[str, Any]) -> Any:
    content = {"image_processor_type": kind, **settings}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))
    return load_processor(transformers, folder, content, SOURCE)


def picture(h: int, w: int, seed: int) -> Image.Image:
    """Coarse colours, as a photograph has them, from black to white."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((w, h), Image.Resampling.BILINEAR)


@pytest.mark.parametrize("case", CASES)
def test_every_switch_of_every_class(case: str, tmp_path: Path) -> None:
    theirs = write(tmp_path, *CASES[case])
    transform = read_processor(theirs, SOURCE)
    assert transform.mean is None or transform.std is not None
    for seed, (h, w) in enumerate([(52, 52), (61, 90)]):
        image = picture(h, w, seed)
        wanted = theirs(image, return_tensors="pt")["pixel_values"][0].float()
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        got = Preprocessed(nn.Identity(), transform.fitted("crop", None), (h, w)).preprocess(x)[0]
        std = torch.tensor(transform.std or (1.0,))[:, None, None]
        assert got.shape == wanted.shape
        assert float(((got - wanted) * std).abs().max()) <= 2.6 / 255, "8-bit rounding of each pass, and no more"


def test_a_switch_that_nobody_knows(tmp_path: Path) -> None:
    with raises_code("E-preprocessing-setting"):
        write(tmp_path, "ViTImageProcessor", {"size": BOTH, "do_sharpen": True})
    assert write(tmp_path, "ViTImageProcessor", {"size": BOTH, "do_sharpen": False}) is not None


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessor", {"size": {"shortest_edge": 48, "longest_edge": 60}}),
        (
            "CLIPImageProcessor",
            {"size": EDGE, "crop_size": CROP, "do_pad": True, "pad_size": {"height": 64, "width": 64}},
        ),
        ("PerceiverImageProcessor", {"size": BOTH}),
    ],
)
def test_what_a_transform_cannot_do_is_refused(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    with raises_code("E-preprocessing-step"):
        read_processor(write(tmp_path, kind, settings), SOURCE)


def test_settings_without_sense(tmp_path: Path) -> None:
    with raises_code("E-source-processor"):
        read_processor(write(tmp_path, "ViTImageProcessor", {"size": BOTH, "image_mean": [0.5, 0.5]}), SOURCE)

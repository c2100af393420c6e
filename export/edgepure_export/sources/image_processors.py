"""What an image processor of Hugging Face transformers does with an image, asked of the library's own object.

Each class has switches and defaults of its own, and some ignore switches that their file sets. So the colours are
measured: the processor is shown images of one colour, and what comes out is the same affine map of each channel
whichever switches made it. Size, crop and filter are read from its settings and then compared with what it makes of
random images of two sizes; whatever else a class does, it is refused and not left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from edgepure.errors import ExportError

from .preprocessing import Filter, Preprocessed, Transform
from .scheme import SourceText

#: Pillow's numbers of its resizing filters.
_PILLOW: dict[int, Filter] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
#: Below this size ConvNeXt's processor crops (its own constant).
_CONVNEXT_CROPS_BELOW = 384
#: LeViT's processor resizes to this multiple of its size.
_LEVIT = 256 / 224
#: What a processor's file may hold that says nothing about pixels.
_WITHOUT_EFFECT = frozenset(
    {
        "image_processor_type",
        "feature_extractor_type",
        "processor_class",
        "_valid_processor_keys",
        "data_format",
        "input_data_format",
        "return_tensors",
        "device",
        "disable_grouping",
        "use_fast",
        "use_square_size",
        "default_to_square",
        "do_convert_rgb",
        "do_reduce_labels",
        "reduce_labels",
        "image_processor",
        "size_divisor",
        "_processor_class",
        "transformers_version",
        "default_chunk_size",
        "num_labels",
    }
)
#: Switches that are read here, or whose effect is measured.
_KNOWN = frozenset(
    {
        "do_resize",
        "size",
        "resample",
        "do_center_crop",
        "crop_size",
        "crop_pct",
        "do_rescale",
        "rescale_factor",
        "rescale_offset",
        "offset",
        "do_normalize",
        "image_mean",
        "image_std",
        "do_flip_channel_order",
        "include_top",
        "do_pad",
        "pad_size",
        "size_divisibility",
        "do_grayscale",
    }
)
#: Pillow and torchvision round to whole 8-bit values after each pass of a filter.
_ROUNDING = 3.0 / 255
#: A processor's numbers may differ by this from the affine map that was measured, relative to its largest value.
_EXACT = 1e-4

Processor = Callable[[NDArray[np.uint8]], Tensor]


@dataclass(frozen=True)
class _Colours:
    """``y = (x - mean) / std`` for x in [0, 1], in the network's order of channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    bgr: bool


def load_processor(transformers: Any, folder: Path, settings: Mapping[str, Any], source: SourceText) -> Any:
    """The processor of a folder; no code of the folder is run.

    Raises:
        ExportError: a setting that the library's class does not have, or a class that it does not know.
    """
    try:
        found = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the library's own classes, and whatever a value of another type causes
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(
            f"{source.text}: transformers cannot use its preprocessor_config.json: {what}", code="E-source-processor"
        ) from error
    unknown = sorted(k for k, v in settings.items() if k not in _KNOWN | _WITHOUT_EFFECT and v not in (None, False))
    if unknown:
        raise ExportError(
            f"{source.text}: edgepure does not know the setting {unknown[0]!r} of its preprocessor_config.json; put "
            "the preprocessing into a module of your own (python:FILE.py:function)",
            code="E-preprocessing-setting",
        )
    return found


def read_processor(processor: Any, source: SourceText) -> Transform:
    """The transform of a processor.

    Raises:
        ExportError: it does something that a `Transform` cannot do.
    """
    settings = dict(processor.to_dict())

    def run(pixels: NDArray[np.uint8]) -> Tensor:
        found = processor(Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
        return torch.as_tensor(found)[0].float()

    try:
        shapes = _test_sizes(settings)
        colours = _measure(run, shapes[0])
        if colours is not None:
            for candidate in _candidates(settings):
                transform = replace(candidate, mean=colours.mean, std=colours.std, bgr=colours.bgr)
                if all(_agrees(run, transform, shape, seed) for seed, shape in enumerate(shapes)):
                    return _plain(transform)
    except ExportError:
        raise
    except Exception as error:  # settings that contradict each other: every class its own exception
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(
            f"{source.text}: its image processor cannot be used ({what}); check preprocessor_config.json",
            code="E-source-processor",
        ) from error
    raise ExportError(
        f"{source.text}: its {type(processor).__name__} does something to images that edgepure does not know; put the "
        "preprocessing into a module of your own (python:FILE.py:function)",
        code="E-preprocessing-step",
    )


def _test_sizes(settings: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Two sizes of images, from which a crop of the middle does not reach beyond the edge unless it always does."""
    if settings.get("do_resize"):
        return [(67, 90), (151, 120)]
    crop = settings.get("crop_size") if settings.get("do_center_crop") else None
    h, w = _height_width(crop) or (40, 40)
    return [(h + 13, w + 6), (h + 7, w + 31)]


def _measure(run: Processor, shape: tuple[int, int]) -> _Colours | None:
    """What happens to colours; None if it is no affine map of each channel."""

    def shown(*colour: int) -> NDArray[np.float64]:
        pixels = np.broadcast_to(np.array(colour, np.uint8), (*shape, 3)).copy()
        out = run(pixels).double()
        h, w = out.shape[-2:]
        return np.asarray(out[:, h // 2, w // 2])

    black = shown(0, 0, 0)
    if black.shape != (3,):
        return None
    columns = np.stack([shown(*(255 * (i == j) for j in range(3))) - black for i in range(3)], axis=1)
    largest = float(np.abs(columns).max())
    bgr = bool(np.abs(np.diag(columns)).min() < _EXACT * largest)
    order = [2, 1, 0] if bgr else [0, 1, 2]
    slopes = columns[range(3), order]
    others = columns.copy()
    others[range(3), order] = 0.0
    grey = shown(90, 160, 201)
    expected = black + slopes * np.array([90, 160, 201])[order] / 255
    scale = max(largest, float(np.abs(black).max()))
    if (
        np.abs(slopes).min() == 0
        or np.abs(others).max() > _EXACT * scale
        or np.abs(grey - expected).max() > _EXACT * scale
    ):
        return None
    # + 0.0 makes 0 of -0
    return _Colours(tuple(map(float, 0.0 - black / slopes)), tuple(map(float, 1.0 / slopes)), bgr)


def _candidates(settings: Mapping[str, Any]) -> Iterator[Transform]:
    """Readings of the settings for size, crop and filter, the usual one first."""
    number = settings.get("resample")
    filter = _PILLOW.get(2 if number is None else int(number), "bilinear")
    crop = _height_width(settings.get("crop_size")) if settings.get("do_center_crop") else None
    for floors in (True, False):
        base = Transform(crop, filter=filter, floors=floors)
        if not settings.get("do_resize"):
            yield replace(base, untouched=crop is not None)
            continue
        size = settings.get("size")
        size = dict(size) if isinstance(size, Mapping) else {"shortest_edge": size}
        edge, exact = size.get("shortest_edge"), _height_width(size)
        share = float(settings.get("crop_pct") or 224 / 256)
        if edge:
            yield replace(base, resized=int(edge))
            if "crop_pct" in settings and int(edge) < _CONVNEXT_CROPS_BELOW:
                yield replace(base, size=(int(edge), int(edge)), resized=int(int(edge) / share))
            yield replace(base, size=(int(edge), int(edge)), resized=None)
            yield replace(base, resized=int(_LEVIT * int(edge)))
            yield replace(base, resized=int(int(edge) / share))
        if exact is not None:
            yield replace(base, resized=exact) if crop is not None else replace(base, size=exact)
            yield replace(base, resized=int(exact[0] / share))


def _agrees(run: Processor, transform: Transform, shape: tuple[int, int], seed: int) -> bool:
    """Whether both make the same of a random image. Its colours keep away from black and white, at which filters that
    overshoot are cut off after each pass."""
    pixels = np.random.default_rng(seed).integers(64, 192, (*shape, 3), dtype=np.uint8)
    theirs = run(pixels)
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    ours = Preprocessed(nn.Identity(), transform, shape).preprocess(image)[0]
    if ours.shape != theirs.shape:
        return False
    std = torch.tensor(transform.std or (1.0,))[:, None, None]
    return float(((ours - theirs) * std).abs().max()) <= _ROUNDING


def _plain(transform: Transform) -> Transform:
    """Numbers as people write them: rounding of float32 taken off; no normalisation where nothing changes."""
    mean, std = (tuple(_short(v) for v in values or ()) for values in (transform.mean, transform.std))
    if all(m == 0.0 for m in mean) and all(s == 1.0 for s in std):
        return replace(transform, mean=None, std=None)
    return replace(transform, mean=mean, std=std)


def _short(value: float) -> float:
    short = float(f"{value:.6g}")
    return short if abs(short - value) <= 1e-7 * max(1.0, abs(value)) else value


def _height_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    return None

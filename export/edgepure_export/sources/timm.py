"""The scheme ``timm``: classifiers of timm by name.

Options: ``weights`` (a file or ``random``; default: the pretrained weights), ``entry`` (of a file with several sets of
weights), ``num_classes``, ``resize`` (`preprocessing.RESIZES`), ``size``, and ``variant=official``: what the
purification authors' ImageNet code shows its classifier, the image as it is, neither resized nor normalised.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

from torch import nn

from edgepure.errors import ExportError

from .library import LIBRARY_OPTIONS, check_options, finished, known_filter, library, nearest
from .offline import downloading
from .preprocessing import Transform
from .random_weights import with_random_weights
from .scheme import ClassifierSource, SourceText, classifier_scheme, load_file


@classifier_scheme("timm")
def timm_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``timm:NAME``, for example ``timm:resnet50.a1_in1k``."""
    check_options(source, *LIBRARY_OPTIONS)
    timm = library("timm", source)
    name, weights = source.place, source.options.get("weights")
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(name):
        raise ExportError(
            f"timm has no model {name!r}{nearest(name, timm.list_models())}", code="E-source-model-unknown"
        )
    number = source.number("num_classes")
    options: dict[str, Any] = {} if number is None else {"num_classes": number}

    def build(pretrained: bool = False) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model

    if source.random:
        network = with_random_weights(build)
    elif weights is not None:
        network = build()
        load_file(network, weights, source.options.get("entry"))
    else:
        with downloading(source.text, f"download the weights elsewhere and give {source.scheme}:{name}?weights=FILE"):
            network = build(pretrained=True)
    return finished(
        source, network, read_transform(timm, network, source, image_size), image_size, _classes(timm, network)
    )


def read_transform(
    timm: ModuleType, network: nn.Module, source: SourceText, image_size: tuple[int, int] | None = None
) -> Transform:
    """What timm does with an image when it evaluates this network.

    Raises:
        ExportError: borders, which only an image of another shape would get, or an unknown switch of the data config.
    """
    data = timm.data.resolve_model_data_config(network)
    unknown = sorted(set(data) - {"input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode"})
    if unknown:
        raise ExportError(
            f"{source.text!r}: edgepure does not know {unknown[0]!r} of its data config", code="E-preprocessing-setting"
        )
    h, w = (int(n) for n in data["input_size"][1:])
    share, mode = float(data["crop_pct"] or timm.data.DEFAULT_CROP_PCT), data["crop_mode"] or "center"
    if mode not in ("center", "squash", "border"):
        raise ExportError(
            f"{source.text!r}: edgepure does not know the crop mode {mode!r}", code="E-preprocessing-crop"
        )
    scaled = (math.floor(h / share), math.floor(w / share))
    barred = mode == "border" and image_size is not None and image_size[0] * w != image_size[1] * h
    if barred and source.options.get("resize") == "crop":
        raise ExportError(
            f"{source.text!r}: timm puts bars beside images that are not {h} x {w} or in proportion to it, which "
            "edgepure does not do; leave resize=crop out",
            code="E-preprocessing-bars",
        )
    return Transform(
        size=(h, w),
        resized=scaled[0] if mode == "center" and scaled[0] == scaled[1] else scaled,
        covers=mode != "squash",
        filter=known_filter(source, data["interpolation"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def _classes(timm: ModuleType, network: nn.Module) -> tuple[str, ...] | None:
    """ImageNet's names where the network has them; other data sets give numbers."""
    try:
        subset = timm.data.infer_imagenet_subset(network)
        if subset != "imagenet-1k":
            return None
        info = timm.data.ImageNetInfo(subset)
        return tuple(str(info.index_to_description(i)) for i in range(info.num_classes()))
    except (AttributeError, KeyError, OSError, ValueError):
        return None

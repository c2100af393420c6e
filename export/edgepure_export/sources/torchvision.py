"""The scheme ``torchvision``: its classifiers by name.

Options as those of `timm`; ``weights`` may also be the name of torchvision's own weights, such as ``IMAGENET1K_V1``. A
file that torchvision publishes, under its own name or with the hash that the name tells, counts as those weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgepure.errors import ExportError

from .library import LIBRARY_OPTIONS, check_options, finished, known_filter, library, nearest
from .offline import downloading
from .preprocessing import Transform
from .random_weights import with_random_weights
from .scheme import ClassifierSource, SourceText, classifier_scheme, load_file

#: Networks that are built for one size of images, and the argument that tells it.
_SIZE_ARGUMENT = {"vit": "image_size", "maxvit": "input_size"}
#: Networks whose published weights undo the usual normalisation inside.
_TRANSFORM_INPUT = ("googlenet", "inception_v3")


@classifier_scheme("torchvision")
def torchvision_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``torchvision:NAME``, for example ``torchvision:resnet50?weights=IMAGENET1K_V1``."""
    check_options(source, *LIBRARY_OPTIONS)
    models = library("torchvision.models", source)
    name, weights = source.place, source.options.get("weights")
    names = models.list_models(module=models)
    if name not in names:
        raise ExportError(
            f"torchvision.models has no classifier {name!r}{nearest(name, names)}", code="E-source-model-unknown"
        )
    published = models.get_model_weights(name)
    chosen = published.__members__.get(weights or "DEFAULT")
    if weights is not None and chosen is None and not source.random and not Path(weights).exists():
        raise ExportError(
            f"{source.text!r}: weights={weights} is neither a file nor one of torchvision's weights of {name}, "
            f"{', '.join(published.__members__)}",
            code="E-source-weights-unknown",
        )
    if chosen is None and weights is not None and not source.random:
        meant = _published_file(Path(weights), list(published))
    else:
        meant = chosen if not source.random else None
    number = source.number("num_classes")
    if number is not None and chosen is not None and not source.random and number != len(chosen.meta["categories"]):
        raise ExportError(
            f"{source.text!r}: torchvision's weights have {len(chosen.meta['categories'])} classes; give num_classes "
            "with weights of your own",
            code="E-source-classes",
        )
    arguments = {
        **constructor_arguments(name, meant, source.number("size")),
        **({} if number is None else {"num_classes": number}),
    }

    def build() -> nn.Module:
        # Some old models initialise slowly unless told not to care.
        slow = {"init_weights": source.random} if name in _TRANSFORM_INPUT else {}
        model: nn.Module = models.get_model(name, weights=None, **slow, **arguments)
        return model

    if source.random:
        network = with_random_weights(build)
    else:
        network = build()
        if chosen is None:
            assert weights is not None
            load_file(network, weights, source.options.get("entry"))
        else:
            file = chosen.url.rsplit("/", 1)[-1]
            hint = f"download {file} elsewhere and give {source.scheme}:{name}?weights=FILE"
            cached = Path(torch.hub.get_dir()) / "checkpoints" / file
            with downloading(source.text, hint, None if cached.is_file() else chosen.url):
                network.load_state_dict(chosen.get_state_dict(progress=False, check_hash=True))
    like = meant or published.DEFAULT
    classes = tuple(like.meta.get("categories", ()))
    return finished(
        source,
        network,
        read_transform(like.transforms(), source),
        image_size,
        classes if number in (None, len(classes)) else None,
    )


def constructor_arguments(name: str, weights: Any | None, size: int | None = None) -> dict[str, Any]:
    """What torchvision's builder of a network passes on with these weights of its own; ``size``: of other images."""
    arguments: dict[str, Any] = {}
    argument = _SIZE_ARGUMENT.get(name.partition("_")[0])
    if argument is not None and weights is not None:
        h, w = weights.meta["min_size"]
        arguments[argument] = h if argument == "image_size" else (h, w)
    elif argument is not None and size is not None:
        arguments[argument] = size if argument == "image_size" else (size, size)
    if name in _TRANSFORM_INPUT and weights is not None:
        arguments["transform_input"] = True
    return arguments


def read_transform(preset: Any, source: SourceText) -> Transform:
    """What the transforms of torchvision's weights do.

    Raises:
        ExportError: they are of another kind, or have a switch that edgepure does not know.
    """
    settings: Mapping[str, Any] = vars(preset)
    own = {k for k in settings if not k.startswith("_") and k not in ("training",)}
    unknown = own - {"crop_size", "resize_size", "mean", "std", "interpolation", "antialias"}
    if unknown or type(preset).__name__ != "ImageClassification":
        raise ExportError(
            f"{source.text!r}: edgepure does not know {', '.join(sorted(unknown)) or 'the class'} of torchvision's "
            f"transforms {type(preset).__name__}",
            code="E-preprocessing-setting",
        )
    crop, resized = list(preset.crop_size), list(preset.resize_size)
    return Transform(
        size=(crop[0], crop[-1]),
        resized=resized[0] if len(resized) == 1 else (resized[0], resized[1]),
        filter=known_filter(source, preset.interpolation.value),
        antialias=bool(preset.antialias),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _published_file(file: Path, published: list[Any]) -> Any | None:
    """The weights of torchvision that this file is: by its name, or by the hash that their names end with."""
    for weights in published:
        if file.name == weights.url.rsplit("/", 1)[-1]:
            return weights
    hashes = {m[1]: w for w in published if (m := re.search(r"-([0-9a-f]{8,})\.[a-z]+$", w.url))}
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while block := stream.read(1 << 22):
            digest.update(block)
    return next((w for start, w in hashes.items() if digest.hexdigest().startswith(start)), None)

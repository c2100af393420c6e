"""Classifiers by name or file: the schemes ``timm``, ``torchvision`` and ``robustbench-wrn``.

Options of the two libraries: ``weights`` (a file, ``random``, or with torchvision the name of its weights such as
``IMAGENET1K_V1``; default: the library's pretrained weights), ``num_classes``, ``resize`` (`preprocessing.RESIZES`),
``size``, and ``variant=official``: what the purification authors' ImageNet code shows its classifier, the image as it
is, neither resized nor normalised.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from edgepure.errors import ExportError

from ..networks import wideresnet
from ..networks.load import load_wideresnet
from .offline import downloading
from .preprocessing import RESIZES, Preprocessed, Transform, describe
from .random_weights import with_random_weights
from .resolve import ClassifierSource, SourceText, classifier_scheme, describe_file, load_file

#: Options of the schemes of classifier libraries.
LIBRARY_OPTIONS = ("weights", "num_classes", "resize", "size", "variant")
#: The size that RobustBench's networks pool from.
_WRN_SIZE = (32, 32)


@classifier_scheme("timm")
def timm_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``timm:NAME``, for example ``timm:resnet50.a1_in1k``."""
    check_options(source, *LIBRARY_OPTIONS)
    timm = library("timm", source)
    name, weights = source.place, source.options.get("weights")
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(name):
        raise ExportError(f"timm has no model {name!r}{nearest(name, timm.list_models())}")
    number = source.number("num_classes")
    options: dict[str, Any] = {} if number is None else {"num_classes": number}

    def build(pretrained: bool = False) -> nn.Module:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
        return model

    if source.random:
        network = with_random_weights(build)
    elif weights is not None:
        network = build()
        load_file(network, weights)
    else:
        with downloading(source.text, f"download the weights elsewhere and give {source.scheme}:{name}?weights=FILE"):
            network = build(pretrained=True)
    data = timm.data.resolve_model_data_config(network)
    return finished(
        source,
        network,
        Transform(
            size=tuple(data["input_size"][1:]),
            crop_share=1.0 if data.get("crop_mode") == "squash" else float(data.get("crop_pct") or 1.0),
            filter=known_filter(source, data.get("interpolation")),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
        ),
        image_size,
        _timm_classes(timm, network),
    )


@classifier_scheme("torchvision")
def torchvision_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``torchvision:NAME``, for example ``torchvision:resnet50?weights=IMAGENET1K_V1``."""
    check_options(source, *LIBRARY_OPTIONS)
    models = library("torchvision.models", source)
    name, weights = source.place, source.options.get("weights")
    names = models.list_models(module=models)
    if name not in names:
        raise ExportError(f"torchvision.models has no classifier {name!r}{nearest(name, names)}")
    published = models.get_model_weights(name)
    chosen = published.__members__.get(weights or "DEFAULT")
    if weights is not None and chosen is None and not source.random and not Path(weights).exists():
        raise ExportError(
            f"{source.text!r}: weights={weights} is neither a file nor one of torchvision's weights of {name}, "
            f"{', '.join(published.__members__)}"
        )
    number = source.number("num_classes")
    options: dict[str, Any] = {} if number is None else {"num_classes": number}

    def build() -> nn.Module:
        # Some old models initialise slowly unless told not to care.
        slow = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        model: nn.Module = models.get_model(name, weights=None, **slow, **options)
        return model

    if source.random:
        network = with_random_weights(build)
    else:
        network = build()
        if weights is not None and chosen is None:
            load_file(network, weights)
        else:
            assert chosen is not None
            hint = f"download {chosen.url.rsplit('/', 1)[-1]} elsewhere and give {source.scheme}:{name}?weights=FILE"
            cached = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rsplit("/", 1)[-1]
            with downloading(source.text, hint, None if cached.is_file() else chosen.url):
                network.load_state_dict(chosen.get_state_dict(progress=False, check_hash=True))
    usual = (chosen or published.DEFAULT).transforms()
    size = usual.crop_size[0]
    classes = tuple((chosen or published.DEFAULT).meta.get("categories", ()))
    return finished(
        source,
        network,
        Transform(
            size=(size, size),
            crop_share=min(1.0, size / usual.resize_size[0]),
            filter=known_filter(source, usual.interpolation.value),
            mean=tuple(usual.mean),
            std=tuple(usual.std),
        ),
        image_size,
        classes if number in (None, len(classes)) else None,
    )


@classifier_scheme("robustbench-wrn")
def robustbench_wrn(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``robustbench-wrn:FILE``, a WideResNet of RobustBench in its Standard or DeepMind naming.

    Options: ``activation`` (silu or relu, of the DeepMind naming), ``mean`` and ``std`` (``0.49,0.48,0.45``), ``entry``
    (of a file with several sets of weights). ``robustbench-wrn:WRN-28-10?weights=random`` and ``DM-WRN-70-16`` make
    untrained networks.
    """
    source.allow("weights", "activation", "mean", "std", "entry")
    activation: Any = source.choice("activation", "silu", "relu")
    mean, std = (_numbers(source, name) for name in ("mean", "std"))
    network: nn.Module
    if source.random:
        found = re.fullmatch(r"(DM-)?WRN-(\d+)-(\d+)", source.place, re.IGNORECASE)
        if found is None:
            raise ExportError(
                f"{source.text!r}: with random weights name the architecture, WRN-28-10 (Standard) or DM-WRN-70-16"
            )
        kind = wideresnet.DMWideResNet if found[1] else wideresnet.WideResNet
        config = wideresnet.WideResNetConfig(int(found[2]), int(found[3]), activation=activation)
        network = with_random_weights(lambda: kind(config))
        origin = source.text
    else:
        if "weights" in source.options:
            raise ExportError(f"{source.text!r}: the file itself holds the weights; leave the weights option out")
        network = load_wideresnet(source.place, source.options.get("entry"), activation, mean, std)
        origin = describe_file(source, source.place)
    model: nn.Module = network
    preprocessing = "none"
    if image_size not in (None, _WRN_SIZE):
        transform = Transform(_WRN_SIZE)
        model, preprocessing = Preprocessed(network, transform, image_size), describe(transform)
    return ClassifierSource(model, origin, network=network, untrained=source.random, preprocessing=preprocessing)


def check_options(source: SourceText, *names: str) -> None:
    """Everything that can be wrong with a library's options, before anything is downloaded."""
    source.allow(*names)
    resize, size = source.choice("resize", *RESIZES), source.number("size")
    if source.choice("variant", "own", "official") == "official" and {"resize", "size"} & set(source.options):
        raise ExportError(f"{source.text!r}: variant=official shows the image as it is; leave resize and size out")
    if resize == "none" and size is not None:
        raise ExportError(f"{source.text!r}: resize=none and a size contradict each other")
    source.number("num_classes")


def finished(
    source: SourceText,
    network: nn.Module,
    transform: Transform,
    image_size: tuple[int, int] | None,
    classes: tuple[str, ...] | None,
    file: Path | None = None,
) -> ClassifierSource:
    """A library's network with its preprocessing, as the options ``resize``, ``size`` and ``variant`` say.

    ``file``: where its weights came from, if not from the option ``weights``.
    """
    weights = source.options.get("weights")
    if weights is not None and not source.random and Path(weights).is_file():
        file = Path(weights)
    origin = source.text if file is None else describe_file(source, file)
    resize = source.options.get("resize", RESIZES[0])
    if source.options.get("variant") == "official":
        transform = Transform(size=image_size or transform.size)
    elif resize == "none":
        transform = Transform(image_size or transform.size, mean=transform.mean, std=transform.std)
    else:
        transform = transform.fitted(resize, source.number("size"))
    model = Preprocessed(network, transform, image_size)
    model.eval()
    return ClassifierSource(model, origin, classes or None, network, source.random, describe(transform))


def library(name: str, source: SourceText) -> ModuleType:
    """An optional library, or one sentence about how to install it."""
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{source.text} needs the package {name.partition('.')[0]}, and {error.name or error} cannot be imported; "
            "install it with `pip install edgepure[models]`"
        ) from error


def nearest(name: str, names: list[str]) -> str:
    """The end of a sentence about an unknown name."""
    close = get_close_matches(name, names, n=5, cutoff=0.5)
    return f"; it has {', '.join(close)}" if close else ""


def known_filter(source: SourceText, name: str | None) -> Any:
    """The library's resizing filter under our name."""
    if name in (None, "bilinear", "bicubic", "nearest"):
        return name or "bilinear"
    if name == "random":  # timm: drawn during training, bilinear when evaluating
        return "bilinear"
    raise ExportError(f"{source.text!r} resizes with the filter {name!r}; choose resize=plain or resize=none")


def _timm_classes(timm: ModuleType, network: nn.Module) -> tuple[str, ...] | None:
    """ImageNet's names where the network has them; other data sets give numbers."""
    try:
        subset = timm.data.infer_imagenet_subset(network)
        if subset != "imagenet-1k":
            return None
        info = timm.data.ImageNetInfo(subset)
        return tuple(str(info.index_to_description(i)) for i in range(info.num_classes()))
    except (AttributeError, KeyError, OSError, ValueError):
        return None


def _numbers(source: SourceText, name: str) -> tuple[float, ...] | None:
    text = source.options.get(name)
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ExportError(f"{source.text!r}: {name}={text} must be numbers separated by commas") from None

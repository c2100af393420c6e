"""The scheme ``transformers``: image classifiers of Hugging Face transformers, from a folder or by name.

ResNet, ConvNeXt and ViT are the families whose attention blocks are found by themselves; any other image classifier can
be exported with its blocks named by hand. Options are those of `classifier_sources`, without ``num_classes``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from edgepure.errors import ExportError

from ..networks.checkpoints import read_checkpoint
from .classifiers import check_options, finished, known_filter, library
from .offline import downloading
from .preprocessing import Transform
from .random_weights import with_random_weights
from .resolve import ClassifierSource, SourceText, classifier_scheme, load_file

#: Files with weights, the preferred ones first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
#: Pillow's numbers of its resizing filters.
_PILLOW = {0: "nearest", 2: "bilinear", 3: "bicubic"}
#: Below this size ConvNeXt's processor crops (its own constant).
_CONVNEXT_CROPS_BELOW = 384


@classifier_scheme("transformers")
def transformers_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``transformers:PATH-or-NAME``, for example ``transformers:google/vit-base-patch16-224``."""
    check_options(source, "weights", "resize", "size", "variant")
    transformers = library("transformers", source)
    folder = Path(source.place)
    weights = source.options.get("weights")
    if not folder.is_dir():
        folder = _fetch(source, with_weights=weights is None)
    config = read_config(folder / "config.json", source)
    processor = read_config(folder / "preprocessor_config.json", source)
    try:
        parsed = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(parsed) not in transformers.AutoModelForImageClassification._model_mapping:
            raise ValueError(f"a {parsed.model_type} model does not classify images")
    except Exception as error:  # KeyError, ValueError, OSError, depending on the release
        what = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ExportError(f"{source.text}: transformers cannot use its config.json: {what}") from error

    def build() -> nn.Module:
        model: nn.Module = transformers.AutoModelForImageClassification.from_config(parsed)
        return model

    with config_in_use(source):
        if source.random:
            network = with_random_weights(build)
        elif weights is not None:
            network = build()
            load_file(network, weights)
        else:
            network = _pretrained(transformers, folder, source)
        used = None if "weights" in source.options else _weights_file(folder, source)
        labels = config.get("id2label") or {}
        classes = tuple(str(labels[key]) for key in sorted(labels, key=int))
        transform = read_transform(processor, source)
    return finished(source, network, transform, image_size, classes, used)


def read_transform(processor: Mapping[str, Any], source: SourceText) -> Transform:
    """What an image processor's config says."""
    kind = str(processor.get("image_processor_type", processor.get("feature_extractor_type", "")))
    if processor.get("do_rescale", True) and abs(float(processor.get("rescale_factor", 1 / 255)) * 255 - 1) > 1e-6:
        raise ExportError(f"{source.text}: its processor rescales by {processor['rescale_factor']}, expected 1/255")
    size, share = _size(processor, kind)
    if size is None:
        raise ExportError(f"{source.text}: its preprocessor_config.json names no size; give ?size=N")
    normalises = bool(processor.get("do_normalize", True))
    resample = processor.get("resample", 2)
    return Transform(
        size=size,
        crop_share=share,
        filter=known_filter(source, _PILLOW.get(resample, str(resample)) if isinstance(resample, int) else resample),
        mean=tuple(processor.get("image_mean", (0.485, 0.456, 0.406))) if normalises else None,
        std=tuple(processor.get("image_std", (0.229, 0.224, 0.225))) if normalises else None,
    )


def _size(processor: Mapping[str, Any], kind: str) -> tuple[tuple[int, int] | None, float]:
    """The network's input size and the share that the centre crop keeps."""
    size = processor.get("size")
    if isinstance(size, int):
        size = {"height": size, "width": size} if "ConvNext" not in kind else {"shortest_edge": size}
    if not isinstance(size, Mapping):
        return None, 1.0
    crop = processor.get("crop_size")
    if isinstance(crop, int):
        crop = {"height": crop, "width": crop}
    edge = size.get("shortest_edge")
    if processor.get("do_center_crop") and isinstance(crop, Mapping):
        hw = int(crop["height"]), int(crop["width"])
        return hw, min(1.0, min(hw) / float(edge or size.get("height") or min(hw)))
    if edge is not None:
        share = float(processor.get("crop_pct") or 224 / 256) if int(edge) < _CONVNEXT_CROPS_BELOW else 1.0
        return (int(edge), int(edge)), share if "ConvNext" in kind else 1.0
    if "height" in size and "width" in size:
        return (int(size["height"]), int(size["width"])), 1.0
    return None, 1.0


@contextmanager
def config_in_use(source: SourceText) -> Iterator[None]:
    """Around what is made of the json files of a model folder, which say anything: one sentence for what they cause.

    Raises:
        ExportError: whatever the library raises.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # a value of another type, a size without sense: each library its own class
        what = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ExportError(f"{source.text}: its json files describe no network ({what}); download it again") from error


def read_config(path: Path, source: SourceText) -> dict[str, Any]:
    """A json file of a model folder."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ExportError(f"{source.text}: {path.parent} has no {path.name}; download the whole model") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{source.text}: {path} cannot be read as json ({error}); download it again") from None
    if not isinstance(content, dict):
        raise ExportError(f"{source.text}: {path} holds a {type(content).__name__}, expected an object")
    return content


def _pretrained(transformers: Any, folder: Path, source: SourceText) -> nn.Module:
    """The network with the folder's weights: every key, or an error that lists the others."""
    file = _weights_file(folder, source)
    read_checkpoint(file)  # a web page, a cut-off download or code gets its own sentence; the tensors stay on the disk
    # The library renames the keys of older releases, which a plain load_state_dict would refuse.
    network, info = transformers.AutoModelForImageClassification.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, output_loading_info=True,
        use_safetensors=file.suffix == ".safetensors",
    )  # fmt: skip
    faults = [f"{kind.replace('_', ' ')} {', '.join(map(str, list(info.get(kind) or ())[:5]))}"
              for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(kind)]  # fmt: skip
    if faults:
        raise ExportError(f"the weights in {file} do not fit {type(network).__name__}: {'; '.join(faults)}")
    model: nn.Module = network.float().requires_grad_(False).eval()
    return model


def _weights_file(folder: Path, source: SourceText) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ExportError(
        f"{source.text}: the folder {folder} has no {' or '.join(WEIGHT_FILES)}; download the weights too, or give "
        "?weights=FILE"
    )


def _fetch(source: SourceText, with_weights: bool) -> Path:
    """The folder of a model by name, from the download cache or the network."""
    hub = library("huggingface_hub", source)
    patterns = ["config.json", "preprocessor_config.json"]
    if with_weights and not source.random:
        patterns += list(WEIGHT_FILES[:1])
    with downloading(source.text, f"download the model elsewhere and give {source.scheme}:FOLDER"):
        return Path(hub.snapshot_download(source.place, allow_patterns=patterns))

"""The scheme ``transformers``: image classifiers of Hugging Face transformers, from a folder or by name.

Options as those of `timm`, without ``num_classes``; ``entry`` may also be the variant of the weights (``fp16``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from edgepure.errors import ExportError, words_of

from ..networks.checkpoints import read_checkpoint
from .folder_weights import FolderWeights, find_weights
from .image_processors import load_processor, read_processor
from .library import check_options, config_in_use, finished, library, read_config
from .offline import downloading
from .random_weights import with_random_weights
from .scheme import ClassifierSource, SourceText, classifier_scheme, load_file

#: Files with weights, the preferred ones first.
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@classifier_scheme("transformers")
def transformers_classifier(source: SourceText, image_size: tuple[int, int] | None) -> ClassifierSource:
    """``transformers:PATH-or-NAME``, for example ``transformers:google/vit-base-patch16-224``."""
    check_options(source, "weights", "entry", "resize", "size", "variant")
    transformers = library("transformers", source)
    folder = Path(source.place)
    weights, entry = source.options.get("weights"), source.options.get("entry")
    if not folder.is_dir():
        folder = _fetch(source, with_weights=weights is None)
    config = read_config(folder / "config.json", source)
    settings = read_config(folder / "preprocessor_config.json", source)
    try:
        parsed = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if type(parsed) not in transformers.AutoModelForImageClassification._model_mapping:
            raise ValueError(f"a {parsed.model_type} model does not classify images")
    except Exception as error:  # KeyError, ValueError, OSError, depending on the release
        raise ExportError(
            f"{source.text}: transformers cannot use its config.json: {words_of(error)}", code="E-source-config"
        ) from error
    transform = read_processor(load_processor(transformers, folder, settings, source), source)

    def build() -> nn.Module:
        model: nn.Module = transformers.AutoModelForImageClassification.from_config(parsed)
        return model

    files: tuple[Path, ...] = ()
    with config_in_use(source):
        if source.random:
            network = with_random_weights(build)
        elif weights is not None:
            network = build()
            load_file(network, weights, entry)
        else:
            found = find_weights(folder, WEIGHT_FILES, source, entry)
            network, files = _pretrained(transformers, folder, found), found.files
        labels = config.get("id2label") or {}
        classes = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return finished(source, network, transform, image_size, classes, files)


def _pretrained(transformers: Any, folder: Path, weights: FolderWeights) -> nn.Module:
    """The network with the folder's weights: every key, or an error that lists the others."""
    for file in weights.files:
        read_checkpoint(
            file
        )  # a web page, a cut-off download or code gets its own sentence; the tensors stay on the disk
    # The library renames the keys of older releases, which a plain load_state_dict would refuse.
    network, info = transformers.AutoModelForImageClassification.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        output_loading_info=True,
        use_safetensors=weights.safetensors,
        variant=weights.variant,
    )
    faults = [
        f"{kind.replace('_', ' ')} {', '.join(map(str, list(info.get(kind) or ())[:5]))}"
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        if info.get(kind)
    ]
    if faults:
        raise ExportError(
            f"the weights in {weights.file} do not fit {type(network).__name__}: {'; '.join(faults)}; "
            "download the model again",
            code="E-checkpoint-keys",
        )
    model: nn.Module = network.float().requires_grad_(False).eval()
    return model


def _fetch(source: SourceText, with_weights: bool) -> Path:
    """The folder of a model by name, from the download cache or the network."""
    hub = library("huggingface_hub", source)
    configs = ["config.json", "preprocessor_config.json"]
    patterns = [
        ["model*.safetensors", "model.safetensors.index*.json"],
        ["pytorch_model*.bin", "pytorch_model.bin.index*.json"],
    ]
    hint = f"download the model elsewhere and give {source.scheme}:FOLDER"
    with downloading(source.text, hint):
        folder = Path(hub.snapshot_download(source.place, allow_patterns=configs))
        if with_weights and not source.random:
            for kinds in patterns:
                folder = Path(hub.snapshot_download(source.place, allow_patterns=[*configs, *kinds]))
                if any(folder.glob(kinds[0])):
                    break
    return folder

"""The scheme ``diffusers``: a UNet2DModel with its scheduler's config, from a folder or by name.

Both layouts are read: a pipeline (``unet/config.json``, ``scheduler/scheduler_config.json``) and a bare model
(``config.json``, ``scheduler_config.json``). The scheduler says what the network predicts and
the betas of its training.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor, nn

from edgepure.errors import ExportError
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec

from ..networks.checkpoints import StateDict, load_weights, read_checkpoint, state_dict_from
from ..networks.parametrisation import Prediction, to_epsilon
from .classifiers import library
from .offline import downloading
from .random_weights import with_random_weights
from .resolve import DiffusionSource, SourceText, describe_file, diffusion_scheme
from .transformers import config_in_use, read_config

WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
#: Names of attention weights in folders that were saved before diffusers 0.15.
_OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


class _Sample(nn.Module):
    """diffusers returns an object; a graph needs the tensor in it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        sample: Tensor = self.network(x, t, return_dict=False)[0]
        return sample


@diffusion_scheme("diffusers")
def diffusers_source(source: SourceText, schedule: NoiseSchedule) -> DiffusionSource:
    """``diffusers:DIR-or-NAME``, for example ``diffusers:google/ddpm-cifar10-32``; option ``weights``."""
    source.allow("weights")
    diffusers = library("diffusers", source)
    folder = Path(source.place)
    if not folder.is_dir():
        folder = _fetch(source)
    model_dir = folder / "unet" if (folder / "unet").is_dir() else folder
    if any((folder / part).exists() for part in ("vqvae", "vae", "text_encoder")):
        raise ExportError(f"{source.text} works in a latent space or needs a prompt; expected a UNet2DModel of pixels")
    config = read_config(model_dir / "config.json", source)
    scheduler_file = folder / "scheduler" / "scheduler_config.json"
    if not scheduler_file.is_file():
        scheduler_file = folder / "scheduler_config.json"
    scheduler = read_config(scheduler_file, source)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ExportError(f"{source.text} is a {config['_class_name']}, expected an unconditional UNet2DModel")
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        raise ExportError(f"{source.text} is class-conditional: purification needs an unconditional model")
    with config_in_use(source):
        trained, prediction = read_scheduler(scheduler, source)

    def build() -> nn.Module:
        known = set(inspect.signature(diffusers.UNet2DModel.__init__).parameters)
        with config_in_use(source):
            network: nn.Module = diffusers.UNet2DModel(**{k: _tuples(v) for k, v in config.items() if k in known})
        return network

    origin = source.text
    if source.random:
        network = with_random_weights(build)
    else:
        network = build()
        file = Path(source.options["weights"]) if "weights" in source.options else _weights_file(model_dir, source)
        state = modern_names(state_dict_from(read_checkpoint(file), str(file)))
        load_weights(network, state, str(file), "diffusers")
        origin = describe_file(source, file)
    with config_in_use(source):
        size = config.get("sample_size")
        height, width = (size, size) if isinstance(size, int) else (size or (0, 0))
        channels = int(config.get("in_channels", 3))
    return DiffusionSource(
        to_epsilon(_Sample(network), prediction, trained, runtime=schedule),
        origin,
        schedule.spec,
        network,
        (channels, int(height), int(width)) if height else None,
        untrained=source.random,
        description=f"diffusers UNet2DModel, {prediction}, {trained!r}",
    )


def read_scheduler(config: Mapping[str, Any], source: SourceText) -> tuple[NoiseSchedule, Prediction]:
    """The schedule of the training and what the network predicts.

    Raises:
        ExportError: no VP schedule (EDM, flow matching), or one without any signal at its end.
    """
    said = config.get("prediction_type", "epsilon")
    if said not in _PREDICTIONS:
        raise ExportError(f"{source.text}: prediction_type {said!r} is not known; expected {', '.join(_PREDICTIONS)}")
    prediction = cast(Prediction, _PREDICTIONS[said])
    if config.get("rescale_betas_zero_snr"):
        raise ExportError(f"{source.text}: a schedule with zero terminal SNR has no epsilon at its last timestep")
    betas = config.get("trained_betas")
    kind = config.get("beta_schedule")
    T = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    if betas is not None:
        return ScheduleSpec(kind="betas", timesteps=len(betas), betas=tuple(map(float, betas))).build(), prediction
    if kind in ("linear", "scaled_linear"):
        return ScheduleSpec(kind=kind, timesteps=T, beta_start=start, beta_end=end).build(), prediction
    if kind == "squaredcos_cap_v2":
        return ScheduleSpec(kind="cosine", timesteps=T).build(), prediction
    if kind == "sigmoid":
        ramp = np.linspace(-6.0, 6.0, T)
        values = (1.0 / (1.0 + np.exp(-ramp))) * (end - start) + start
        return NoiseSchedule(values), prediction
    raise ExportError(
        f"{source.text}: a {config.get('_class_name', 'scheduler')} with beta_schedule {kind!r} is not a VP schedule; "
        "expected linear, scaled_linear, squaredcos_cap_v2, sigmoid or trained_betas"
    )


def modern_names(state: StateDict) -> StateDict:
    """Attention weights under today's names; old folders have others, and 1x1 convolutions as matrices."""
    renamed: StateDict = {}
    for key, value in state.items():
        for old, new in _OLD_NAMES.items():
            if "attentions" in key and old in key:
                key = key.replace(old, new)
        renamed[key] = value
    return renamed


def _weights_file(folder: Path, source: SourceText) -> Path:
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    raise ExportError(f"{source.text}: the folder {folder} has no {' or '.join(WEIGHT_FILES)}: download it too")


def _fetch(source: SourceText) -> Path:
    hub = library("huggingface_hub", source)
    configs = ["*config.json", "unet/config.json", "scheduler/*config.json", "model_index.json"]
    weights = [] if "weights" in source.options else [f"{d}{WEIGHT_FILES[i]}" for d in ("", "unet/") for i in (0, 1)]
    with downloading(source.text, f"download the model elsewhere and give {source.scheme}:FOLDER"):
        return Path(hub.snapshot_download(source.place, allow_patterns=[*configs, *weights]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value

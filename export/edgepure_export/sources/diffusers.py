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

from ..networks.checkpoints import read_checkpoint
from ..networks.parametrisation import Prediction, to_epsilon
from ..networks.weights import StateDict, load_weights, state_dict_from
from .folder_weights import find_weights
from .library import config_in_use, library, read_config
from .offline import downloading
from .random_weights import with_random_weights
from .scheme import DiffusionSource, SourceText, diffusion_scheme, origin_of, weight_files

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
    """``diffusers:DIR-or-NAME``, for example ``diffusers:google/ddpm-cifar10-32``; options ``weights``, ``entry``."""
    source.allow("weights", "entry")
    diffusers = library("diffusers", source)
    folder = Path(source.place)
    if not folder.is_dir():
        folder = _fetch(source)
    model_dir = _model_folder(folder, source)
    if any((folder / part).exists() for part in ("vqvae", "vae", "text_encoder")):
        raise ExportError(
            f"{source.text} works in a latent space or needs a prompt; expected a UNet2DModel of pixels",
            code="E-source-latent",
        )
    config = read_config(model_dir / "config.json", source)
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        raise ExportError(
            f"{source.text} is a {config['_class_name']}, expected an unconditional UNet2DModel",
            code="E-source-unet",
        )
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        raise ExportError(
            f"{source.text} is class-conditional: purification needs an unconditional model",
            code="E-source-conditional",
        )
    scheduler = _scheduler(folder, source, schedule)
    with config_in_use(source):
        trained: NoiseSchedule = schedule
        prediction: Prediction = "epsilon"
        if scheduler is not None:
            trained, prediction = read_scheduler(scheduler, source)

    def build() -> nn.Module:
        known = set(inspect.signature(diffusers.UNet2DModel.__init__).parameters)
        with config_in_use(source):
            network: nn.Module = diffusers.UNet2DModel(**{k: _tuples(v) for k, v in config.items() if k in known})
        return network

    files: tuple[Path, ...] = ()
    if source.random:
        network = with_random_weights(build)
    else:
        network = build()
        entry = source.options.get("entry")
        if "weights" in source.options:
            file = Path(source.options["weights"])
            files = weight_files(file)
        else:
            variant = None if entry == model_dir.name else entry
            found = find_weights(model_dir, WEIGHT_FILES, source, variant)
            file, files, entry = found.file, found.files, None
        state = modern_names(state_dict_from(read_checkpoint(file), str(file), entry))
        load_weights(network, state, str(file), "diffusers")
    origin = origin_of(source, *files)
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
        raise ExportError(
            f"{source.text}: prediction_type {said!r} is not known; expected {', '.join(_PREDICTIONS)}",
            code="E-source-prediction",
        )
    prediction = cast(Prediction, _PREDICTIONS[said])
    if config.get("rescale_betas_zero_snr"):
        raise ExportError(
            f"{source.text}: a schedule with zero terminal SNR has no epsilon at its last timestep",
            code="E-source-terminal-snr",
        )
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
        "expected linear, scaled_linear, squaredcos_cap_v2, sigmoid or trained_betas",
        code="E-source-beta-schedule",
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


def _model_folder(folder: Path, source: SourceText) -> Path:
    """Where the network lies: ``unet`` of a pipeline, or the folder itself; ``entry`` names another one (``unet_ema``).

    Raises:
        ExportError: raw and averaged networks side by side, and no ``entry``.
    """
    entry = source.options.get("entry")
    if entry is not None and (folder / entry).is_dir() and Path(entry).name == entry:
        return folder / entry
    if not (folder / "unet").is_dir():
        return folder
    others = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "unet" and p.name.startswith("unet"))
    if others and entry is None and not source.random and "weights" not in source.options:
        raise ExportError(
            f"{source.text} holds several networks, unet, {', '.join(others)}; name one of them (?entry={others[0]})",
            code="E-source-entries",
        )
    return folder / "unet"


def _scheduler(folder: Path, source: SourceText, schedule: NoiseSchedule) -> dict[str, Any] | None:
    """The scheduler's config; None where there is none, and the schedule was given."""
    for place in (folder / "scheduler", folder, folder.parent / "scheduler"):
        if (place / "scheduler_config.json").is_file():
            return read_config(place / "scheduler_config.json", source)
    if source.schedule_given:
        return None
    raise ExportError(
        f"{source.text} has no scheduler_config.json, so nothing says which noise schedule it was trained with; "
        "download the whole model, or give the schedule of the training (--schedule linear), if it predicts epsilon",
        code="E-source-schedule-missing",
    )


def _fetch(source: SourceText) -> Path:
    hub = library("huggingface_hub", source)
    configs = ["*config.json", "unet/config.json", "scheduler/*config.json", "model_index.json"]
    names = ["diffusion_pytorch_model*"]
    weights = [] if "weights" in source.options else [f"{d}{name}" for d in ("", "unet/") for name in names]
    with downloading(source.text, f"download the model elsewhere and give {source.scheme}:FOLDER"):
        return Path(hub.snapshot_download(source.place, allow_patterns=[*configs, *weights]))


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value

"""From a checkpoint file of a known family to a network in the runtime's convention.

Settings that a file does not carry come from a preset, from a json file or dict, or from ``<file>.json`` beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from edgepure.errors import words_of
from edgepure.rows.schedule import NoiseSchedule

from . import edm, guided_config, guided_diffusion, ncsnpp, ncsnpp_config, wideresnet
from .checkpoints import CheckpointError, read_checkpoint
from .parametrisation import EpsilonModel
from .weights import refuse_content_of_family, state_dict_from

DiffusionFamily = Literal["guided-diffusion", "score-sde", "edm"]
Settings = Mapping[str, Any] | str | os.PathLike[str] | None


@dataclass(frozen=True)
class LoadedDiffusion:
    """A diffusion network, ready for export.

    Attributes:
        model: ``model(x [B, C, H, W] in [-1, 1], t [B]) -> eps``, [B, 2C, H, W] with learned-range variance.
        network: the family's own module inside ``model``.
        image_size, channels: of the images it was trained on.
        learned_range: True if ``model`` gives 2C channels.
        schedule: the noise schedule whose index ``t`` is.
        description: one line for `edgepure inspect`.
    """

    model: EpsilonModel
    network: nn.Module
    image_size: int
    channels: int
    learned_range: bool
    schedule: NoiseSchedule
    description: str


def load_diffusion(
    family: DiffusionFamily,
    file: str | os.PathLike[str],
    preset: str | None = None,
    settings: Settings = None,
    runtime: NoiseSchedule | None = None,
    key: str | None = None,
) -> LoadedDiffusion:
    """Load a checkpoint of one of the diffusion families.

    Args:
        family: scheme of the source.
        file: ``.pt``, ``.pth`` or ``.safetensors``.
        preset: name from the family's ``PRESETS``; None: inferred from the keys.
        settings: the original flags or config, as a dict or a json file; None: ``<file>.json`` if it exists.
        runtime: the schedule that the runtime will use; None: linear VP with T = 1000.
        key: entry of the file to take where it holds several sets of weights (not for score-sde: there it is the EMA).

    Raises:
        CheckpointError: whatever is wrong with the file, the preset or the settings, in one sentence.
    """
    if family not in get_args(DiffusionFamily):
        raise CheckpointError(
            f"unknown diffusion family {family!r}; expected {', '.join(get_args(DiffusionFamily))}",
            code="E-family-unknown",
        )
    source = str(file)
    if preset is not None and settings is not None:
        raise CheckpointError("give either a preset or settings, not both", code="E-checkpoint-preset-twice")
    content = read_checkpoint(file)
    # Before the settings: those beside a file of another family make no sense here and would be blamed instead.
    refuse_content_of_family(content, source, family)
    given = read_settings(file, settings) if preset is None else {}
    runtime = runtime or NoiseSchedule.linear()
    if family == "guided-diffusion":
        state = state_dict_from(content, source, key)
        if preset is not None:
            config = _preset(guided_config.PRESETS, preset)
        elif "num_channels" in given:
            config = guided_config.GuidedDiffusionConfig.from_flags(given)
        else:
            config = guided_config.infer_config(state, source, given)
        adm = guided_diffusion.from_state_dict(state, config, source)
        model = guided_diffusion.epsilon_model(adm, runtime)
        about = f"guided-diffusion UNet, {config}"
        return _loaded(model, config.image_size, config.channels, about, config.learn_sigma)
    if family == "score-sde":
        chosen = _preset(ncsnpp_config.PRESETS, preset) if preset is not None else None
        if chosen is None and given:
            chosen = ncsnpp_config.NCSNppConfig.from_json(given)
        song = ncsnpp.from_checkpoint(content, source, chosen)
        model = ncsnpp.epsilon_model(song, runtime)
        return _loaded(model, song.config.image_size, song.config.channels, f"score_sde network, {song.config}")
    if preset is not None:
        raise CheckpointError(
            "EDM checkpoints have no presets: their shape follows from the keys", code="E-checkpoint-preset-none"
        )
    if isinstance(content, Mapping) and isinstance(content.get("config"), Mapping) and "state_dict" in content:
        given, content = {**content["config"], **given}, content["state_dict"]
    network, precond = edm.from_state_dict(state_dict_from(content, source, key), source, given)
    about = f"{type(network).__name__} with {precond.kind} preconditioning, {network.config}"
    model = edm.EdmEpsilon(network, precond, runtime)
    return _loaded(model, network.config.img_resolution, network.config.in_channels, about)


def load_wideresnet(
    file: str | os.PathLike[str],
    key: str | None = None,
    activation: wideresnet.Activation = "silu",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> wideresnet.WideResNet | wideresnet.DMWideResNet:
    """A RobustBench WideResNet: images [B, 3, H, W] in [0, 1] -> logits. ``key``: entry of the file to take."""
    source = str(file)
    return wideresnet.from_state_dict(
        state_dict_from(read_checkpoint(file), source, key), source, activation, mean, std
    )


def read_settings(file: str | os.PathLike[str], settings: Settings) -> dict[str, Any]:
    """``settings`` as a dict; a json file may hold it under "flags" or "config"."""
    if isinstance(settings, Mapping):
        return dict(settings)
    beside = [Path(f"{os.fspath(file)}.json"), Path(file).with_suffix(".json")]
    path = Path(settings) if settings is not None else next((p for p in beside if p.is_file()), None)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(
            f"settings {path} cannot be read: {error.strerror}; check the path and its permissions",
            code="E-checkpoint-settings-read",
        ) from error
    except ValueError as error:
        raise CheckpointError(
            f"settings {path} are not valid json: {words_of(error)}; correct the file",
            code="E-checkpoint-settings-json",
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"settings {path} hold {type(content).__name__}; expected an object with the flags",
            code="E-checkpoint-settings-object",
        )
    inner: Any = content.get("flags", content.get("config", content))
    if not isinstance(inner, dict):
        raise CheckpointError(
            f"settings {path}: expected an object with the flags, found {type(inner).__name__}",
            code="E-checkpoint-settings-object",
        )
    return inner


def _preset(presets: Mapping[str, Any], name: str) -> Any:
    if name not in presets:
        raise CheckpointError(
            f"unknown preset {name!r}; expected one of {', '.join(presets)}", code="E-checkpoint-preset-unknown"
        )
    return presets[name]


def _loaded(
    model: EpsilonModel, image_size: int, channels: int, description: str, learned_range: bool = False
) -> LoadedDiffusion:
    return LoadedDiffusion(model, model.network, image_size, channels, learned_range, model.schedule, description)

"""The presets of an export: parsed, named as a bundle names them, and compiled once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edgepure.bundle.manifest import PresetName
from edgepure.errors import ConfigError, ExportError
from edgepure.images.spec import ImageSpec
from edgepure.methods import HeterogeneousSpec, UniformSpec
from edgepure.methods.planner import Planner
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.rows.schedule import NoiseSchedule


def parsed_presets(
    presets: Mapping[str, Preset | Mapping[str, Any]] | None, schedule: NoiseSchedule, has_blocks: bool
) -> dict[str, Preset]:
    """Those that were given, or the defaults for a schedule.

    Raises:
        ExportError: there are none. ConfigError: a name or a preset is wrong.
    """
    if presets is None:
        scale = len(schedule) / 1000.0
        t_star, t_l = max(2, round(100 * scale)), max(4, round(200 * scale))
        ddim = UniformSpec(t_star=t_star, steps=min(10, t_star), sampler="ddim")
        chosen = {"uniform": Preset(method=ddim, description="the whole image, DDIM")}
        if has_blocks:
            two_levels = HeterogeneousSpec(t_l=t_l, t_s=t_l // 2)
            chosen["heterogeneous"] = Preset(
                method=two_levels, mask=MaskSpec(area=0.15), description="strong noise where the classifier looks"
            )
        return chosen
    if not presets:
        raise ExportError("`presets` is empty; give at least one, or None for the defaults", code="E-presets-empty")
    for name in presets:
        try:
            TypeAdapter(PresetName).validate_python(name)
        except ValidationError:
            raise ConfigError(
                f"preset name {name!r}: use letters, digits, '.', '_' and '-', at most 100", code="E-preset-name"
            ) from None
    return {key: preset if isinstance(preset, Preset) else _parse(key, preset) for key, preset in presets.items()}


def _parse(name: str, data: Mapping[str, Any]) -> Preset:
    try:
        return Preset.parse(dict(data))
    except ConfigError as error:
        raise ConfigError(f"preset {name!r}: {str(error).removeprefix('preset: ')}", code=error.code) from None


def check_presets(presets: Mapping[str, Preset], schedule: NoiseSchedule, image: ImageSpec, learned: bool) -> None:
    """Compile every plan now: a timestep out of range must not be found on the device.

    Raises:
        ExportError: a preset needs a learned variance that is not exported. ConfigError: it does not fit the schedule.
    """
    planner = Planner(schedule, int(np.prod(image.shape)))
    for key, preset in presets.items():
        if planner.plan(preset).learned_variance and not learned:
            raise ExportError(
                f"preset {key!r} uses the network's learned variance, but this export has none; "
                "choose variance 'fixed_small'",
                code="E-learned-variance-preset",
            )
        planner.probe(preset)

"""From score norms to the parameters of SSNI (arXiv 2506.06027), for both reweighting functions.

``mu``, ``xi_min`` and ``xi_max`` are the papers' statistics of clean images. What the papers tune by hand follows from
one wish: an image with the norm ``f`` gets (nearly) the whole noise level t*, and everything above it no less. ``f`` is
the largest clean norm; for the sigmoid attacked images make it smaller if more than 5 % of them lie below it, so that
95 % of the attacks meet the whole noise. ``b`` stays 0: with more, images would get more noise and cost more UNet calls
than the preset says, and the weakest noise is what `SsniSpec.minimum` is for.
"""

from __future__ import annotations

import math

import numpy as np

from edgepure.bundle.calibration import Calibration, LinearReweighting, SigmoidReweighting
from edgepure.errors import ConfigError
from edgepure.methods.presets import Preset
from edgepure.methods.ssni import SsniSpec, reference_statistics

from .statistics import Norms, rounded

#: Weight of the sigmoid at the norm ``f``: it reaches 1 only at infinity.
FULL_WEIGHT = 0.95
#: Share of the attacked images that may get less than t*.
LENIENT = 0.05


def fit_sigmoid(clean: Norms, attacked: Norms | None) -> SigmoidReweighting:
    """``mu``: mean clean norm. ``tau``: clean standard deviation, or less where ``f`` (see above) is close to ``mu``.

    Raises:
        ConfigError: all norms are the same.
    """
    mu, spread = reference_statistics(clean.tolist())["mu"], float(clean.std(ddof=1))
    if spread <= 1e-9 * mu:
        raise ConfigError(
            f"the score norms of all {len(clean)} clean images are the same ({mu:g}), so the diffusion model does not "
            "look at its input; run `edgepure verify` on the bundle",
            code="E-norms-equal",
        )
    full = float(clean.max())
    if attacked is not None and mu < float(np.quantile(attacked, LENIENT)) < full:
        full = float(np.quantile(attacked, LENIENT))
    tau = min(spread, (full - mu) / math.log(FULL_WEIGHT / (1.0 - FULL_WEIGHT)))
    return SigmoidReweighting(mu=rounded(mu), tau=rounded(tau))


def fit_linear(clean: Norms, attacked: Norms | None) -> LinearReweighting:
    """``xi_min``: smallest clean norm. ``xi_max``: the norm that only 5 % of the attacked images are below, or the
    largest clean norm where attacks do not stand out or are not known.

    Norms beyond ``xi_max`` get more than t*, in proportion, so without attacked images strong attacks get far more.
    """
    found = reference_statistics(clean.tolist())
    high = found["xi_max"]
    if attacked is not None and float(np.quantile(attacked, LENIENT)) > found["mu"]:
        high = float(np.quantile(attacked, LENIENT))
    return LinearReweighting(xi_min=rounded(found["xi_min"]), xi_max=rounded(high))


def with_ssni(preset: Preset, calibration: Calibration, reweighting: str = "sigmoid", minimum: float = 0.4) -> Preset:
    """The preset with calibrated SSNI.

    Args:
        preset: if it has SSNI already, its reweighting, ``minimum`` and ``levels`` stay.
        calibration: gives the probe and the parameters; its ``bias`` is a fraction of the preset's noise level.
        reweighting: ``sigmoid`` or ``linear``, for a preset without SSNI.
        minimum: weakest noise as a fraction of the noise level, for a preset without SSNI. Not 0: an attacker who
            imitates a clean score norm still meets this much.
    """
    old = preset.ssni
    kind = old.reweighting if old is not None else reweighting
    kept = {"minimum": old.minimum, "levels": old.levels} if old is not None else {"minimum": minimum}
    values = calibration.linear if kind == "linear" else calibration.sigmoid
    parameters = values.model_dump()
    bias = rounded(parameters.pop("bias") * preset.method.top_level)
    ssni = SsniSpec.model_validate(
        {"reweighting": kind, "probe": calibration.chosen, "bias": bias, **kept, **parameters}
    )
    return preset.model_copy(update={"ssni": ssni})

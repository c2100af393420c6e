"""Every system of the CIFAR-10 trial that purifies: at the papers' settings, and at equal cost.

Names end in the UNet calls of one purification. SSNI is written on top of two of them by `ssni_presets`, once the score
norms of clean images are known.
"""

from __future__ import annotations

from typing import Any

from edgepure import EpsSpec
from edgepure.methods import published_preset

#: The noise level of the cheap presets, and the share of pixels that the heterogeneous ones attend; T_L and T_S keep
#: the papers' ratio of 2. Chosen on training images (`python -m samples.cifar10.trial.pilot`): the level that keeps
#: most attacked images among those that keep about nine of ten clean ones.
T_STAR, T_L, T_S, AREA = 80, 100, 50, 0.3
MASK = {"rule": "minmax", "area": AREA}
VOTES = {"count": 5, "rule": "majority"}
DEFAULT = "heterogeneous-6"
#: Noise level at which SSNI looks at an image: one UNet call.
PROBE = EpsSpec(levels=(10.0,))


def uniform(steps: int, sampler: str = "ddpm", t_star: int = T_STAR) -> dict[str, Any]:
    """DiffPure in so many calls."""
    if sampler == "sde":
        step = t_star / 1000 / steps * 1.0001  # a little longer, so that rounding adds no call
        return {"method": {"method": "uniform", "t_star": t_star, "sampler": "sde", "sde_step": step}}
    return {"method": {"method": "uniform", "t_star": t_star, "steps": steps, "sampler": sampler}}


def heterogeneous(
    first: int, second: int, resample: str = "none", U: int = 3, variant: str = "paper"
) -> dict[str, Any]:
    """Divide and Conquer with `first` and `second` steps in its stages."""
    method = {
        "method": "heterogeneous",
        "t_l": T_L,
        "t_s": T_S,
        "stage1_steps": first,
        "stage2_steps": second,
        "resample": resample,
        "U": U,
        "eta": 1.0,
        "variant": variant,
    }
    return {"method": method, "mask": MASK}


def equal_cost() -> dict[str, dict[str, Any]]:
    """The cheap presets: 1, 3, 6, 10 and 20 calls."""
    gdmp = {
        "method": "gdmp",
        "respacing": "25",
        "purify_steps": 3,
        "rounds": 2,
        "guide_scale": 200.0,
        "variance": "fixed_small",
    }
    gnsp = {"method": "gnsp", "max_timesteps": [15, 30, 60], "num_denoising_steps": [1, 2, 3], "clip": True}
    repaint = {"method": "repaint", "respacing": "25", "t_T": 3, "jump_length": 1, "jump_n_sample": 2}
    return {
        "heterogeneous-6": heterogeneous(2, 2, "single"),
        "one-call": uniform(1),
        "uniform-3": uniform(3),
        "uniform-6": uniform(6),
        "uniform-10": uniform(10),
        "uniform-20": uniform(20),
        "uniform-ddim-6": uniform(6, "ddim"),
        "uniform-sde-6": uniform(6, "sde"),
        "heterogeneous-none-3": heterogeneous(1, 2),
        "heterogeneous-none-6": heterogeneous(3, 3),
        "heterogeneous-multi-6": heterogeneous(2, 2, "multi", U=1),
        "heterogeneous-official-none-6": heterogeneous(3, 3, variant="official"),
        "heterogeneous-official-6": heterogeneous(3, 3, "single", variant="official"),
        "heterogeneous-10": heterogeneous(3, 4, "single"),
        "heterogeneous-20": heterogeneous(7, 6, "single"),
        "repaint-5": {"method": repaint, "mask": {"rule": "minmax", "area": 0.6}},
        "gdmp-6": {"method": gdmp},
        "gnsp-6": {"method": gnsp},
    }


def papers() -> dict[str, dict[str, Any]]:
    """The published CIFAR-10 settings: 100 calls, one vote."""
    diffpure, official = (
        published_preset("cifar10-diffpure-linf").data(),
        published_preset("cifar10-dhni-official").data(),
    )
    ddpm = {"method": {"method": "uniform", "t_star": 100, "sampler": "ddpm"}}
    return {"papers-diffpure-100": diffpure, "papers-heterogeneous-100": official, "papers-ddpm-100": ddpm}


def fixed_presets() -> dict[str, dict[str, Any]]:
    """All presets without SSNI, the default one first; the cheap ones that have no votes of their own take five."""
    return {**{name: {"votes": VOTES, **preset} for name, preset in equal_cost().items()}, **papers()}


def ssni_presets(mean: float, std: float, low: float, high: float) -> dict[str, dict[str, Any]]:
    """SSNI with both reweightings on the two main methods.

    Args:
        mean, std: of the score norms of clean training images.
        low, high: their 1 % and 99 % quantiles, for the linear reweighting.
    """
    sigmoid = {"reweighting": "sigmoid", "mu": round(mean, 3), "tau": round(std, 3)}
    linear = {"reweighting": "linear", "xi_min": round(low, 3), "xi_max": round(high, 3)}
    common = {"probe": PROBE, "minimum": 0.4, "levels": 16}
    hosts = {"uniform-6": uniform(6), "heterogeneous-6": heterogeneous(2, 2, "single")}
    return {
        f"{host}-ssni-{kind}": {"votes": VOTES, **preset, "ssni": {**ssni, **common}}
        for host, preset in hosts.items()
        for kind, ssni in (("sigmoid", sigmoid), ("linear", linear))
    }

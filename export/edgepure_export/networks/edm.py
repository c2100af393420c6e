"""EDM networks (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models").

A denoiser ``D(x; sigma) = c_skip x + c_out F(c_in x; c_noise)`` around a raw network F, for ``x = x_0 + sigma * n``
(table 1 of the paper). At VP index t: ``sigma = sqrt((1 - alpha_bar) / alpha_bar)``, ``x = x_t / sqrt(alpha_bar)``, and

    eps = (x - D) / sigma = ((1 - c_skip) / sigma) x - (c_out / sigma) F

`EdmEpsilon` evaluates the right-hand side with its factors in closed form, so that nothing cancels at small noise.

A checkpoint is a state dict (keys of SongUNet or DhariwalUNet, with or without ``model.`` before them) and, unless it
has the "edm" preconditioning, a config such as ``{"precond": "vp"}``. The published pickles run code when loaded; save
``net.state_dict()`` in the program that opens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from edgepure.rows.schedule import NoiseSchedule

from .checkpoints import CheckpointError
from .edm_unets import DhariwalUNet, SongUNet, infer_config
from .parametrisation import EpsilonModel, NoiseLevels
from .weights import load_weights, refuse_family, strip_prefixes

Kind = Literal["edm", "vp", "ve"]

#: Names of the original classes.
_CLASSES = {"EDMPrecond": "edm", "VPPrecond": "vp", "VEPrecond": "ve"}


@dataclass(frozen=True)
class Preconditioning:
    """The scalings of table 1. ``sigma_data`` is used by "edm"; ``beta_d``, ``beta_min`` and ``steps`` (M) by "vp"."""

    kind: Kind = "edm"
    sigma_data: float = 0.5
    beta_d: float = 19.9
    beta_min: float = 0.1
    steps: int = 1000

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Preconditioning:
        """From a json config: ``precond`` or ``class_name``, and the fields above (``M`` for ``steps``)."""
        name = str(config.get("precond", config.get("class_name", "edm")))
        name = _CLASSES.get(name.rsplit(".", 1)[-1], name).lower()
        if name not in get_args(Kind):
            raise CheckpointError(
                f"EDM preconditioning {name!r} is not supported; expected edm, vp or ve", code="E-edm-preconditioning"
            )
        given = {k: config[k] for k in ("sigma_data", "beta_d", "beta_min") if k in config}
        return cls(kind=name, steps=int(config.get("M", 1000)), **given)  # type: ignore[arg-type]

    def inputs(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_in and c_noise for ``sigma``, of its shape."""
        if self.kind == "edm":
            return torch.rsqrt(sigma * sigma + self.sigma_data**2), sigma.log() / 4
        if self.kind == "vp":
            # (sqrt(beta_min^2 + twice) - beta_min) / beta_d, without the cancellation at small noise.
            twice = 2 * self.beta_d * torch.log1p(sigma * sigma)
            time = twice / (torch.sqrt(self.beta_min**2 + twice) + self.beta_min) / self.beta_d
            return torch.rsqrt(sigma * sigma + 1), (self.steps - 1) * time
        return torch.ones_like(sigma), (0.5 * sigma).log()

    def outputs(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out for ``sigma``, of its shape."""
        if self.kind == "edm":
            total = sigma * sigma + self.sigma_data**2
            return self.sigma_data**2 / total, sigma * self.sigma_data * torch.rsqrt(total)
        return torch.ones_like(sigma), -sigma if self.kind == "vp" else sigma

    def epsilon_factors(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(1 - c_skip) / sigma and -c_out / sigma, without cancellation."""
        if self.kind == "edm":
            total = sigma * sigma + self.sigma_data**2
            return sigma / total, -self.sigma_data * torch.rsqrt(total)
        sign = 1.0 if self.kind == "vp" else -1.0
        return torch.zeros_like(sigma), torch.full_like(sigma, sign)


class EdmEpsilon(EpsilonModel):
    """The raw network F in the runtime's convention: ``(x_t, t) -> eps``, t an index of ``schedule``."""

    def __init__(self, network: nn.Module, precond: Preconditioning, schedule: NoiseSchedule | None = None) -> None:
        schedule = schedule or NoiseSchedule.linear()
        super().__init__(network, schedule)
        self.precond = precond
        self.levels = NoiseLevels(schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, _, sigma = self.levels(t)
        c_in, c_noise = self.precond.inputs(sigma)
        raw: Tensor = self.network((c_in / signal) * x, c_noise.flatten())
        of_x, of_raw = self.precond.epsilon_factors(sigma)
        return (of_x / signal) * x + of_raw * raw if self.precond.kind == "edm" else of_raw * raw


def from_state_dict(
    state: Mapping[str, Tensor], source: str = "the state dict", config: Mapping[str, Any] | None = None
) -> tuple[SongUNet | DhariwalUNet, Preconditioning]:
    """Raw network (in evaluation mode) and preconditioning.

    The architecture follows from the keys and shapes; ``config`` may state it too (``model_type``, ``img_resolution``,
    ``channel_mult``, ...) and is then checked against them.
    """
    config = config or {}
    precond = Preconditioning.from_config(config)
    state = strip_prefixes(state)
    refuse_family(state, source, "edm")
    if "u" in state:
        raise CheckpointError(
            f"{source} has the iDDPM preconditioning; expected edm, vp or ve", code="E-edm-preconditioning"
        )
    kind, shape = infer_config(state, source)
    _refuse_contradiction(kind.__name__, {k: getattr(shape, k) for k in shape.__dataclass_fields__}, config, source)
    with torch.device("meta"):
        network = kind(shape)
    return load_weights(network, state, source, "edm"), precond


def _refuse_contradiction(kind: str, found: Mapping[str, Any], config: Mapping[str, Any], source: str) -> None:
    """Raise CheckpointError where ``config`` says something else than the weights."""
    found = {**found, "model_type": kind}
    if config.get("label_dim"):
        raise CheckpointError(
            f"the config of {source} has label_dim: purification needs an unconditional model",
            code="E-checkpoint-conditional",
        )
    for key, said in config.items():
        if key in found and (tuple(said) if isinstance(said, list) else said) != found[key]:
            raise CheckpointError(
                f"the config of {source} says {key} = {said!r}, but the weights have {found[key]!r}",
                code="E-edm-config",
            )

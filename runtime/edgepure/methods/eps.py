"""Expected perturbation score (EPS) of an image: the probe of SSNI (arXiv 2506.06027) and of EPS-AD (Zhang 2023).

``EPS = mean over probes k of score(x_k, s_k)``, ``score = -eps / sigma(s)``, ``x_k`` the input noised to time s_k of
the VP-SDE. The rows accumulate it in ``x``, which starts at zero; its Euclidean norm is the score norm of the image.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ..errors import ConfigError
from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from .spec import MethodSpec


class EpsSpec(MethodSpec):
    """Which noise levels to probe.

    Schedules without a VP-SDE (cosine, scaled_linear, betas) are probed at the nearest timestep.
    ``probes = N`` probes s = 1/T .. N/T, the papers' choice (20 on CIFAR-10, 50 on ImageNet). ``levels`` gives them by
    hand, in timesteps (s = level / T). ``perturb = False`` feeds the input as it is: no noise, no scaling.
    """

    method: Literal["eps"] = "eps"
    probes: int = Field(20, ge=1, le=1000)
    levels: tuple[Annotated[float, Field(gt=0.0)], ...] | None = None
    perturb: bool = True
    label: Literal["continuous", "index"] = Field(
        "continuous",
        description="network label: 999*s as score_sde, or the index s*T - 1 of discretely trained nets",
    )

    @model_validator(mode="after")
    def _not_empty(self) -> EpsSpec:
        if self.levels is not None and not self.levels:
            raise ConfigError("`levels` is empty; name at least one timestep to probe", code="E-eps-levels")
        return self

    @property
    def unet_calls(self) -> int:
        """UNet calls of the probe."""
        return len(self.visited)

    @property
    def visited(self) -> tuple[float, ...]:
        """The noise levels that are probed, in timesteps."""
        return self.levels if self.levels is not None else tuple(float(k) for k in range(1, self.probes + 1))

    def same_rows(self, other: EpsSpec) -> bool:
        """True if both measure the same norm: ``probes`` says nothing beside ``levels``."""
        return (self.visited, self.perturb, self.label) == (other.visited, other.perturb, other.label)

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """Rows that leave the EPS vector in ``x``."""
        levels = self.visited
        T = len(schedule)
        builder = RowBuilder("eps")
        for level in levels:
            schedule.check(int(level) - 1, "probe level - 1 =")
            s = level / T
            if schedule.has_sde:
                alpha, sigma = schedule.sde.alpha_bar(s) ** 0.5, schedule.sde.sigma(s)
            else:  # no continuous marginal is known: the nearest timestep's
                nearest = max(round(level) - 1, 0)
                alpha, sigma = schedule.sqrt_alpha_bar(nearest), schedule.sigma(nearest)
            if self.perturb:
                builder.diffuse_ref(alpha, sigma, level, source="probe")
            else:
                builder.diffuse_ref(1.0, 0.0, level, source="probe")
            label = (T - 1) * s if self.label == "continuous" else level - 1.0
            builder.call(
                label,
                alpha=alpha,
                sigma=sigma,
                stage="probe",
                next_level=level,
                out_x=1.0,
                out_eps=-1.0 / (sigma * len(levels)),
            )
        return builder.finish(start="zeros", levels={"probes": float(len(levels))})

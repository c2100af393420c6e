"""Two noises with a certificate: strong inside the attention mask, weaker outside, the mask from a noised copy.

The certified cousin of the heterogeneous method. The information ``1 / sigma^2`` that a certificate allows is split:
a ``share`` of it is spent on a first, strongly noised copy, the rest on a second one, which only the outside sees::

    x = denoise(x_adv + 2 sigma_1 n_1, sigma_1)          sigma_1 = sigma / sqrt(share)
    mask = attention(x)                                  so it depends on x_adv through the first copy alone
    z = mask * (x + 2 sigma_2 n_2) + (1 - mask) * (x_adv + 2 sigma_2 n_2)
    x = denoise(z, sigma_2)                              sigma_2 = sigma / sqrt(1 - share)

A mask that follows from a noised copy is what Adaptive Randomized Smoothing certifies (Lyu et al., NeurIPS 2024,
arXiv 2406.10427: a budget split between two steps). `docs/certificates.md` has the proof for rows.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from ..rows.builder import RowBuilder
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from . import smooth
from .spec import MethodSpec, PositiveInt, clip_bound


class SplitSpec(MethodSpec):
    """Certified noise ``sigma`` on images in [0, 1]; ``share`` of its information goes to the copy that gives the mask.

    ``strong_steps`` UNet calls purify that copy, ``weak_steps`` what is put together; ``eta`` as in `SmoothSpec`.
    """

    needs_mask: ClassVar[bool] = True
    mask_of_view: ClassVar[bool] = True

    method: Literal["split"] = "split"
    sigma: float = Field(0.25, gt=0.0, le=10.0)
    share: float = Field(0.25, gt=0.0, lt=1.0)
    strong_steps: PositiveInt = 1
    weak_steps: PositiveInt = 1
    eta: float = Field(1.0, ge=0.0, le=1.0)
    clip: bool = Field(True, description="clip the x0 estimate to [-1, 1]")

    @property
    def top_level(self) -> float:
        return self.sigma

    def scaled(self, factor: float, timesteps: int = 1000) -> SplitSpec | None:
        """Never above ``sigma``: that is the noise which a certificate names."""
        sigma = self.sigma * min(factor, 1.0)
        return self.model_copy(update={"sigma": sigma}) if sigma > 0.0 else None

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        strong, weak = self.sigma / math.sqrt(self.share), self.sigma / math.sqrt(1.0 - self.share)
        clip = clip_bound(self.clip)
        builder = RowBuilder("split").diffuse_ref(*smooth.start(schedule, strong))
        smooth.denoise(builder, schedule, strong, self.strong_steps, eta=self.eta, clip=clip, stage="mask")
        mask_from = len(builder.rows)
        again = smooth.start(schedule, weak)
        builder.jump(*again).inject_outside(*again)
        smooth.denoise(builder, schedule, weak, self.weak_steps, eta=self.eta, clip=clip)
        levels = {"sigma": self.sigma, "inside": strong, "outside": weak}
        return builder.finish(levels=levels, mask_from=mask_from)

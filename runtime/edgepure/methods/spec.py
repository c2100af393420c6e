"""What a method is: a spec with its parameters, which compiles itself to rows.

A method is one file with one subclass of `MethodSpec`. `edgepure.methods.registry` lists edgepure's own, and those that
other packages add by the entry-point group ``edgepure.methods``.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from ..errors import ConfigError
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from ..validation import Entry
from .choices import Choices

#: Which of two readings: the paper's text, or the authors' published code.
Variant = Literal["paper", "official"]

PositiveInt = Annotated[int, Field(ge=1)]
Timestep = Annotated[int, Field(ge=0)]


class MethodSpec(Entry):
    """Parameters of one purification method. Unknown keys are errors, so a misspelt t never passes in silence.

    A subclass gives ``method`` a ``Literal`` with its name as type and default, and writes `compile`, `top_level` and
    `scaled`. The rest has a default.
    """

    #: True if the method treats the inside and the outside of the attention mask differently.
    needs_mask: ClassVar[bool] = False
    #: True if its plans have `edgepure.rows.Plan.mask_from`: the attention mask is that of a state on the way.
    mask_of_view: ClassVar[bool] = False

    method: str

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        """The rows of the method.

        Args:
            schedule: the noise schedule of the diffusion model.
            elements: C*H*W of one image (GDMP's guidance averages over it).

        Raises:
            ConfigError: a noise level lies outside the schedule, or parameters contradict each other.
        """
        raise NotImplementedError

    @property
    def top_level(self) -> float:
        """The strongest noise level of the method; SSNI scales it for each image."""
        raise NotImplementedError

    def scaled(self, factor: float, timesteps: int = 1000) -> MethodSpec | None:
        """The same method with every noise level multiplied by ``factor`` in [0, ...); None if no noise is left.

        The result always compiles for a schedule of ``timesteps`` (T) steps: levels are clipped to what the method can
        start from. For a factor of at most 1 it never costs more UNet calls.
        """
        raise NotImplementedError

    def surrogate(self, calls: int) -> MethodSpec | None:
        """The same noise levels in about ``calls`` UNet calls, for attacks that differentiate a short version.

        None: there is none of its own, so one uniform DDIM round from the highest timestep of its rows stands in.
        """
        return None

    @classmethod
    def search_space(cls) -> Choices | None:
        """What tuning may choose for this method; None: it is not searched."""
        return None


def clip_bound(clip: bool) -> float:
    """x0 is clipped to [-1, 1], or not at all."""
    return 1.0 if clip else math.inf


def scale_level(level: int, factor: float, maximum: int) -> int:
    """A noise level times an SSNI factor, rounded half to even and clipped to the schedule."""
    return min(max(round(level * factor), 0), maximum)


def scale_steps(steps: int, old_level: int, new_level: int) -> int:
    """Keep the spacing of the grid: a lower noise level needs proportionally fewer UNet calls."""
    if new_level <= 0:
        return 0
    return max(1, min(new_level, math.ceil(steps * new_level / old_level)))


def require(condition: bool, message: str, *, code: str) -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(message, code=code)

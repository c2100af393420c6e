"""From a preset to the plan of one image, with the plans kept: images with the same noise level share one."""

from __future__ import annotations

from functools import lru_cache

from ..errors import ConfigError
from ..rows.plan import Plan
from ..rows.schedule import NoiseSchedule
from .presets import Preset
from .spec import MethodSpec
from .ssni import adapted

#: The plan of an image that SSNI gives no noise: it passes as it is, at no UNet call.
UNTOUCHED = Plan("untouched", (), notes=("the score norm asks for no noise: the image passes unpurified",))


class Planner:
    """Compiles presets for one bundle."""

    def __init__(self, schedule: NoiseSchedule, image_elements: int) -> None:
        self.schedule = schedule
        self._elements = image_elements
        self._compiled = lru_cache(maxsize=256)(self._compile)

    def plan(self, preset: Preset, score_norm: float | None = None) -> Plan:
        """The purification rows of ``preset``; with SSNI, of an image with that score norm.

        Without a score norm an SSNI preset gives the plan of its full noise level t*, the longest usual one.
        """
        if preset.ssni is None or score_norm is None:
            return self._compiled(preset.method)
        method = adapted(preset.method, preset.ssni, score_norm, self.schedule)
        return UNTOUCHED if method is None else self._compiled(method)

    def certified_sigma(self, preset: Preset) -> float:
        """The sigma of a preset's certificates, on images in [0, 1]: the one noised copy that says all it sees. Of a
        cascade the smallest of its noises.

        Raises:
            ConfigError: the preset has no certificate; the sentence says why. Codes ``E-certificate-plan``,
                ``E-certificate-mask`` and ``E-certificate-ssni``.
        """
        if preset.cascade is not None:
            return min(self.certified_sigma(stage) for stage in preset.stages)
        plan = self.plan(preset)
        if plan.needs_mask and not plan.mask_from:
            raise ConfigError(
                "no certificate: the mask is computed from the input without noise (with one that does not depend on "
                f"the input, sigma would be {plan.certified_sigma():.3g}); "
                "choose a preset without a mask, such as smooth, or one whose mask is of a noised copy, such as split",
                code="E-certificate-mask",
            )
        if preset.ssni is not None:
            raise ConfigError(
                "no certificate: the score norm of the input sets its noise level, and probes see more of it; "
                "choose a preset without SSNI, such as smooth",
                code="E-certificate-ssni",
            )
        return plan.certified_sigma()

    def probe(self, preset: Preset) -> Plan | None:
        """The probe rows of an SSNI preset; None for the others."""
        return None if preset.ssni is None else self.rows(preset.ssni.probe)

    def restoration(self, preset: Preset) -> Plan | None:
        """The rows that a mask of the source ``residual`` is computed with; None for the others."""
        if preset.mask is None or preset.mask.source != "residual":
            return None
        return self.rows(preset.mask.residual)

    def before(self, preset: Preset) -> int:
        """UNet calls of one decision before its votes: the probe, and the restorations of the mask."""
        return sum(plan.unet_calls for plan in (self.probe(preset), self.restoration(preset)) if plan is not None)

    def rows(self, method: MethodSpec) -> Plan:
        """The rows of a method or probe as it is."""
        return self._compiled(method)

    def unet_calls(self, preset: Preset) -> int:
        """UNet calls for one decision at the full noise level: what comes before, plus votes times rows."""
        return self.before(preset) + preset.votes.count * self.answer_calls(preset)

    def answer_calls(self, preset: Preset) -> int:
        """UNet calls of one answer at the full noise level; of a cascade, of one at each of its noises."""
        return sum(self.plan(stage).unet_calls for stage in preset.stages)

    def _compile(self, method: MethodSpec) -> Plan:
        plan = method.compile(self.schedule, self._elements)
        if not plan.rows:
            raise ConfigError(f"method {plan.method!r} has no rows with these parameters", code="E-method-rows")
        if method.mask_of_view != bool(plan.mask_from):
            raise ConfigError(
                f"method {plan.method!r} and its plan do not agree on whether its mask is that of a state on the way; "
                "`mask_of_view` says so of the method, `mask_from` of the plan",
                code="E-method-mask-view",
            )
        return plan

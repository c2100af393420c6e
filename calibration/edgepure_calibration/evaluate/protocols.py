"""The protocol of each attack of an evaluation, in words that a reader can check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..attacks.defence import MASK_GRADIENTS
from .attack_list import Line, Target
from .protocol import Protocol
from .settings import Settings


def protocol(line: Line, target: Target, settings: Settings, common: dict[str, Any]) -> Protocol:
    """The protocol of a line. ``common``: what all lines of an evaluation share (judge, images, data, seeds ...)."""
    inside = f"{settings.norm} ball of radius {settings.eps:.4g} on images in [0, 1]"
    mask = None if target.preset.mask is None else line.mask_gradient
    whole = (
        "exact, through every deployed row and the classifier, noise of the forward pass reused; SSNI level detached"
    )
    if mask is not None:
        whole += f"; {MASK_GRADIENTS[line.mask_gradient]}"
    many = settings.restarts > 1
    several = f"worst of the candidates by {settings.selection} evaluations with fresh noise"
    pgd_step = f"step 2.5 eps / steps = {2.5 * settings.eps / settings.steps:.3g}"
    base = Protocol(
        attack=line.attack, gradient=f"{whole}; cross-entropy", bounded=inside, norm=settings.norm, eps=settings.eps,
        steps=settings.steps, eot=settings.eot, step_size=pgd_step, restarts=settings.restarts, mask_gradient=mask,
        norm_penalty=0.0, selection=several if many else "last iterate", queries=None, surrogate=False,
        target="the whole defence", **common,
    )  # fmt: skip
    auto = "2 eps, halved by the rule of Auto-PGD"
    within = "iterate that most EOT copies read wrong, among equals that with the largest mean loss"
    if line.attack == "transfer":
        return replace(
            base, gradient="exact, of the cross-entropy", eot=None, target="the plain classifier", mask_gradient=None,
            selection="worst of the candidates" if many else "last iterate",
        )  # fmt: skip
    if line.attack == "bpda":
        return replace(base, gradient="cross-entropy; purification as deployed forward, identity backward (BPDA)",
                       mask_gradient=None)  # fmt: skip
    if line.attack == "surrogate":
        return replace(base, surrogate=True, gradient=f"cross-entropy, through a purification of "
                       f"{settings.surrogate_calls} UNet calls instead of {target.calls}; mask detached")  # fmt: skip
    if line.attack == "pgd-small-norm":
        return replace(base, norm_penalty=settings.norm_penalty,
                       gradient=f"{whole}; cross-entropy "
                       f"less {settings.norm_penalty:g} x score norm / its clean mean")  # fmt: skip
    if line.attack in ("apgd-ce", "apgd-dlr"):
        loss = "cross-entropy" if line.attack == "apgd-ce" else "DLR loss"
        return replace(base, gradient=f"{whole}; {loss}", step_size=auto,
                       selection=several if many else within)  # fmt: skip
    if line.attack == "apgd":
        return replace(base, gradient=f"{whole}; cross-entropy and DLR loss, one run each", step_size=auto,
                       selection=f"within a run the {within}; {several}")  # fmt: skip
    if line.attack == "low-frequency":
        size = settings.field_size
        return replace(
            base, norm=None, eps=None, step_size=f"step {2.5 * size / settings.steps:.3g}",
            bounded=f"a field of {settings.grid} x {settings.grid} values a channel in [-{size:.4g}, {size:.4g}], "
            f"enlarged bilinearly: no pixel changes by more than {size:.4g}; no other bound (not LPIPS)",
        )  # fmt: skip
    if line.attack == "square":
        return replace(
            base, gradient="none: log-probabilities of the answers", steps=None, eot=None, step_size=None,
            restarts=None, mask_gradient=None, queries=settings.queries,
            target=f"{common['judge']}, one purification an answer",
            selection="smallest mean margin of its answers", twin="nothing",
        )  # fmt: skip
    return base


def union_protocol(attacks: Sequence[Protocol]) -> Protocol:
    """Of the union of attacks, whose protocols these are."""
    names = ", ".join(made.title for made in attacks)
    return replace(
        attacks[0], attack="union", gradient="of each attack its own", bounded="each attack by its own bound",
        norm=None, eps=None, steps=None, eot=None, step_size=None, restarts=None, mask_gradient=None, norm_penalty=0.0,
        queries=None, selection=f"right only if right unattacked and under each of {names}",
        target="as each attack says",
    )  # fmt: skip


def clean_protocol(common: dict[str, Any]) -> Protocol:
    """Of clean images."""
    return Protocol(
        attack="none", gradient="none", bounded="nothing is changed", norm=None, eps=None, steps=None, eot=None,
        step_size=None, restarts=None, mask_gradient=None, norm_penalty=0.0, selection="none", queries=None,
        surrogate=False, target="nothing", **{**common, "twin": "nothing"},
    )  # fmt: skip

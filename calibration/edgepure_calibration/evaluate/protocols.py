"""The protocols of an evaluation beside those of its attacks: clean images, and several attacks at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..attacks.protocol import AttackProtocol


def union_protocol(attacks: Sequence[AttackProtocol]) -> AttackProtocol:
    """Of the union of attacks, whose protocols these are."""
    names = ", ".join(made.title for made in attacks)
    return replace(
        attacks[0],
        attack="union",
        gradient="of each attack its own",
        bounded="each attack by its own bound",
        norm=None,
        eps=None,
        steps=None,
        eot=None,
        step_size=None,
        restarts=None,
        mask_gradient=None,
        norm_penalty=0.0,
        queries=None,
        selection=f"right only if right unattacked and under each of {names}",
        target="as each attack says",
    )


def clean_protocol(common: dict[str, Any]) -> AttackProtocol:
    """Of clean images."""
    return AttackProtocol(
        attack="none",
        gradient="none",
        bounded="nothing is changed",
        norm=None,
        eps=None,
        steps=None,
        eot=None,
        step_size=None,
        restarts=None,
        mask_gradient=None,
        norm_penalty=0.0,
        selection="none",
        queries=None,
        surrogate=False,
        target="nothing",
        **{**common, "twin": "nothing"},
    )

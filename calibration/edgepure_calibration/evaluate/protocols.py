"""The protocols of an evaluation beside those of its attacks: clean images, and several attacks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..attacks.protocol import AttackProtocol

#: What all protocols of a preset have in common.
SHARED = ("twin", "judge", "noise", "preset", "preset_sha256", "bundle_sha256", "images", "data_sha256", "seeds")


def union_protocol(attacks: Sequence[AttackProtocol]) -> AttackProtocol:
    """Of the union of attacks, whose protocols these are."""
    names = ", ".join(made.title for made in attacks)
    return AttackProtocol(
        attack="union",
        gradient="of each attack its own",
        bounded="each attack by its own bound",
        selection=f"right only if right unattacked and under each of {names}",
        surrogate=attacks[0].surrogate,
        target="as each attack says",
        **{name: getattr(attacks[0], name) for name in SHARED},
    )


def clean_protocol(common: dict[str, Any]) -> AttackProtocol:
    """Of clean images."""
    return AttackProtocol(
        attack="none",
        gradient="none",
        bounded="nothing is changed",
        selection="none",
        target="nothing",
        **{**common, "twin": "nothing"},
    )

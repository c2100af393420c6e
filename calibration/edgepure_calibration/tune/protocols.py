"""Which attacks a tuning run uses, and how its numbers are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .parts import Part, Transfer
from .settings import TuneSettings

if TYPE_CHECKING:
    from .whitebox import TwinLoader, WhiteBox


def make_attacks(
    twin: TwinLoader | None, settings: TuneSettings, whitebox: bool, classes: int
) -> tuple[Transfer | None, tuple[WhiteBox | None, WhiteBox | None], dict[str, Any]]:
    """The attack on the plain classifier, those through the defence in search and final, and how they are described."""
    if twin is None:
        return None, (None, None), {}
    from .whitebox import WhiteBox, final_attack, search_attack, transfer, transfer_protocol

    protocols: dict[str, Any] = {"transferred": transfer_protocol(settings)}
    made = transfer(twin, settings.eps)
    if not whitebox:
        return made, (None, None), protocols
    first = WhiteBox(twin, search_attack(settings), settings.seed + 11)
    second = WhiteBox(twin, final_attack(settings, classes), settings.seed + 12)
    protocols |= {"white-box of the search": first.protocol(), "white-box of the finalists": second.protocol()}
    return made, (first, second), protocols


def describe_run(
    attacks: Mapping[str, Any],
    parts: tuple[Part, Part],
    settings: TuneSettings,
    seeds: tuple[int, int],
    given: bool,
    test: bool,
) -> dict[str, Any]:
    found = dict(attacks)
    if given:
        found["transferred"] = {
            "attack": "as given",
            "target": "the plain classifier, which reads them clearly worse",
        }
    for name, part, seed in (("search", parts[0], seeds[0]), ("finalists", parts[1], seeds[1])):
        found[f"images of the {name}"] = {
            "clean": len(part.clean), "transferred": len(part.attacked), "white-box": len(part.whitebox),
            "noise seed": seed, "sha256": part.clean.sha256,
        }  # fmt: skip
    found["images of the finalists"]["from"] = (
        "test images that the search never saw" if test else "images of the same data that the search did not see"
    )
    found["decision"] = (
        "by the deployed graphs, votes and their rule as each preset says; the attacker does not know the noise"
    )
    found["robust"] = "the lower of the accuracies under the transferred and under the white-box attack"
    found["choice"] = (
        f"fast: the cheapest finalist within {100 * settings.tolerance:g} points of the largest {settings.objective} "
        "accuracy; balanced: the largest mean of clean and robust accuracy; robust: the largest robust accuracy. The "
        "finalists' own numbers decide, so the best of them is seen a little too well"
    )
    return found

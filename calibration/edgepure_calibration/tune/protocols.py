"""How the numbers of a tuning run are described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .settings import TuneSettings
from .splits import Split


def describe_run(
    attacks: Mapping[str, Any],
    splits: tuple[Split, Split],
    settings: TuneSettings,
    seeds: tuple[int, int],
    given: bool,
    test: bool,
) -> dict[str, Any]:
    """The protocol of each number by its name.

    Args:
        attacks: those that were made, by name.
        splits: images of the search and of the finalists, with the ``seeds`` of their noise.
        given: the attacked images were given.
        test: so were images for the finalists.
    """
    found = dict(attacks)
    if given:
        found["transferred"] = {
            "attack": "as given",
            "target": "the plain classifier, which reads them clearly worse",
        }
    for name, split, seed in (("search", splits[0], seeds[0]), ("finalists", splits[1], seeds[1])):
        found[f"images of the {name}"] = {
            "clean": len(split.clean),
            "transferred": len(split.attacked),
            "white-box": len(split.whitebox),
            "noise seed": seed,
            "sha256": split.clean.sha256,
        }
    found["images of the finalists"]["from"] = (
        "test images that the search never saw" if test else "images of the same data that the search did not see"
    )
    found["decision"] = (
        "by the deployed graphs, votes and their rule as each preset says; the attacker does not know the noise"
    )
    if "white-box of the finalists" in attacks and settings.final_doublings:
        found["more steps"] = (
            "the chosen presets are attacked again by the attack of the finalists on the same images, with twice the "
            f"steps up to {settings.final_doublings} times, until at most one image in a hundred more is lost; their "
            "robust accuracy is the lowest that was found"
        )
    found["robust"] = "the lower of the accuracies under the transferred and under the white-box attack"
    found["choice"] = (
        f"fast: the cheapest finalist within {100 * settings.tolerance:g} points of the largest {settings.objective} "
        "accuracy, and never dearer than the two others; balanced: the largest mean of clean and robust accuracy; "
        "robust: the largest robust accuracy. The finalists' own numbers decide, so the best of them is seen a little "
        "too well"
    )
    return found

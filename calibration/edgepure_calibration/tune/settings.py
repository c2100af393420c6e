"""How thoroughly to tune."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgepure.errors import ConfigError

OBJECTIVES = ("robust", "clean", "balanced")


@dataclass(frozen=True)
class TuneSettings:
    """Sizes and seeds of a tuning run.

    Attributes:
        objective: what the budget is spent on: ``robust`` accuracy, ``clean`` accuracy, or ``balanced``, their mean.
        trials: candidates to try in all.
        images: for the search; the finalists are measured on others.
        whitebox_images: of these, attacked through the defence.
        final_images, final_whitebox_images: the same for the finalists; fewer if the data hold fewer.
        finalists: Pareto points that are measured again.
        eps: Linf radius of every attack, on images in [0, 1].
        search_steps, search_eot: of the PGD-EOT of the search.
        final_steps, final_eot: of the attack on the finalists, which is of another kind.
        most_votes: purifications of one decision at most.
        tolerance: how much of the objective the preset ``fast`` may give away, as a share of the images.
        seed: of everything that is drawn: images, trials, noise, attacks.
        latency_repeats: decisions whose median is the latency, under a budget of milliseconds.
    """

    objective: str = "robust"
    trials: int = 60
    images: int = 100
    whitebox_images: int = 32
    final_images: int = 200
    final_whitebox_images: int = 64
    finalists: int = 5
    eps: float = 8.0 / 255.0
    search_steps: int = 5
    search_eot: int = 2
    final_steps: int = 20
    final_eot: int = 4
    most_votes: int = 9
    tolerance: float = 0.02
    seed: int = 0
    latency_repeats: int = 9

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(f"objective {self.objective!r} is unknown; choose {', '.join(OBJECTIVES)}")
        for name in (
            "trials", "images", "whitebox_images", "final_images", "final_whitebox_images", "finalists", "search_steps",
            "search_eot", "final_steps", "final_eot", "most_votes", "latency_repeats",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)} must be at least 1")
        if not 0.0 < self.eps < 1.0:
            raise ConfigError(f"eps {self.eps} must lie between 0 and 1: it is the Linf radius on images in [0, 1]")
        if not 0.0 <= self.tolerance < 1.0:
            raise ConfigError(f"tolerance {self.tolerance} must lie in [0, 1): it is a share of the images")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def of_the_search(self) -> dict[str, Any]:
        """What the numbers of the trials depend on."""
        names = ("images", "whitebox_images", "eps", "search_steps", "search_eot", "most_votes", "seed")
        return {name: getattr(self, name) for name in names}

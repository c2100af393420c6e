"""What to tune for, and how thoroughly."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edgepure.errors import ConfigError

OBJECTIVES = ("robust", "clean", "balanced")
#: Of `tune_certified`, which has settings of its own.
CERTIFIED = "certified"


@dataclass(frozen=True)
class TuneSettings:
    """The budget, sizes and seeds of a tuning run.

    Attributes:
        calls, ms: the budget of one decision, in UNet calls or in milliseconds on this device; one of them.
        methods: to search among; None: all that the bundle can run.
        precisions: to search among; None: all that the bundle has for this provider.
        references: presets of the bundle to measure beside the finalists; None: as many as are not too expensive, the
            default and the cheapest first.
        whitebox: attack through the defence, which needs the bundle's PyTorch twin.
        objective: what the budget is spent on: ``robust`` accuracy, ``clean`` accuracy, or ``balanced``, their mean.
        trials: candidates to try in all.
        images: for the search; the finalists are measured on others.
        whitebox_images: of these, attacked through the defence.
        final_images, final_whitebox_images: the same for the finalists; fewer if the data hold fewer.
        finalists: Pareto points that are measured again.
        eps: Linf radius of every attack, on images in [0, 1].
        search_steps, search_eot: of the PGD-EOT of the search.
        final_steps, final_eot: of the attack on the finalists, which is of another kind.
        final_doublings: how often at most the chosen presets are attacked again with twice the steps, until no more is
            found; 0: they are not, and the number says so.
        most_votes: purifications of one decision at most.
        tolerance: how much of the objective the preset ``fast`` may give away, as a share of the images.
        seed: of everything that is drawn: images, trials, noise, attacks.
        latency_repeats: decisions whose median is the latency, under a budget of milliseconds.
    """

    calls: int | None = None
    ms: float | None = None
    methods: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    references: tuple[str, ...] | None = None
    whitebox: bool = True
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
    final_doublings: int = 2
    most_votes: int = 9
    tolerance: float = 0.02
    seed: int = 0
    latency_repeats: int = 9

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ConfigError(
                f"objective {self.objective!r} is unknown; choose {', '.join(OBJECTIVES)}, or certified "
                "(tune_certified, --objective certified)",
                code="E-tune-objective",
            )
        from_zero = ("calls", "seed", "final_doublings")
        for name, value in asdict(self).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1 and name not in from_zero:
                raise ConfigError(f"{name} {value} must be at least 1", code="E-tune-count")
        if self.final_doublings < 0:
            raise ConfigError(f"final_doublings {self.final_doublings} must be 0 or more", code="E-tune-count")
        if not 0.0 < self.eps < 1.0:
            raise ConfigError(
                f"eps {self.eps} must lie between 0 and 1: it is the Linf radius on images in [0, 1]",
                code="E-attack-eps",
            )
        if not 0.0 <= self.tolerance < 1.0:
            raise ConfigError(
                f"tolerance {self.tolerance} must lie in [0, 1): it is a share of the images", code="E-tune-tolerance"
            )

    def check_budget(self) -> None:
        """Raise ConfigError unless there is one budget."""
        if (self.calls is None) == (self.ms is None):
            raise ConfigError("give one budget: UNet calls or milliseconds", code="E-tune-budget")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def of_the_search(self) -> dict[str, Any]:
        """What the numbers of the trials depend on."""
        names = ("calls", "ms", "images", "whitebox", "whitebox_images", "eps", "search_steps", "search_eot")
        found = {name: getattr(self, name) for name in (*names, "most_votes", "seed")}
        return {**found, "methods": sorted(self.methods or ())}

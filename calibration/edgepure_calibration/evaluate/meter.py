"""How far an evaluation is, in UNet calls: what the time estimate rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from . import attack_list
from .attack_list import Line, Target
from .noise_experiment import policy_cost
from .settings import Settings

#: Called with (share of the work that is done, what is going on).
OnProgress = Callable[[float, str], None]


class Meter:
    """Progress in UNet calls, gradients counted as several."""

    def __init__(
        self,
        targets: Sequence[Target],
        settings: Settings,
        images: int,
        report: OnProgress,
        policies: bool,
        clean_only: bool,
    ) -> None:
        self._settings, self._report, self._done = settings, report, 0.0
        total = 0.0
        for target in targets:
            count = max(settings.votes or target.preset.votes.count, settings.worst)
            found = [] if clean_only else attack_list.lines(target, settings)
            per_seed = sum(attack_list.cost(line, target, settings) + count * target.calls for line in found)
            total += images * (len(settings.seeds) * per_seed + count * target.calls)
            if policies:
                votes = settings.votes or target.preset.votes.count
                total += images * policy_cost(target, replace(settings, votes=votes))
        self._total = max(total, 1.0)

    def show(self, line: Line, target: Target, images: float) -> None:
        """An attack on a batch is under way; ``images`` of it are done, so to speak."""
        done = self._done + images * attack_list.cost(line, target, self._settings)
        self._report(done / self._total, f"{target.name}: {line.attack}")

    def add(self, line: Line, target: Target, images: int) -> None:
        """An attack on a batch is done."""
        self._done += images * attack_list.cost(line, target, self._settings)
        self._report(self._done / self._total, f"{target.name}: {line.attack}")

    def spend(self, calls: float) -> None:
        """The experiment on noise policies has made so many UNet calls."""
        self._done += calls
        self._report(self._done / self._total, "noise policies")

    def drawn(self, target: Target, answers: int) -> None:
        """The engine has given so many answers."""
        self._done += answers * target.calls
        self._report(self._done / self._total, f"{target.name}: the engine answers")

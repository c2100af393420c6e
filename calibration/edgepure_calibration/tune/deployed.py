"""The deployed graphs of a bundle on this device: what they decide, and how long it takes them."""

from __future__ import annotations

from functools import partial
from itertools import cycle
from os import PathLike
from types import TracebackType
from typing import Any

import edgepure
from edgepure import Preset, Purifier
from edgepure.images.dataset import LabelledImages
from edgepure.measure import interleaved, median_time
from edgepure.purify.scores import Score

from .budget import TimeBudget
from .candidate import Candidate, calls_per_decision

#: Votes whose shared UNet calls are timed, to turn milliseconds into rows.
TIMED_VOTES = (1, 2, 4, 8)
#: Rows of the short and of the long plan that are timed: their difference is the price of a row.
SHORT, LONG = 1, 5


class DeployedGraphs:
    """The bundle on what runs it, once for each precision, opened at first use."""

    def __init__(self, bundle: str | PathLike[str], provider: str = "cpu", threads: int | None = None) -> None:
        self._bundle, self._provider, self._threads = bundle, provider, threads
        self._open: dict[str, Purifier] = {}

    def purifier(self, precision: str = "fp32") -> Purifier:
        """The bundle's graphs of that precision."""
        if precision not in self._open:
            options: dict[str, Any] = {} if precision == "fp32" else {"precision": precision}
            self._open[precision] = edgepure.load(self._bundle, self._provider, threads=self._threads, **options)
        return self._open[precision]

    def calls(self, candidate: Candidate) -> int:
        """UNet calls of one decision, at most."""
        return calls_per_decision(self.purifier().planner, candidate.preset)

    def score(self, candidate: Candidate, data: LabelledImages, seed: int) -> Score:
        """How many decisions are right. ``seed`` of the noise: the same for every candidate, so that they compare."""
        assert data.labels is not None
        results = self.purifier(candidate.precision).run(data.images, candidate.preset, noise=seed)
        return Score.of_results(results, [int(label) for label in data.labels])

    def latency_ms(self, candidate: Candidate, data: LabelledImages, repeats: int) -> float:
        """Median milliseconds of a decision of one image, over ``repeats`` images, after one that does not count."""
        purifier, images = self.purifier(candidate.precision), cycle(data.images)
        return 1e3 * median_time(lambda: purifier.run(next(images)[None], candidate.preset), repeats)

    def time_budget(self, ms: float, data: LabelledImages, precision: str, most_votes: int) -> TimeBudget:
        """A budget of milliseconds, with the price of a UNet call measured here, side by side for several votes."""
        purifier, image = self.purifier(precision), data.images[:1]
        sizes = [votes for votes in TIMED_VOTES if votes <= most_votes]
        presets = {
            f"{votes} {steps}": Preset.parse(
                {"method": {"method": "uniform", "t_star": 50, "steps": steps}, "votes": {"count": votes}}
            )
            for votes in sizes
            for steps in (SHORT, LONG)
        }
        times = interleaved({name: partial(purifier.run, image, preset) for name, preset in presets.items()}, 7)
        span = LONG - SHORT
        call = {v: max(1e3 * (times.median(f"{v} {LONG}") - times.median(f"{v} {SHORT}")) / span, 1e-3) for v in sizes}
        overhead = max(0.0, 1e3 * times.median(f"1 {SHORT}") - SHORT * call[1])
        return TimeBudget(ms, overhead, call)

    def close(self) -> None:
        for purifier in self._open.values():
            purifier.close()
        self._open.clear()

    def __enter__(self) -> DeployedGraphs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

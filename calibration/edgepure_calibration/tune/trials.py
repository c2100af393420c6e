"""The trials of a search, each kept as soon as it is finished, so that nothing is measured twice.

An interrupted run goes on where it was, and comes to the same trials as one that was not interrupted: what a trial
suggests follows from the seed and from the finished trials alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from time import perf_counter
from typing import Any

import optuna
from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from ..work import Work
from .points import Point

#: Trials, the starts among them, before the sampler learns from them.
RANDOM_TRIALS = 16


class Trials:
    """The trials of one search.

    Args:
        work: keeps them; what its parts depend on decides which trials belong to this search.
        seed: of the sampler.
    """

    def __init__(self, work: Work, seed: int) -> None:
        self._work, self._seed = work, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(directions=["minimize", "maximize", "maximize"])
        for number in count():
            kept = _read(work.recall(_trial(number)))
            if kept is None:
                break
            self._study.add_trial(kept)

    def points(self) -> list[Point]:
        """What the finished trials found, in their order."""
        return [Point.from_dict(trial.user_attrs["point"]) for trial in self._finished()]

    def ask(self, starts: Sequence[Mapping[str, Any]] = ()) -> optuna.Trial:
        """The next trial. What it suggests depends on the seed and on the finished trials alone.

        ``starts``: parameters that the first trials have, one mapping for each; what they leave out is suggested.
        """
        finished = len(self._finished())
        seed = (1_000_003 * self._seed + finished) % 2**32
        self._study.sampler = TPESampler(seed=seed, n_startup_trials=RANDOM_TRIALS)
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if finished < len(starts) and not waiting:
            self._study.enqueue_trial(dict(starts[finished]))
        return self._study.ask()

    def tell(self, trial: optuna.Trial, point: Point) -> None:
        """Store what a trial found."""
        finished = len(self._finished())
        trial.set_user_attr("point", point.to_dict())
        if point.dropped:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, _values(point))
        kept = {
            "point": point.to_dict(),
            "params": trial.params,
            "distributions": {name: distribution_to_json(of) for name, of in trial.distributions.items()},
        }
        self._work.remember(_trial(finished), kept)

    def fail(self, trial: optuna.Trial) -> None:
        """Give a trial up; it will be asked again."""
        self._study.tell(trial, state=TrialState.FAIL)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds of the block to `seconds`, however it ends."""
        start = perf_counter()
        try:
            yield
        finally:
            self._work.remember({"what": "seconds"}, self.seconds + perf_counter() - start)

    @property
    def seconds(self) -> float:
        """How long the blocks inside `timed` took, those of interrupted runs included."""
        return float(self._work.recall({"what": "seconds"}) or 0.0)

    def _finished(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _trial(number: int) -> dict[str, Any]:
    return {"what": "trial", "number": number}


def _values(point: Point) -> list[float]:
    return [point.cost, point.clean.fraction, point.robust]


def _read(data: Any) -> FrozenTrial | None:
    """A trial as `Trials.tell` kept it; None if it is not there or says something else."""
    try:
        point = Point.from_dict(data["point"])
        return optuna.trial.create_trial(
            state=TrialState.PRUNED if point.dropped else TrialState.COMPLETE,
            values=None if point.dropped else _values(point),
            params=data["params"],
            distributions={name: json_to_distribution(text) for name, text in data["distributions"].items()},
            user_attrs={"point": point.to_dict()},
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None

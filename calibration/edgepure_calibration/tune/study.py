"""The trials of a search in a file (Optuna's journal: one JSON object a line), so that nothing is measured twice.

A file belongs to one bundle, one data set and one protocol; another one is refused. An interrupted run goes on where it
was, and comes to the same trials as one that was not interrupted.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from edgepure.errors import ConfigError, EdgepureError

from .points import Point

_NAME = "edgepure"
#: Trials, the starts among them, before the sampler learns from them.
RANDOM_TRIALS = 16


class Study:
    """The trials of one search.

    Args:
        path: the file; made if it is not there. `study_file` keeps others out of it.
        made_for: what the numbers depend on, by what to call it in an error message.
        seed: of the sampler.

    Raises:
        ConfigError: the file is no study, or one of another bundle, data set or protocol.
    """

    def __init__(self, path: Path, made_for: Mapping[str, str], seed: int) -> None:
        self.path, self._seed = path, seed
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if path.exists() and path.stat().st_size > 0:
            _check_journal(path)
        with _in_words(path):
            self._open(path, made_for)

    def _open(self, path: Path, made_for: Mapping[str, str]) -> None:
        storage = JournalStorage(JournalFileBackend(str(path)))
        self._study = optuna.create_study(
            study_name=_NAME, storage=storage, directions=["minimize", "maximize", "maximize"], load_if_exists=True
        )
        known: dict[str, str] = self._study.user_attrs.get("made for", {})
        begun = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.WAITING)
        if known != dict(made_for) and not self._study.get_trials(deepcopy=False, states=begun):
            known = {}  # new, or a command that was refused before its first trial: nothing is kept of it
            self.remember("price", None)
        if known and known != dict(made_for):
            differing = sorted(key for key in {*known, *made_for} if known.get(key) != made_for.get(key))
            raise ConfigError(
                f"the study {path} was made for something else: {', '.join(differing)} "
                f"{'differs' if len(differing) == 1 else 'differ'}, so its trials say nothing here; name another file "
                "(--study), or remove this one"
            )
        if not known:
            self._study.set_user_attr("made for", dict(made_for))
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # of a run that was killed
            self._study.tell(trial.number, state=TrialState.FAIL)

    def points(self) -> list[Point]:
        """What the finished trials found, in their order."""
        with _in_words(self.path):
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
        trial.set_user_attr("point", point.to_dict())
        if point.dropped:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, [point.cost, point.clean.fraction, point.robust])

    def fail(self, trial: optuna.Trial) -> None:
        """Give a trial up; it will be asked again."""
        self._study.tell(trial, state=TrialState.FAIL)

    def recall(self, name: str) -> Any:
        """What `remember` stored under that name; None if nothing."""
        return self._study.user_attrs.get(name)

    def remember(self, name: str, value: Any) -> None:
        """Store plain data beside the trials."""
        self._study.set_user_attr(name, value)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the seconds of the block to `seconds`, however it ends."""
        start = perf_counter()
        try:
            yield
        finally:
            self.remember("seconds", self.seconds + perf_counter() - start)

    @property
    def seconds(self) -> float:
        """How long the blocks inside `timed` took, those of interrupted runs included."""
        return float(self.recall("seconds") or 0.0)

    def _finished(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _check_journal(path: Path) -> None:
    """The first line is a JSON object: Optuna itself would fail with a traceback, or worse append to any file.

    What comes after the last end of a line was cut off, by the end of a run or of the disk's space, and is taken away:
    Optuna would read no study with it, and append to it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            first = json.loads(file.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        first = None
    if not isinstance(first, dict) or "op_code" not in first:
        raise ConfigError(f"{path} is not a study of `edgepure tune`; name another file (--study)")
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if 0 < whole < len(written):
        os.truncate(path, whole)


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """One sentence for what a damaged file makes of Optuna, which has no exception for it."""
    try:
        yield
    except (EdgepureError, OSError):
        raise
    except Exception as error:
        raise ConfigError(
            f"the study {path} is damaged ({type(error).__name__}: {str(error)[:100]}); name another file (--study), "
            "or remove this one"
        ) from error

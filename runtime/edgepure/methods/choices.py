"""How a method tells tuning what may be chosen for it, so that every suggestion fits the rows by construction.

Noise levels are suggested on a grid of T / 200 timesteps, so that presets stay readable and repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

#: Repeats of RePaint's walk and of multi-step resampling, rounds of GDMP and GNSP: no published setting has more.
MOST_REPEATS, MOST_ROUNDS = 10, 8


class Suggest(Protocol):
    """What a search space asks: an Optuna trial, or anything with its three methods."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int: ...

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float: ...

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Room:
    """What a method's parameters must fit into: ``rows`` of one purification, ``timesteps`` (T) of the schedule, and
    which posterior variances the network offers."""

    rows: int
    timesteps: int
    variances: tuple[str, ...]

    @property
    def unit(self) -> int:
        """Timesteps between two noise levels that are suggested."""
        return max(1, self.timesteps // 200)

    def level(self, trial: Suggest, name: str, low: float, high: float) -> int:
        """A noise level between the shares ``low`` and ``high`` of T; small ones are closer together."""
        first, last = math.ceil(low * self.timesteps / self.unit), math.floor(high * self.timesteps / self.unit)
        return self.unit * trial.suggest_int(name, max(first, 2), max(last, 2), log=True)

    def kept(self, level: int, index: int) -> int:
        """How many timesteps a respacing must keep, so that the kept one number ``index`` lies near ``level``."""
        return min(self.timesteps, 1 + round(index * (self.timesteps - 1) / level))


@dataclass(frozen=True)
class Choices:
    """What may be chosen for one method.

    Attributes:
        suggest: called with (trial, room, reading): the method as plain data, with at most ``room.rows`` rows.
        start: the suggestion that is the noise level, and its published share of T: where the first trial begins.
        readings: the readings of the method and the fewest rows that each can have. A method with one calls it "".
        also: other suggestions of the first trial.
    """

    suggest: Callable[[Suggest, Room, str], dict[str, Any]]
    start: tuple[str, float]
    readings: Mapping[str, int] = field(default_factory=lambda: {"": 1})
    also: Mapping[str, Any] = field(default_factory=dict)

    def first(self, room: Room) -> dict[str, Any]:
        """A noise level like the published one, for the first trial of the method; the rest is drawn."""
        name, share = self.start
        return {name: max(2, round(share * room.timesteps / room.unit)), **self.also}

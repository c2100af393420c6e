"""One function a method: from suggestions to its parameters as plain data, within a number of rows by construction.

Noise levels are suggested on a grid of T / 200 timesteps, so that presets stay readable and repeat.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

from edgepure.methods.repaint import jump_times

#: The fewest rows that each kind of a method can have. A kind is a method with what decides its row count.
LEAST_ROWS: Mapping[str, int] = {
    "uniform": 1,
    "heterogeneous/paper/none": 2,
    "heterogeneous/paper/single": 3,
    "heterogeneous/paper/multi": 3,
    "heterogeneous/official/none": 2,
    "heterogeneous/official/single": 2,
    "repaint": 2,
    "gdmp": 2,
    "gnsp": 2,
}
#: Methods that treat the inside and the outside of the attention mask differently.
MASKED = ("heterogeneous", "repaint")
#: Rows that some kind needs at most to exist at all.
MOST_OF_LEAST_ROWS = max(LEAST_ROWS.values())
#: Repeats of RePaint's walk and of multi-step resampling, rounds of GDMP and GNSP: no published setting has more.
MOST_REPEATS, MOST_ROUNDS = 10, 8


class Suggest(Protocol):
    """What the search space asks: an Optuna trial, or anything with its three methods."""

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


def uniform(trial: Suggest, room: Room) -> dict[str, Any]:
    t_star = room.level(trial, "uniform.t_star", 0.02, 0.5)
    data: dict[str, Any] = {
        "method": "uniform",
        "t_star": t_star,
        "steps": trial.suggest_int("uniform.steps", 1, min(room.rows, t_star), log=True),
        "sampler": trial.suggest_categorical("uniform.sampler", ("ddpm", "ddim")),
    }
    if data["sampler"] == "ddim":
        data["eta"] = trial.suggest_float("uniform.eta", 0.0, 1.0, step=0.25)
    else:
        data["variance"] = trial.suggest_categorical("uniform.variance", room.variances)
    return data


def heterogeneous(trial: Suggest, room: Room, variant: str, resample: str) -> dict[str, Any]:
    t_l = room.level(trial, "heterogeneous.t_l", 0.04, 0.6)
    share = trial.suggest_float("heterogeneous.t_s_share", 0.1, 0.9, step=0.1)
    t_s = min(max(1, round(share * t_l)), t_l - 1)
    data: dict[str, Any] = {"method": "heterogeneous", "variant": variant, "resample": resample, "t_l": t_l, "t_s": t_s}
    per_step = 1
    if resample == "single":
        data["U"] = trial.suggest_int("heterogeneous.U", 1, max(1, round(0.03 * room.timesteps)))
        per_step = 2 if variant == "paper" else 1
    elif resample == "multi":
        data["U"] = trial.suggest_int("heterogeneous.repeats", 1, min(room.rows - 2, MOST_REPEATS))
        per_step = 1 + data["U"]
    most = min((room.rows - 1) // per_step, t_l - t_s)
    first = trial.suggest_int("heterogeneous.stage1_steps", 1, most, log=True)
    most = min(room.rows - per_step * first, t_s + 1)
    second = trial.suggest_int("heterogeneous.stage2_steps", 1, most, log=True)
    eta = trial.suggest_float("heterogeneous.eta", 0.0, 1.0, step=0.25)
    return {**data, "stage1_steps": first, "stage2_steps": second, "eta": eta}


def repaint(trial: Suggest, room: Room) -> dict[str, Any]:
    t = room.level(trial, "repaint.level", 0.04, 0.5)
    steps = trial.suggest_int("repaint.steps", 2, min(room.rows, t), log=True)
    jump = trial.suggest_int("repaint.jump_length", 1, min(10, steps - 1))
    fitting = [r for r in range(1, MOST_REPEATS + 1) if _reverse_steps(steps, jump, r) <= room.rows]
    return {
        "method": "repaint",
        "respacing": str(_kept(room.timesteps, t, steps - 1)),
        "t_T": steps,
        "jump_length": jump,
        "jump_n_sample": trial.suggest_int("repaint.jump_n_sample", 1, fitting[-1]),
        "variance": trial.suggest_categorical("repaint.variance", room.variances),
    }


def gdmp(trial: Suggest, room: Room) -> dict[str, Any]:
    t = room.level(trial, "gdmp.level", 0.04, 0.5)
    variant = trial.suggest_categorical("gdmp.variant", ("paper", "official"))
    steps = trial.suggest_int("gdmp.purify_steps", 2, min(room.rows, t), log=True)
    return {
        "method": "gdmp",
        "variant": variant,
        "purify_steps": steps,
        "rounds": trial.suggest_int("gdmp.rounds", 1, min(room.rows // steps, MOST_ROUNDS)),
        "respacing": str(_kept(room.timesteps, t, steps if variant == "official" else steps - 1)),
        "guide_scale": float(f"{trial.suggest_float('gdmp.guide_scale', 1.0, 1e5, log=True):.2g}"),
        "variance": trial.suggest_categorical("gdmp.variance", tuple(v for v in room.variances if v != "learned")),
    }


def gnsp(trial: Suggest, room: Room) -> dict[str, Any]:
    top = room.level(trial, "gnsp.level", 0.04, 0.5)
    rounds = trial.suggest_int("gnsp.rounds", 2, min(room.rows, MOST_ROUNDS))
    steps = trial.suggest_int("gnsp.steps", 1, min(room.rows // rounds, top), log=True)
    # a multiple of the steps: otherwise the authors' list of timesteps has more entries than steps
    levels = [steps * max(1, round(top * (r + 1) / (rounds * steps))) for r in range(rounds)]
    return {
        "method": "gnsp",
        "max_timesteps": levels,
        "num_denoising_steps": [steps] * rounds,
        "sampler": trial.suggest_categorical("gnsp.sampler", ("ddpm", "ddim")),
        "clip": True,
    }


def starts(method: str, room: Room) -> dict[str, Any]:
    """Noise levels like the published ones (shares of T), for the first trial of a method; the rest is drawn."""
    level = {
        "uniform": ("uniform.t_star", 0.12), "heterogeneous": ("heterogeneous.t_l", 0.2),
        "repaint": ("repaint.level", 0.2), "gdmp": ("gdmp.level", 0.1), "gnsp": ("gnsp.level", 0.12),
    }  # fmt: skip
    name, share = level[method]
    found: dict[str, Any] = {"method": method, name: max(2, round(share * room.timesteps / room.unit))}
    if method == "heterogeneous":
        found |= {"heterogeneous.t_s_share": 0.5, "heterogeneous.eta": 1.0}
    return found


def choose_method(trial: Suggest, kind: str, room: Room) -> dict[str, Any]:
    """The method part of a preset of a ``kind`` of `LEAST_ROWS`, with at most ``room.rows`` rows."""
    method, *reading = kind.split("/")
    if method == "heterogeneous":
        return heterogeneous(trial, room, *reading)
    others: dict[str, Callable[[Suggest, Room], dict[str, Any]]] = {
        "uniform": uniform, "repaint": repaint, "gdmp": gdmp, "gnsp": gnsp,
    }  # fmt: skip
    return others[method](trial, room)


def _kept(timesteps: int, level: int, index: int) -> int:
    """How many timesteps to keep, so that the kept one number ``index`` lies near ``level``."""
    return min(timesteps, 1 + round(index * (timesteps - 1) / level))


def _reverse_steps(steps: int, jump_length: int, repeats: int) -> int:
    return sum(b < a for a, b in pairwise(jump_times(steps, 1, jump_length, repeats)))

"""G4: RePaint's jump schedule and its trajectory."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from golden_cases import SCHEDULE, T, repaint
from golden_data import files, load, meta
from golden_trace import check, numpy_stepper, run

from edgepure.methods.repaint import jump_times
from edgepure.rows import grids
from edgepure.rows.schedule import posterior

pytestmark = pytest.mark.goldens

FOLDER = "G4_repaint_schedule"
PATHS = files(FOLDER, "repaint_trajectory*.npz")


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_trajectory(path: Path) -> None:
    case = repaint(path)
    check(case, run(case, numpy_stepper(case, 3)))


@pytest.mark.parametrize("entry", meta(FOLDER)["schedules"], ids=lambda e: "-".join(map(str, e["params"].values())))
def test_jump_schedule(entry: dict) -> None:
    times = jump_times(**entry["params"])
    assert times == entry["times"]
    pairs = list(itertools.pairwise(times))
    assert sum(b < a for a, b in pairs) == entry["n_reverse"]
    assert sum(b > a for a, b in pairs) == entry["n_forward"]


def test_trajectory_walk() -> None:
    trajectory = meta(FOLDER)["trajectory"]
    assert jump_times(**trajectory["schedule_jump_params"]) == trajectory["times"]
    assert grids.respaced(T, trajectory["respacing"])[::-1] == trajectory["timestep_map"]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_respaced_process(path: Path) -> None:
    d = load(path)
    kept = grids.respaced(T, str(int(d["respacing"])))[::-1]
    assert kept == d["timestep_map"].tolist()
    levels = [SCHEDULE.alpha_bar(t) for t in kept]
    betas = [posterior(a, b)["beta"] for a, b in zip(levels, [1.0, *levels[:-1]], strict=True)]
    np.testing.assert_allclose(betas, d["spaced_betas"], rtol=1e-11)

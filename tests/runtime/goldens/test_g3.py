"""G3: DiffPure's uniform noise (ancestral, DDIM, VP-SDE), schedules and respaced timesteps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from golden_cases import SCHEDULE, SOURCES, T
from golden_data import files, load, meta
from golden_trace import Case, check, numpy_stepper, run

from edgepure.rows import grids
from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec, posterior

pytestmark = pytest.mark.goldens

FOLDER = "G3_diffpure_uniform"
CASES = [(make, path) for folder, pattern, make in SOURCES if folder == FOLDER for path in files(folder, pattern)]


@pytest.mark.parametrize(("make", "path"), CASES, ids=[path.stem for _, path in CASES])
def test_trajectory(make: Callable[[Path], Case], path: Path) -> None:
    case = make(path)
    check(case, run(case, numpy_stepper(case, 3)))


def _spaced_betas(kept_ascending: list[int]) -> list[float]:
    levels = [SCHEDULE.alpha_bar(t) for t in kept_ascending]
    return [posterior(a, b)["beta"] for a, b in zip(levels, [1.0, *levels[:-1]], strict=True)]


@pytest.mark.parametrize("path", files(FOLDER, "ddim*_eta*_*.npz"), ids=lambda p: p.stem)
def test_spaced_betas(path: Path) -> None:
    d = load(path)
    np.testing.assert_allclose(_spaced_betas(d["steps_ascending"].tolist()), d["spaced_betas"], rtol=1e-12)


@pytest.mark.parametrize("path", files(FOLDER, "schedule*.npz"), ids=lambda p: p.stem)
def test_schedule_tables(path: Path) -> None:
    d = load(path)
    cosine = ScheduleSpec(kind="cosine", timesteps=T).build()
    floor = math.log(posterior(SCHEDULE.alpha_bar(1), SCHEDULE.alpha_bar(0))["variance"])
    for row, t in enumerate(d["idx"].tolist()):
        q = posterior(SCHEDULE.alpha_bar(t), SCHEDULE.alpha_bar(t - 1))
        log_variance = math.log(q["variance"]) if t > 0 else floor
        got = {
            "betas": SCHEDULE.betas[t],
            "alphas_cumprod": SCHEDULE.alpha_bar(t),
            "posterior_variance": q["variance"],
            "posterior_log_variance_clipped": log_variance,
            "posterior_mean_coef1": q["c1"],
            "posterior_mean_coef2": q["c2"],
            "cosine_alphas_cumprod": cosine.alpha_bar(t),
        }
        for name, value in got.items():
            assert value == pytest.approx(float(d[name][row]), rel=1e-9, abs=1e-12), (name, t)


@pytest.mark.parametrize("respacing", meta(FOLDER)["space_timesteps_1000"])
def test_respaced_timesteps(respacing: str) -> None:
    assert grids.respaced(T, respacing)[::-1] == meta(FOLDER)["space_timesteps_1000"][respacing]


def test_linear_schedule_is_the_default_spec() -> None:
    assert np.array_equal(ScheduleSpec().build().betas, NoiseSchedule.linear().betas)

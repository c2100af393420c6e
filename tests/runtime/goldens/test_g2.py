"""G2: the heterogeneous method by its authors' code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from golden_cases import T, dhni
from golden_data import files, meta
from golden_trace import check, numpy_stepper, run

from edgepure.rows import grids

pytestmark = pytest.mark.goldens

FOLDER = "G2_dhni_trajectory"


@pytest.mark.parametrize("capacity", [1, 2, 8])
@pytest.mark.parametrize("path", files(FOLDER, "dhni_cfg*.npz"), ids=lambda p: p.stem)
def test_trajectory(path: Path, capacity: int) -> None:
    case = dhni(path)
    check(case, run(case, numpy_stepper(case, capacity)))


@pytest.mark.parametrize("name", meta(FOLDER)["ddim_timesteps_total1000"])
def test_timestep_lists(name: str) -> None:
    values = dict(part.split("=") for part in name.split(","))
    want = meta(FOLDER)["ddim_timesteps_total1000"][name]
    assert grids.strided(T, int(values["ddim_steps"]), float(values["strength"])) == want


@pytest.mark.parametrize("path", files(FOLDER, "dhni_cfg*.npz"), ids=lambda p: p.stem)
def test_tolerance_notices_a_label_off_by_one(path: Path) -> None:
    case = dhni(path)
    shifted = [replace(row, t=row.t + 1) for row in case.plans[0].rows]
    case.plans = [replace(plan, rows=tuple(shifted)) for plan in case.plans]
    case.expect = [expect for expect in case.expect if expect.what != "t"]
    with pytest.raises(AssertionError, match="off by"):
        check(case, run(case, numpy_stepper(case, 2)))

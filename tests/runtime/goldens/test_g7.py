"""G7: gradual noise scheduling (GNSP)."""

from __future__ import annotations

from pathlib import Path

import pytest
from golden_cases import SCHEDULE, gnsp
from golden_data import files, meta
from golden_trace import check, numpy_stepper, run

from edgepure.methods import GnspSpec
from edgepure.rows import grids

pytestmark = pytest.mark.goldens

FOLDER = "G7_gnsp"


@pytest.mark.parametrize("path", files(FOLDER, "gnsp_*.npz"), ids=lambda p: p.stem)
def test_trajectory(path: Path) -> None:
    case = gnsp(path)
    check(case, run(case, numpy_stepper(case, 3)))


@pytest.mark.parametrize("name", meta(FOLDER)["lists"])
def test_timestep_lists(name: str) -> None:
    entry = meta(FOLDER)["lists"][name]
    levels = [int(n) for n in entry["max_timesteps"].split(",")]
    counts = [int(n) for n in entry["num_denoising_steps"].split(",")]
    got = [grids.lee_kim(level, count)[::-1] for level, count in zip(levels, counts, strict=True)]
    assert got == entry["timesteps_ascending"]
    assert [level - 1 for level in levels] == entry["noise_index"]
    plan = GnspSpec(max_timesteps=tuple(levels), num_denoising_steps=tuple(counts)).compile(SCHEDULE, 1)
    assert plan.unet_calls == entry["n_unet_calls"]

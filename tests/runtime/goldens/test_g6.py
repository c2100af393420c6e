"""G6: the expected perturbation score and SSNI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from golden_cases import SOURCES, ssni
from golden_data import files, load, meta
from golden_trace import Case, check, numpy_stepper, run
from ssni_official import official_grid, official_noise_level

from edgepure.methods import ssni as adaptive
from edgepure.methods.ssni import SsniSpec

pytestmark = pytest.mark.goldens

FOLDER = "G6_eps_score"
CASES = [(make, path) for folder, pattern, make in SOURCES if folder == FOLDER for path in files(folder, pattern)]
SSNI = [*files(FOLDER, "ssni_*_sigmoid.npz"), *files(FOLDER, "ssni_*_linear.npz")]


@pytest.mark.parametrize(("make", "path"), CASES, ids=[path.stem for _, path in CASES])
def test_trajectory(make: Callable[[Path], Case], path: Path) -> None:
    case = make(path)
    check(case, run(case, numpy_stepper(case, 3)))


@pytest.mark.parametrize("path", SSNI, ids=lambda p: p.stem)
def test_noise_level_of_every_image(path: Path) -> None:
    d = load(path)
    reference = adaptive.reference_statistics(d["ref_norms"].tolist())
    assert reference["mu"] == pytest.approx(float(d["mu"]), rel=1e-12)
    # the authors take the extremes over the reference images and the current batch
    both = adaptive.reference_statistics([*d["ref_norms"].tolist(), *d["eps_l2"].tolist()])
    assert both["xi_min"] == pytest.approx(float(d["xi_min"]), rel=1e-12)
    assert both["xi_max"] == pytest.approx(float(d["xi_max"]), rel=1e-12)
    got = [
        official_noise_level(
            float(n),
            reweighting="linear" if "linear" in path.stem else "sigmoid",
            t_star=int(d["t_star"]),
            bias=int(d["bias"]),
            mu=float(d["mu"]),
            tau=float(d["tau"]) or 1.0,
            xi_min=float(d["xi_min"]),
            xi_max=float(d["xi_max"]),
        )
        for n in d["eps_l2"]
    ]
    assert got == d["t_of_x"].tolist()
    assert int(d["max_timestep"]) == int(d["t_star"]) - 1


@pytest.mark.parametrize("path", SSNI, ids=lambda p: p.stem)
def test_visited_timesteps(path: Path) -> None:
    d, case = load(path), ssni(path)
    for image, plan in enumerate(case.plans):
        assert [row.t for row in plan.rows] == d["visited_t"][:, image].tolist()
        assert plan.rows[0].draws[0].level == d["noise_index"][image]


def test_timestep_lists() -> None:
    table = meta(FOLDER)["ssni_get_diffusion_params"]
    wrong = [
        (steps, t)
        for steps, lists in table.items()
        for t, want in lists.items()
        if official_grid(int(t), int(steps))[::-1] != want
    ]
    assert table and wrong == []


@pytest.mark.parametrize("path", files(FOLDER, "ssni_paper_formula_table*.npz"), ids=lambda p: p.stem)
def test_paper_formulas(path: Path) -> None:
    d = load(path)
    for t_star, bias, tau, *levels in d["table"].tolist():
        linear = tau == -1.0
        spec = SsniSpec(
            reweighting="linear" if linear else "sigmoid",
            bias=bias,
            mu=float(d["mu"]),
            tau=None if linear else tau,
            xi_min=float(d["xi_min"]),
            xi_max=float(d["xi_max"]),
        )
        got = [spec.noise_level(float(n), t_star) for n in d["norms"]]
        np.testing.assert_allclose(got, levels, rtol=1e-12)

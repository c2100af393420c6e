"""G5: GDMP. SSIM guidance is not linear in x and does not fit a row: asking for it is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from golden_cases import SCHEDULE, T, gdmp_cifar, gdmp_imagenet
from golden_data import files, load
from golden_trace import ATOL, check, numpy_stepper, owed, run

from edgepure.methods import GdmpSpec
from edgepure.methods.gdmp import guidance_scale
from edgepure.rows import grids
from edgepure.rows.schedule import posterior

pytestmark = pytest.mark.goldens

FOLDER = "G5_gdmp_guidance"
MSE = files(FOLDER, "gdmp_cifar_mse*.npz")


@pytest.mark.parametrize("path", [*MSE, *files(FOLDER, "gdmp_cifar_noguide*.npz")], ids=lambda p: p.stem)
def test_cifar_trajectory(path: Path) -> None:
    case = gdmp_cifar(path)
    trace = run(case, numpy_stepper(case, 2))
    check(case, trace)
    d = load(path)
    for number, image in enumerate(d["images_per_iter"], 1):
        row = number * int(d["purify_step"]) - 1
        got = trace.x[row] + owed(case, row)
        assert np.abs(np.clip(got / 2 + 0.5, 0, 1) - image).max() < ATOL


@pytest.mark.parametrize("path", files(FOLDER, "gdmp_imagenet_mse*.npz"), ids=lambda p: p.stem)
def test_imagenet_trajectory(path: Path) -> None:
    case = gdmp_imagenet(path)
    trace = run(case, numpy_stepper(case, 2))
    check(case, trace)
    d = load(path)
    assert np.abs(np.clip(trace.final / 2 + 0.5, 0, 1) - np.clip(d["image_final"], 0, 1)).max() < ATOL


@pytest.mark.parametrize("path", files(FOLDER, "gdmp_imagenet_mse*.npz"), ids=lambda p: p.stem)
def test_respaced_process(path: Path) -> None:
    d = load(path)
    kept = grids.respaced(T, str(int(d["respacing"])))[::-1]
    assert kept == d["timestep_map"].tolist()
    levels = [SCHEDULE.alpha_bar(t) for t in kept]
    betas = [posterior(a, b)["beta"] for a, b in zip(levels, [1.0, *levels[:-1]], strict=True)]
    np.testing.assert_allclose(betas, d["spaced_betas"], rtol=1e-11)


@pytest.mark.parametrize("path", [*MSE, *files(FOLDER, "gdmp_cifar_ssim*.npz")], ids=lambda p: p.stem)
def test_guidance_scale(path: Path) -> None:
    d = load(path)
    got = [guidance_scale(SCHEDULE.alpha_bar(int(t)), float(d["ptb"]), float(d["guide_scale"])) for t in d["t"]]
    np.testing.assert_allclose(got, d["scale"], rtol=1e-12)


@pytest.mark.parametrize("path", MSE, ids=lambda p: p.stem)
def test_guidance_gradient(path: Path) -> None:
    """The pull of a row is V_t times the recorded gradient: what it adds to x is out_z * z + out_ref * ref + noise."""
    case, d = gdmp_cifar(path), load(path)
    trace = run(case, numpy_stepper(case, 2))
    assert trace.z is not None
    rows = case.plans[0].rows
    spec = GdmpSpec(purify_steps=int(d["purify_step"]), rounds=int(d["max_iter"]), guidance="none")
    plain = spec.compile(SCHEDULE, 1).rows
    floor = posterior(SCHEDULE.alpha_bar(1), SCHEDULE.alpha_bar(0))["variance"]
    targets = [array for _, array in case.recorded.noises["target"]]
    for number, (row, bare) in enumerate(zip(rows, plain, strict=True)):
        t = int(d["t"][number])
        variance = SCHEDULE.betas[t] if t > 0 else floor
        noise = SCHEDULE.sigma(t) * targets[number]
        pulled = (row.out_z - bare.out_z) * trace.z[number] + row.out_ref * case.refs
        pulled = pulled + row.out_ref / SCHEDULE.sqrt_alpha_bar(t) * noise
        gradient = pulled / variance
        # the recorded gradients carry 3.8e-5 absolute, 1.4e-6 relative, at |g| <= 28
        assert np.abs(gradient - d["guide_grad"][number]).max() < 5e-6 * np.abs(d["guide_grad"]).max() + 2e-5


def test_ssim_guidance_is_refused() -> None:
    with raises_code("E-gdmp-ssim"):
        GdmpSpec(guidance="ssim").compile(SCHEDULE, 3)

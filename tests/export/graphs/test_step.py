"""The step modules are the rows of `edgepure.rows.plan`, for every combination of coefficients."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_models
import torch
from torch import Tensor

from edgepure.rows.execute import execute_row
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS, NO_CLIP
from edgepure_export.graphs.step import LearnedStepModule, StepModule, UnetModule


def random_case(batch: int, learned: bool, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, tiny_models.CHANNELS, tiny_models.SIZE, tiny_models.SIZE)
    case = {name: torch.randn(shape, generator=generator) for name in ("x", "ref", "noise")}
    case["mask"] = torch.rand((batch, 1, *shape[2:]), generator=generator)
    case["mask"][0] = case["mask"][0].round()
    names = COLUMNS + LEARNED_COLUMNS if learned else COLUMNS
    case["coeffs"] = torch.rand((batch, len(names)), generator=generator) + 0.2
    case["coeffs"][:, 0] *= 500.0
    case["coeffs"][:, names.index("x0_min")] *= -1.0
    case["coeffs"][-1, names.index("x0_min")] = -NO_CLIP
    case["coeffs"][-1, names.index("x0_max")] = NO_CLIP
    case["coeffs"][-1, 1:5] = 0.0  # noise alone
    if learned:
        case["coeffs"][:, len(COLUMNS) : len(COLUMNS) + 2] *= -4.0
        case["noise_out"] = torch.randn(shape, generator=generator)
    return case


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_against_the_numpy_definition(learned: bool, batch: int) -> None:
    unet = tiny_models.TinyUNet(learned=learned)
    module = LearnedStepModule(unet) if learned else StepModule(unet)

    def epsilon(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return unet(torch.from_numpy(z), torch.from_numpy(t)).numpy()

    for seed in range(5):
        case = random_case(batch, learned, seed)
        with torch.no_grad():
            found = module(*case.values()).numpy()
        arrays = {key: tensor.numpy() for key, tensor in case.items()}
        np.testing.assert_allclose(found, execute_row(epsilon, **arrays), rtol=2e-5, atol=2e-5)


def test_plain_step_of_a_learned_network_uses_epsilon_alone() -> None:
    unet = tiny_models.TinyUNet(learned=True)
    case = random_case(2, False, 0)

    class Epsilon(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            eps: Tensor = unet(x, t)[:, : tiny_models.CHANNELS]
            return eps

    with torch.no_grad():
        torch.testing.assert_close(StepModule(unet)(*case.values()), StepModule(Epsilon())(*case.values()))
        x, t = case["x"], case["coeffs"][:, 0]
        torch.testing.assert_close(UnetModule(unet)(x, t), Epsilon()(x, t))


def test_gradients_where_there_is_no_noise() -> None:
    case = random_case(2, False, 0)
    case["coeffs"][:, [COLUMNS.index(name) for name in ("noise_base", "noise_mask")]] = 0.0
    leaves = {name: case[name].requires_grad_() for name in ("x", "ref", "noise", "mask", "coeffs")}
    StepModule(tiny_models.TinyUNet())(*case.values()).square().sum().backward()
    for name, leaf in leaves.items():
        assert leaf.grad is not None, name
        assert leaf.grad.isfinite().all(), name
    assert leaves["noise"].grad is not None
    assert leaves["noise"].grad.abs().max() == 0


def test_finite_differences() -> None:
    unet = tiny_models.TinyUNet(learned=True).double()
    case = {key: tensor.double() for key, tensor in random_case(2, True, 1).items()}
    case["x"].requires_grad_()
    case["mask"].requires_grad_()
    assert torch.autograd.gradcheck(LearnedStepModule(unet), tuple(case.values()), fast_mode=True)

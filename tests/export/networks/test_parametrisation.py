"""Every parametrisation becomes ``eps = model(x_t, t)`` on the runtime's schedule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_parity
import pytest
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec
from edgepure_export.networks.parametrisation import (
    EpsilonModel,
    EpsilonOnly,
    NoiseLevels,
    TimestepTable,
    log_sigma,
    matching_labels,
    to_epsilon,
)

LINEAR = NoiseSchedule.linear()
COSINE = ScheduleSpec(kind="cosine", timesteps=4000).build()
SCALED = ScheduleSpec(kind="scaled_linear", beta_start=0.00085, beta_end=0.012).build()


class Known(nn.Module):
    """A network that answers ``answer`` and remembers what it was called with."""

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer
        self.calls: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        self.calls.append((x, label))
        return self.answer


class Tiny(nn.Module):
    """A small network that depends on both of its inputs; ``outputs`` channels."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, outputs, 3, padding=1)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        out: Tensor = self.conv(x) * torch.cos(0.01 * label)[:, None, None, None]
        return out


def noised(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x0, eps, x_t, sqrt(alpha_bar), sqrt(1 - alpha_bar) in float64."""
    torch.manual_seed(1)
    x0, eps = (torch.randn(len(t), 3, 4, 4, dtype=torch.float64) for _ in range(2))
    abar = torch.tensor(schedule.alphas_cumprod[t.long().numpy()])[:, None, None, None]
    return x0, eps, abar.sqrt() * x0 + (1 - abar).sqrt() * eps, abar.sqrt(), (1 - abar).sqrt()


T = torch.tensor([0.0, 1.0, 50.0, 499.0, 999.0])


@pytest.mark.parametrize("schedule", [LINEAR, SCALED], ids=["linear", "scaled_linear"])
@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_the_true_noise_comes_out(prediction: str, schedule: NoiseSchedule) -> None:
    x0, eps, x_t, signal, noise = noised(schedule, T)
    answer = {"epsilon": eps, "v": signal * eps - noise * x0, "x0": x0}[prediction]
    network = Known(answer.float())
    model = to_epsilon(network, prediction, runtime=schedule)  # type: ignore[arg-type]
    got = model(x_t.float(), T)
    # x0 is the one ill-posed prediction: float32 rounding of the image is divided by the noise level.
    error = (got.double() - eps).abs().amax((1, 2, 3)) * (noise.flatten() if prediction == "x0" else 1.0)
    assert error.max() < 2e-6
    assert torch.equal(network.calls[0][1], T)  # the label is the index itself


def test_the_true_noise_comes_out_of_a_denoiser() -> None:
    x0, eps, x_t, signal, noise = noised(LINEAR, T)
    network = Known(x0.float())
    got = to_epsilon(network, "denoiser")(x_t.float(), T)
    assert ((got.double() - eps) * noise).abs().max() < 2e-6
    x_edm, sigma = network.calls[0]
    assert torch.allclose(sigma.double(), (noise / signal).flatten(), rtol=1e-6)
    assert torch.allclose(x_edm.double(), x0 + noise / signal * eps, rtol=1e-5, atol=1e-5)


def test_the_true_noise_comes_out_of_a_score() -> None:
    x0 = torch.randn(4, 3, 4, 4, dtype=torch.float64)
    eps = torch.randn_like(x0)
    t = torch.tensor([0.999, 20.0, 300.5, 999.0], dtype=torch.float64)
    std = torch.tensor([LINEAR.sde.sigma(float(s)) for s in t / 999])[:, None, None, None]
    network = Known((-eps / std).float())
    got = to_epsilon(network, "score")(x0.float(), t.float())
    assert torch.allclose(got.double(), eps, rtol=2e-6, atol=1e-6)
    assert torch.allclose(network.calls[0][1].double(), t / 999, rtol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v", "x0"])
def test_learned_variance_follows_unchanged(prediction: str) -> None:
    _, _, x_t, _, _ = noised(LINEAR, T)
    answer = torch.randn(5, 6, 4, 4)
    model = to_epsilon(Known(answer), prediction)  # type: ignore[arg-type]
    plain = to_epsilon(Known(answer[:, :3]), prediction)  # type: ignore[arg-type]
    out = model(x_t.float(), T)
    assert torch.equal(out[:, 3:], answer[:, 3:])
    assert torch.equal(out[:, :3], plain(x_t.float(), T))
    assert torch.equal(EpsilonOnly(model)(x_t.float(), T), out[:, :3])


@pytest.mark.parametrize("trained_with", [COSINE, SCALED], ids=["cosine", "scaled_linear"])
def test_another_schedule_is_called_at_the_same_noise_level(trained_with: NoiseSchedule) -> None:
    labels = matching_labels(trained_with, LINEAR)
    reached = np.interp(labels, np.arange(len(trained_with)), log_sigma(trained_with))
    low, high = log_sigma(trained_with)[[0, -1]]
    np.testing.assert_allclose(reached, np.clip(log_sigma(LINEAR), low, high), atol=1e-9)
    network = Known(torch.zeros(5, 3, 4, 4))
    to_epsilon(network, "epsilon", trained_with, label_scale=0.25)(torch.zeros(5, 3, 4, 4), T)
    np.testing.assert_allclose(network.calls[0][1].numpy(), 0.25 * labels[T.long().numpy()], rtol=1e-6, atol=1e-6)


def test_the_same_schedule_needs_no_table() -> None:
    explicit = ScheduleSpec(kind="betas", betas=tuple(LINEAR.betas.tolist())).build()
    assert to_epsilon(Tiny(), "epsilon", explicit).labels is None
    network = Known(torch.zeros(1, 3, 4, 4))
    to_epsilon(network, "epsilon", LINEAR, label_scale=0.5)(torch.zeros(1, 3, 4, 4), torch.tensor([77.0]))
    assert network.calls[0][1].tolist() == [38.5]


def test_noise_levels_are_exact_at_every_index() -> None:
    signal, noise, sigma = (v.flatten().double().numpy() for v in NoiseLevels(LINEAR)(torch.arange(1000.0)))
    abar = LINEAR.alphas_cumprod
    np.testing.assert_allclose(signal, np.sqrt(abar), rtol=1e-6)
    np.testing.assert_allclose(noise, np.sqrt(1 - abar), rtol=1e-6)
    np.testing.assert_allclose(sigma, np.sqrt((1 - abar) / abar), rtol=1e-6)


def test_noise_levels_between_and_beyond_the_indices() -> None:
    levels = NoiseLevels(LINEAR)
    at = levels(torch.tensor([40.0, 40.25, 41.0, -3.0, 0.0, 999.0, 1002.0]))[2].flatten()
    assert at[0] < at[1] < at[2]
    assert torch.log(at[1]).item() == pytest.approx(0.75 * at[0].log().item() + 0.25 * at[2].log().item(), abs=1e-5)
    assert at[3] == at[4] and at[5] == at[6]


def test_tables_stay_exact_in_half_precision() -> None:
    values = np.linspace(0.0, 999.0, 1000) * 1.001
    table = nn.Sequential(TimestepTable(values)).half()
    assert table(torch.tensor([801.0])).item() == pytest.approx(801 * 1.001, rel=1e-6)
    assert not table.state_dict()  # no part of a checkpoint


def test_outputs_of_libraries_are_unwrapped() -> None:
    class Output:
        sample = torch.ones(2, 3, 4, 4)

    class Wrapped(nn.Module):
        def __init__(self, value: object) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor, label: Tensor) -> object:
            return self.value

    x, t = torch.zeros(2, 3, 4, 4), torch.zeros(2)
    assert torch.equal(to_epsilon(Wrapped(Output()), "epsilon")(x, t), Output.sample)
    assert torch.equal(to_epsilon(Wrapped((Output.sample,)), "epsilon")(x, t), Output.sample)
    with raises_code("E-prediction-shape"):
        to_epsilon(Wrapped({}), "epsilon")(x, t)


def test_refused_combinations() -> None:
    with raises_code("E-prediction-unknown"):
        to_epsilon(Tiny(), "noise")  # type: ignore[arg-type]
    with raises_code("E-prediction-label"):
        to_epsilon(Tiny(), "denoiser", trained_with=COSINE)
    with raises_code("E-prediction-label"):
        to_epsilon(Tiny(), "score", label_scale=0.25)


@pytest.mark.parametrize(
    ("prediction", "outputs", "trained_with"),
    [
        ("epsilon", 6, COSINE),
        ("v", 3, None),
        ("v", 6, COSINE),
        ("x0", 3, SCALED),
        ("denoiser", 3, None),
        ("score", 3, None),
    ],
)
def test_exported_graph_agrees(
    prediction: str, outputs: int, trained_with: NoiseSchedule | None, tmp_path: Path
) -> None:
    model: EpsilonModel = to_epsilon(Tiny(outputs), prediction, trained_with)  # type: ignore[arg-type]
    x, t = torch.randn(4, 3, 8, 8), torch.tensor([3.0, 250.5, 999.0, 40.25])
    assert onnx_parity.deviation(model.eval(), (x, t), tmp_path / "eps.onnx", batches=(1, 4)) < 2e-5

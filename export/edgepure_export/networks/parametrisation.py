"""Whatever a diffusion network predicts becomes the runtime's single convention: ``eps = model(x_t, t)``.

``x_t`` [B, C, H, W] in model range [-1, 1], ``x_t = sqrt(alpha_bar_t) * x_0 + sqrt(1 - alpha_bar_t) * eps``; ``t`` [B]
real-valued index of the runtime's schedule, by default the linear VP schedule with T = 1000.

| prediction | the network is called as                  | eps                                                  |
|------------|-------------------------------------------|------------------------------------------------------|
| epsilon    | ``e(x_t, label)``                         | ``e``                                                |
| v          | ``v(x_t, label)``, Salimans & Ho 2022     | ``sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t``      |
| x0         | ``x0(x_t, label)``                        | ``(x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar)`` |
| denoiser   | ``D(x_t / sqrt(alpha_bar), sigma)``, EDM  | ``(x_t - sqrt(alpha_bar) D) / sqrt(1 - alpha_bar)``  |
| score      | ``score(x_t, s)``, ``s = t / (T - 1)``    | ``-std(s) score``, Song et al. 2021                  |

A network with learned-range variance has 2C output channels: the first C are converted, the last C (the interpolation
``v`` in [-1, 1] between the two log variances) follow unchanged; `EpsilonOnly` drops them.

A network that was trained with another schedule is called at the index of *its* schedule that has the same
signal-to-noise ratio (`matching_labels`): the distribution of ``x_t`` is the same, so the conversion is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgepure.errors import ExportError
from edgepure.rows.schedule import NoiseSchedule

Prediction = Literal["epsilon", "v", "x0", "denoiser", "score"]
Float64 = NDArray[np.float64]


class TimestepTable(nn.Module):
    """A function of the timestep, given at t = 0 .. T-1 and linear between; constant outside.

    Kept in float32 even where the network is cast to half precision.
    """

    values: Tensor

    def __init__(self, values: Float64) -> None:
        super().__init__()
        table = torch.tensor(np.asarray(values, dtype=np.float32), device="cpu")
        self.register_buffer("values", table, persistent=False)

    def forward(self, t: Tensor) -> Tensor:
        """t [B] -> values [B] float32."""
        last = self.values.shape[0] - 1
        t = t.to(torch.float32).clamp(0.0, float(last))
        low = t.floor()
        index = low.to(torch.int64)
        start, end = self.values[index], self.values[(index + 1).clamp(max=last)]
        return start + (t - low) * (end - start)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TimestepTable:
        exact = self.values
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.values = exact.to(self.values.device)
        return self


class NoiseLevels(nn.Module):
    """sqrt(alpha_bar) and sqrt(1 - alpha_bar) at real-valued timesteps.

    Interpolates the logarithm of sigma = sqrt((1 - alpha_bar) / alpha_bar); both follow from it without cancellation.
    """

    def __init__(self, schedule: NoiseSchedule) -> None:
        super().__init__()
        self.log_sigma = TimestepTable(log_sigma(schedule))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t [B] -> signal, noise, sigma = noise / signal; each [B, 1, 1, 1] float32."""
        sigma = torch.exp(self.log_sigma(t))[:, None, None, None]
        signal = torch.rsqrt(1.0 + sigma * sigma)
        return signal, sigma * signal, sigma


class EpsilonModel(nn.Module):
    """Base of the conversions: ``forward(x [B, C, H, W], t [B]) -> [B, C or 2C, H, W]``.

    Args:
        network: called as ``network(x, label [B])``.
        schedule: the runtime's schedule, whose index ``t`` is.
        labels: what the network is told at t = 0 .. T-1; None: ``t`` itself.
    """

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, labels: Float64 | None = None) -> None:
        super().__init__()
        self.network = network
        self.schedule = schedule
        self.labels = None if labels is None else TimestepTable(labels)

    def label(self, t: Tensor) -> Tensor:
        return t if self.labels is None else _as_tensor(self.labels(t)).to(t.dtype)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return _as_tensor(self.network(x, self.label(t)))


class EpsilonFromV(EpsilonModel):
    """eps = sqrt(alpha_bar) v + sqrt(1 - alpha_bar) x_t."""

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, labels: Float64 | None = None) -> None:
        super().__init__(network, schedule, labels)
        self.levels = NoiseLevels(schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise, _ = self.levels(t)
        v, rest = _split(_as_tensor(self.network(x, self.label(t))), x)
        return _join(signal * v + noise * x, rest)


class EpsilonFromX0(EpsilonModel):
    """eps = (x_t - sqrt(alpha_bar) x0) / sqrt(1 - alpha_bar)."""

    def __init__(self, network: nn.Module, schedule: NoiseSchedule, labels: Float64 | None = None) -> None:
        super().__init__(network, schedule, labels)
        self.levels = NoiseLevels(schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise, _ = self.levels(t)
        x0, rest = _split(_as_tensor(self.network(x, self.label(t))), x)
        return _join((x - signal * x0) / noise, rest)


class EpsilonFromDenoiser(EpsilonModel):
    """A denoiser ``D(x_edm, sigma [B])`` for ``x_edm = x_0 + sigma * eps`` (Karras et al. 2022).

    For a network whose preconditioning is known, `networks.edm.EdmEpsilon` is more exact: it never forms the
    difference of two nearly equal images.
    """

    def __init__(self, network: nn.Module, schedule: NoiseSchedule) -> None:
        super().__init__(network, schedule)
        self.levels = NoiseLevels(schedule)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise, sigma = self.levels(t)
        x0 = _as_tensor(self.network(x / signal, sigma.flatten()))
        eps: Tensor = (x - signal * x0) / noise
        return eps


class EpsilonFromScore(EpsilonModel):
    """A score function ``score(x, s [B])`` of the continuous VP-SDE, ``s = t / (T - 1)``.

    ``std(s)`` is that of the continuous process (score_sde calls its network with ``label = (T - 1) s``), so that
    the label arrives unchanged: this undoes exactly what turned the network into a score.
    """

    def __init__(self, network: nn.Module, schedule: NoiseSchedule) -> None:
        super().__init__(network, schedule)
        self.sde = schedule.sde
        self.last = float(len(schedule) - 1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        s = t / self.last
        span = self.sde.beta_max - self.sde.beta_min
        std = torch.sqrt(-torch.expm1(-0.5 * s * s * span - s * self.sde.beta_min))
        eps: Tensor = -std[:, None, None, None] * _as_tensor(self.network(x, s))
        return eps


class EpsilonOnly(nn.Module):
    """Drops the variance channels of a network with learned-range variance: [B, 2C, H, W] -> [B, C, H, W]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return _split(_as_tensor(self.network(x, t)), x)[0]


def to_epsilon(
    network: nn.Module,
    prediction: Prediction,
    trained_with: NoiseSchedule | None = None,
    label_scale: float = 1.0,
    runtime: NoiseSchedule | None = None,
) -> EpsilonModel:
    """Convert ``network`` to the runtime's convention.

    Args:
        network: ``network(x, label)``; for "denoiser" ``network(x_edm, sigma)``, for "score" ``network(x, s)``.
        prediction: what it predicts.
        trained_with: the schedule it was trained with; None: the runtime's.
        label_scale: the network's label is this times the index of its own schedule (guided-diffusion with
            ``rescale_timesteps``: 1000 / diffusion_steps).
        runtime: the schedule whose index ``t`` the runtime sends; None: linear VP with T = 1000.

    Raises:
        ExportError: unknown prediction, or one that has no schedule of its own to match.
    """
    runtime = runtime or NoiseSchedule.linear()
    if prediction not in get_args(Prediction):
        raise ExportError(
            f"unknown prediction {prediction!r}; expected one of {', '.join(get_args(Prediction))}",
            code="E-prediction-unknown",
        )
    if prediction in ("denoiser", "score"):
        if trained_with is not None or label_scale != 1.0:
            raise ExportError(
                f"a {prediction} is told the noise level itself: leave out trained_with and label_scale",
                code="E-prediction-label",
            )
        return EpsilonFromDenoiser(network, runtime) if prediction == "denoiser" else EpsilonFromScore(network, runtime)
    labels = None
    if trained_with is not None and not same_levels(trained_with, runtime):
        labels = label_scale * matching_labels(trained_with, runtime)
    elif label_scale != 1.0:
        labels = label_scale * np.arange(len(runtime), dtype=np.float64)
    kinds: dict[str, type[EpsilonModel]] = {"epsilon": EpsilonModel, "v": EpsilonFromV, "x0": EpsilonFromX0}
    return kinds[prediction](network, runtime, labels)


def matching_labels(trained_with: NoiseSchedule, runtime: NoiseSchedule) -> Float64:
    """[T] float64: for each index of ``runtime`` the real-valued index of ``trained_with`` with the same noise level.

    Levels beyond the trained ones take the nearest trained index.
    """
    index = np.arange(len(trained_with), dtype=np.float64)
    return np.asarray(np.interp(log_sigma(runtime), log_sigma(trained_with), index), dtype=np.float64)


def same_levels(a: NoiseSchedule, b: NoiseSchedule) -> bool:
    """True if both have the same alpha_bar at every index."""
    return len(a) == len(b) and bool(np.allclose(log_sigma(a), log_sigma(b), rtol=0.0, atol=1e-7))


def log_sigma(schedule: NoiseSchedule) -> Float64:
    """[T] float64: logarithm of sqrt((1 - alpha_bar) / alpha_bar), increasing in t."""
    log_alpha_bar: Float64 = np.cumsum(np.log1p(-schedule.betas))
    result: Float64 = 0.5 * (np.log(-np.expm1(log_alpha_bar)) - log_alpha_bar)
    return result


def _split(output: Tensor, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prediction and, if there are any, the variance channels behind it."""
    channels = x.shape[1]
    if output.shape[1] == channels:
        return output, None
    return output[:, :channels], output[:, channels:]


def _join(eps: Tensor, rest: Tensor | None) -> Tensor:
    return eps if rest is None else torch.cat([eps, rest], dim=1)


def _as_tensor(output: Any) -> Tensor:
    """The image in a network's output; libraries wrap it in a tuple or an object with ``sample``."""
    if isinstance(output, Tensor):
        return output
    inner = getattr(output, "sample", None)
    if inner is None and isinstance(output, tuple) and output:
        inner = output[0]
    if not isinstance(inner, Tensor):
        raise ExportError(
            f"the diffusion network returned {type(output).__name__}; expected a tensor [B, C, H, W]",
            code="E-prediction-shape",
        )
    return inner

"""What both trainings share: the noise schedule, Muon, averaged weights, and a state that survives a kill."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class Clock:
    """Progress from 0 to 1 through a budget of minutes; the minutes already spent come from the checkpoint.

    The learning rate follows the time that has passed, not the steps: however slow or busy the machine, the rate has
    gone to zero when the time is over. A process that stands still (SIGSTOP, a machine that sleeps) spends nothing.
    """

    LONGEST_STEP = 30.0  # seconds between two looks that count at most

    def __init__(self, minutes: float, spent_seconds: float = 0.0) -> None:
        self.budget = 60 * minutes
        self._spent, self._seen = spent_seconds, time.monotonic()

    def spent(self) -> float:
        now = time.monotonic()
        self._spent += min(now - self._seen, self.LONGEST_STEP)
        self._seen = now
        return self._spent

    def progress(self) -> float:
        return min(1.0, self.spent() / self.budget)


class Muon(torch.optim.Optimizer):
    """Momentum whose matrix-shaped updates are orthogonalised (Jordan et al. 2024), for convolution kernels.

    With `sphere`, every kernel keeps its norm: right for kernels in front of a batch norm, whose scale has no effect.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.9, sphere: bool = False) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "sphere": sphere})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                momentum = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(momentum, group["momentum"]).flatten(1)).reshape(p.shape)
                if group["sphere"]:
                    p.mul_(len(p) ** 0.5 / p.norm())
                    p.add_(update, alpha=-group["lr"])
                else:
                    fan_in = p[0].numel()
                    p.add_(update, alpha=-group["lr"] * max(1.0, len(p) / fan_in) ** 0.5)


def orthogonal(matrix: Tensor, rounds: int = 5) -> Tensor:
    """The nearest orthogonal matrix, roughly: a Newton-Schulz iteration of degree five."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result


class Ema:
    """An exponential moving average of a network's weights and buffers."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.state = {k: v.detach().clone() for k, v in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))  # young averages forget their random start
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)


def alpha_bar() -> Tensor:
    """The cumulative product of the linear schedule, T = 1000."""
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


def set_rate(optimizers: Iterable[torch.optim.Optimizer], factor: float) -> None:
    """Scale every learning rate to `factor` of what it was at the start."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("full_lr", group["lr"])
            group["lr"] = group["full_lr"] * factor


class Training:
    """The state of a training, kept in a checkpoint every three minutes and read from it at the start.

    Attributes:
        step: updates so far, those of earlier starts too.
        clock: the time that all starts have spent.
        generator: of everything that is drawn.
        ema: the averaged weights.
    """

    SAVE_SECONDS = 180.0

    def __init__(
        self,
        run: Path,
        model: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        decay: float,
        minutes: float,
        batch: int,
    ) -> None:
        self._path, self._model, self._optimizers, self._batch = run / "checkpoint.pt", model, optimizers, batch
        self.ema, self.generator, self.step = Ema(model, decay), torch.Generator().manual_seed(1), 0
        self.clock = Clock(minutes)
        stored = load_checkpoint(self._path)
        if stored is not None:
            model.load_state_dict(stored["model"])
            for optimizer, state in zip(optimizers, stored["optimizers"], strict=True):
                optimizer.load_state_dict(state)
            for name, value in stored["ema"].items():
                self.ema.state[name].copy_(value)
            self.generator.set_state(stored["generator"])
            self.ema.steps = self.step = stored["step"]
            self.clock = Clock(minutes, stored["spent"])
        self._saved = time.monotonic()

    def descend(self, loss: Tensor, factor: float, clipped: Iterable[Tensor] = ()) -> None:
        """One update with `factor` of the learning rates; the norm of the gradients of `clipped` is at most 1."""
        set_rate(self._optimizers, factor)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(clipped, 1.0)
        for optimizer in self._optimizers:
            optimizer.step()
        self.ema.update(self._model)
        self.step += 1
        if time.monotonic() - self._saved > self.SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        content = {"model": self._model.state_dict(), "ema": self.ema.state, "step": self.step}
        content |= {"optimizers": [o.state_dict() for o in self._optimizers], "generator": self.generator.get_state()}
        save_checkpoint(self._path, content | {"spent": self.clock.spent(), "batch": self._batch})
        self._saved = time.monotonic()


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write beside, then rename: a kill leaves the old checkpoint or the new one, never half of one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    torch.save(content, beside)
    os.replace(beside, path)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, or None when the run starts; weights and numbers only, nothing that could run."""
    if not path.exists():
        return None
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content

"""A training that is stopped goes on as if it had not been."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from samples.cifar10 import train_unet
from samples.cifar10.training import Muon, Training, load_checkpoint


def begin(run: Path) -> tuple[nn.Module, Training]:
    """A small network; a second begin in the same folder goes on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    kernels = [p for p in model.parameters() if p.ndim == 4]
    others = [p for p in model.parameters() if p.ndim != 4]
    optimizers: list[torch.optim.Optimizer] = [Muon(kernels, 0.1, sphere=True), torch.optim.AdamW(others, 1e-2)]
    return model, Training(run, model, optimizers, 0.9, 60.0, 4)


def go_on(model: nn.Module, training: Training, steps: int) -> None:
    for _ in range(steps):
        x = torch.randn(4, 3, 8, 8, generator=training.generator)
        target = x.mean((1, 2, 3)).gt(0).long()
        training.descend(nn.functional.cross_entropy(model(x), target), 0.5, model[3].parameters())


def test_a_stop_changes_nothing(tmp_path: Path) -> None:
    model, straight = begin(tmp_path / "straight")
    go_on(model, straight, 7)
    other, first = begin(tmp_path / "stopped")
    go_on(other, first, 3)
    first.save()
    other, second = begin(tmp_path / "stopped")
    assert second.step == 3
    go_on(other, second, 4)
    assert (straight.step, second.step, second.ema.steps) == (7, 7, 7)
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
        assert torch.equal(straight.ema.state[name], second.ema.state[name]), name


def test_time_that_was_spent_is_not_given_again(tmp_path: Path) -> None:
    _, training = begin(tmp_path)
    training.clock._spent = 3000.0
    training.save()
    _, again = begin(tmp_path)
    assert 3000.0 / 3600.0 <= again.clock.progress() < 0.9


def test_the_script_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 32, 32), np.uint8)
    monkeypatch.setattr(train_unet, "load_cifar10", lambda path: SimpleNamespace(train_images=images))
    for steps in (1, 2):
        train_unet.main(tmp_path, tmp_path / "run", steps=steps, batch=2, muon=True)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["done: 1 steps", "done: 2 steps"]
    stored = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert stored is not None
    assert stored["step"] == 2 and stored["ema"].keys() == stored["model"].keys()

"""The real AutoAttack, whichever release is there: they name the same things differently."""

from __future__ import annotations

import importlib
import inspect
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor


def library() -> ModuleType:
    """The package as the package index names it, or as its repository does; skips where there is neither."""
    try:
        return importlib.import_module("pyautoattack")
    except ImportError:
        found: ModuleType = pytest.importorskip("autoattack")
        return found


def apgd(model: Any, **options: Any) -> Any:
    """``APGDAttack``, which older releases keep in another module."""
    name = library().__name__
    try:
        module = importlib.import_module(f"{name}.autopgd_base")
    except ImportError:
        module = importlib.import_module(f"{name}.autopgd_pt")
    return module.APGDAttack(model, device="cpu", **_known(module.APGDAttack, options))


def square(model: Any, **options: Any) -> Any:
    """``SquareAttack``."""
    return importlib.import_module(f"{library().__name__}.square").SquareAttack(model, device="cpu", **options)


def auto_attack(model: Any, **options: Any) -> Any:
    """``AutoAttack``, on the CPU and as strong as a test has time for: ``options`` as of the first releases."""
    made = library().AutoAttack
    if "attacks_to_run" in options and "attacks" in inspect.signature(made).parameters:
        options["attacks"] = options.pop("attacks_to_run")
    try:
        attack = made(model, device="cpu", **_known(made, options))
    except ImportError as error:  # the copy that torchattacks 3.3 brings wants a part of PyTorch that is gone
        pytest.skip(f"this release of AutoAttack cannot be used with this PyTorch: {error}")
    for part, values in WEAK.items():
        for name, value in values.items():
            assert hasattr(getattr(attack, part), name), f"AutoAttack's {part} has no {name}"
            setattr(getattr(attack, part), name, value)
    return attack


#: Few steps, queries and classes; everything else stays as the library has it.
WEAK: dict[str, dict[str, Any]] = {
    "apgd": {"n_iter": 4, "eot_iter": 2},
    "apgd_targeted": {"n_iter": 2, "n_target_classes": 2},
    "fab": {"n_iter": 2, "n_target_classes": 2},
    "square": {"n_queries": 20},
}


def run(attack: Any, images: Tensor, labels: Tensor, batch: int = 8) -> Tensor:
    """``run_standard_evaluation``: the attacked images."""
    size = "bs" if "bs" in inspect.signature(attack.run_standard_evaluation).parameters else "batch_size"
    found: Any = attack.run_standard_evaluation(images, labels, **{size: batch})
    return torch.as_tensor(found[0] if isinstance(found, tuple) else found)


def single_run(attack: Any, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One run of ``APGDAttack``: the iterate of the largest loss, which images every iterate left right, that loss."""
    if hasattr(attack, "init_hyperparam"):
        attack.init_hyperparam(images)
    best, right, loss, _ = attack.attack_single_run(images, labels)
    return best.detach(), right, loss


def start(images: Tensor, eps: float, seed: int) -> Tensor:
    """Where its Linf attack starts after ``torch.manual_seed(seed)``: a random point, enlarged to the ball's border."""
    torch.manual_seed(seed)
    drawn = 2 * torch.rand(images.shape) - 1
    drawn = drawn / drawn.abs().flatten(1).amax(1).reshape(-1, 1, 1, 1)
    return (images + eps * drawn).clamp(0.0, 1.0)


def _known(made: Any, options: dict[str, Any]) -> dict[str, Any]:
    taken = inspect.signature(made).parameters
    return {name: value for name, value in options.items() if name in taken}

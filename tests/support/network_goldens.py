"""Small instances of the original networks among the goldens, found by name: `<name>.json/.safetensors/_io.npz`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from goldens_path import goldens_dir
from numpy.typing import NDArray
from torch import Tensor, nn

#: What the goldens' README suggests for networks of this size.
TOLERANCE = 2e-5


@dataclass(frozen=True)
class Golden:
    """One recorded network: its settings, weights file, and inputs and outputs."""

    name: str
    settings: dict[str, Any]
    weights: Path
    arrays: dict[str, NDArray[Any]]

    def tensor(self, key: str) -> Tensor:
        return torch.tensor(self.arrays[key])


def names(folder: str, pattern: str) -> list[str]:
    """Stems of the networks in a folder of the goldens.

    Another folder (`EDGEPURE_GOLDENS`) may lack whole kinds; but of a network that it has nothing may be missing, which
    would be a test that is left out without a word.
    """
    place = goldens_dir() / folder
    for recorded in place.glob("*_io.npz"):
        stem = recorded.name.removesuffix("_io.npz")
        weights = any((place / f"{stem}{end}").exists() for end in (".safetensors", ".pt"))
        assert weights and (place / f"{stem}.json").exists(), f"weights or settings of {stem} are missing in {place}"
    found = sorted(p.stem for p in place.glob(pattern))
    networks = [stem for stem in found if not stem.endswith("_keys")]  # those have names of weights alone
    assert all((place / f"{stem}_io.npz").exists() for stem in networks), f"inputs and outputs are missing in {place}"
    elsewhere = "EDGEPURE_GOLDENS" in os.environ and (not place.exists() or any(place.iterdir()))
    assert found or elsewhere, f"no {pattern} in {place}"
    return found


def load(folder: str, name: str) -> Golden:
    base = goldens_dir() / folder
    weights = next(p for p in (base / f"{name}.safetensors", base / f"{name}.pt") if p.exists())
    with np.load(base / f"{name}_io.npz") as arrays:
        return Golden(name, json.loads((base / f"{name}.json").read_text()), weights, dict(arrays))


def record(module: nn.Module, inputs: Sequence[Tensor], taps: Sequence[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Output of ``module`` and the outputs of its submodules named ``taps``."""
    seen: dict[str, Tensor] = {}
    hooks = [
        module.get_submodule(tap).register_forward_hook(lambda _m, _i, out, tap=tap: seen.__setitem__(tap, out))
        for tap in taps
    ]
    with torch.no_grad():
        output = module(*inputs)
    for hook in hooks:
        hook.remove()
    return output, seen


def difference(got: Tensor, wanted: NDArray[Any]) -> float:
    assert tuple(got.shape) == wanted.shape
    return float(np.abs(got.double().numpy() - wanted).max())


def meta_state(keys: dict[str, list[int]]) -> dict[str, Tensor]:
    """A state dict of these shapes without memory."""
    return {k: torch.empty(shape, device="meta") for k, shape in keys.items()}


def shapes(module: nn.Module) -> dict[str, list[int]]:
    return {k: list(v.shape) for k, v in module.state_dict().items()}

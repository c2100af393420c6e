"""The goldens through the PyTorch reference: the same rows, noise and tolerances as on the NumPy path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import SOURCES
from golden_data import files, numpy_epsilon, onnx_epsilon, torch_epsilon
from golden_trace import Case, Trace, check

from edgepure.rows.replay import Replay
from edgepure_export.twin.noise_batches import SourceNoise
from edgepure_export.twin.reference import TorchReference

pytestmark = pytest.mark.goldens

CASES = [(make, path) for folder, pattern, make in SOURCES for path in files(folder, pattern)]
IDS = [f"{path.parent.name.partition('_')[0]}-{path.stem}" for _, path in CASES]


class Recording(torch.nn.Module):
    """Remembers what the network saw and said."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network
        self.calls: list[tuple[Any, Any, Any]] = []

    def forward(self, z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(z, t)
        self.calls.append((t.detach().numpy(), z.detach().numpy(), output.detach()[:, : z.shape[1]].numpy()))
        return output


class TracedReference(TorchReference):
    """Remembers the state after every row."""

    rows: list[Any]

    def row(self, *args: Any) -> torch.Tensor:
        result = super().row(*args)
        self.rows.append(result.detach().numpy())
        return result


def run(case: Case, dtype: torch.dtype = torch.float32) -> Trace:
    network = Recording(torch_epsilon(case.net).to(dtype))
    reference = TracedReference(network, checkpointing=False)
    reference.rows = []
    refs = torch.from_numpy(case.refs).to(dtype)
    mask = None if case.masks is None else torch.from_numpy(case.masks).to(dtype)
    noise = SourceNoise(Replay(case.recorded), case.plans, refs, mask=mask)
    with torch.no_grad():
        final = reference.run(refs, case.plans, noise, mask)
    t, z, eps = (np.stack(part) for part in zip(*network.calls, strict=True))
    return Trace(t=t, x=np.stack(reference.rows), final=final.numpy(), z=z, eps=eps)


@pytest.mark.parametrize(("make", "path"), CASES, ids=IDS)
def test_trajectory(make: Callable[[Path], Case], path: Path) -> None:
    case = make(path)
    check(case, run(case))


@pytest.mark.parametrize(("make", "path"), [CASES[0], CASES[-1]], ids=[IDS[0], IDS[-1]])
def test_float64_rows_agree(make: Callable[[Path], Case], path: Path) -> None:
    """In float64 the reference takes its coefficients from the rows, not from their float32 table."""
    case = make(path)
    check(case, run(case, torch.float64))


@pytest.mark.parametrize("path", files("G2_dhni_trajectory", "dhni_cfg*.npz"), ids=lambda p: p.stem)
def test_gradient_through_the_rows(path: Path) -> None:
    """The pipeline is differentiable, and checkpointing recomputes with the same noise."""
    case = next(make for folder, _, make in SOURCES if folder == path.parent.name)(path)
    mask = torch.from_numpy(case.masks)
    gradients = []
    for checkpointing in (True, False):
        refs = torch.from_numpy(case.refs).requires_grad_()
        reference = TorchReference(torch_epsilon(case.net), checkpointing=checkpointing)
        noise = SourceNoise(Replay(case.recorded), case.plans, refs, mask=mask)
        reference.run(refs, case.plans, noise, mask).square().sum().backward()
        gradients.append(refs.grad)
    assert gradients[0].abs().max() > 0.0
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "path", sorted({make(path).net for make, path in CASES}), ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_tiny_networks_agree(path: Path) -> None:
    """Three forms of a tiny network: ONNX Runtime, torch from the initialisers, float64 NumPy."""
    import onnxruntime

    shape = onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape[1:]
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((2, *shape)).astype(np.float32), np.float32([3.0, 150.5])
    want = numpy_epsilon(path)(x, t)
    with torch.no_grad():
        assert np.abs(torch_epsilon(path)(torch.from_numpy(x), torch.from_numpy(t)).numpy() - want).max() < 5e-6
    assert np.abs(onnx_epsilon(path)(x, t) - want).max() < 5e-6

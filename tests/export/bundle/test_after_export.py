"""Parity results say yes, no and how far, and masks are compared with sense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure.images.spec import ImageSpec
from edgepure.methods.presets import Preset
from edgepure.parity.differences import mask_flips
from edgepure.rows.plan import COLUMNS
from edgepure.rows.schedule import NoiseSchedule
from edgepure_export.bundle.after_export import GraphParity, OutputParity, measure, require
from edgepure_export.bundle.cases import Cases, general_plan, sample_batch
from edgepure_export.graphs.step import UnetModule

IMAGE = ImageSpec(channels=3, height=8, width=8)


class Shifted(nn.Module):
    """The network, and a little more."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.unet, self.by = UnetModule(tiny_models.TinyUNet(learned=True)), by

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        result: Tensor = self.unet(x, t) + self.by
        return result


def cases() -> list[dict[str, Tensor]]:
    return Cases(IMAGE, NoiseSchedule.linear(), {}).of("unet")


def test_what_it_measures(tiny_bundle: Path) -> None:
    path = tiny_bundle / "unet.onnx"
    exact = measure("unet", path, Shifted(0.0), cases(), ["epsilon"], threads=1)
    assert exact
    assert exact.max_abs < 1e-5
    assert exact.cases == 2
    require(exact)
    off = measure("unet", path, Shifted(0.25), cases(), ["epsilon"], threads=1)
    assert not off
    assert off.max_abs == pytest.approx(0.25, rel=1e-3)
    assert off.outputs[0].mean_abs == pytest.approx(0.25, rel=1e-3)
    assert off.worst.max_rel <= off.max_abs
    assert "DIFFERS" in str(off)
    assert "allowed 1e-04" in str(off)
    with raises_code("E-export-parity"):
        require(off)
    assert measure("unet", path, Shifted(0.25), cases(), ["epsilon"], tolerance=1.0, threads=1)
    assert not measure("unet", path, Shifted(float("nan")), cases(), ["epsilon"], threads=1)
    assert json.loads(json.dumps(off.to_json()))["ok"] is False


def test_graphs_that_do_not_run(tiny_bundle: Path, tmp_path: Path) -> None:
    with raises_code("E-export-engine-load"):
        measure("unet", tmp_path / "none.onnx", Shifted(0.0), cases(), ["epsilon"])
    wrong = [{"x": torch.zeros(2, 3, 4, 4), "t": torch.zeros(2)}]
    with raises_code("E-export-engine-run"):
        measure("unet", tiny_bundle / "unet.onnx", Shifted(0.0), wrong, ["epsilon"])


def test_mask_pixels_at_the_cut_may_flip() -> None:
    attention = np.array([[[[0.1, 0.5, 0.500001], [0.7, 0.9, 1.0]]]], np.float32)
    expected = (attention >= 0.500001).astype(np.float32)
    near, far = expected.copy(), expected.copy()
    near[0, 0, 0, 1] = 1.0
    far[0, 0, 1, 1] = 0.0
    assert mask_flips(near, expected, attention, 1e-4) == 0
    assert mask_flips(far, expected, attention, 1e-4) == 1
    assert mask_flips(1.0 - expected, expected, attention, 1e-4) == 4
    empty = np.zeros_like(expected)
    assert mask_flips(expected, empty, attention, 1e-4) == 3  # 1.0 is the highest outside: at the cut of an empty mask


def test_a_flipped_mask_fails_whatever_the_tolerance() -> None:
    near, logits = OutputParity("mask", 1.0, 0.01, 1.0), OutputParity("logits", 1e-6, 1e-7, 1e-6)
    result = GraphParity("mask", 1e-4, 1, (near, logits))
    assert result
    assert result.worst == logits
    assert result.max_abs == 1e-6
    assert not GraphParity("mask", 1e9, 1, (OutputParity("mask", 1.0, 0.01, 1.0, flipped=2),))


def test_cases_mix_plans_and_batch_sizes() -> None:
    presets = {
        "a": Preset.parse({"method": {"method": "uniform", "t_star": 40, "steps": 4, "sampler": "ddim"}}),
        "b": Preset.parse({"method": {"method": "uniform", "t_star": 40, "steps": 2, "variance": "learned"}}),
    }
    made = Cases(IMAGE, NoiseSchedule.linear(), presets, tiny_models.images(2))
    for graph in ("classifier", "mask", "step", "step_learned", "unet"):
        batches = [len(next(iter(case.values()))) for case in made.of(graph)]
        assert batches[0] == 3
        assert 1 in batches
        for case in made.of(graph):
            assert len({len(tensor) for tensor in case.values()}) == 1
            assert all(tensor.dtype == torch.float32 for tensor in case.values())
            assert len({id(tensor) for tensor in case.values()}) == len(case)
    coeffs = torch.cat([case["coeffs"] for case in made.of("step")])
    assert len(torch.unique(coeffs[:, 0])) >= 6
    timesteps = torch.cat([case["coeffs"] for case in made.of("step_learned")])[:, 0].tolist()
    assert {39.0, 19.0} <= set(timesteps)
    table = general_plan(NoiseSchedule.linear()).coeffs
    for i, name in enumerate(COLUMNS):
        assert np.abs(table[:, i]).max() > 0, f"no row uses {name}"


def test_sample_images() -> None:
    assert sample_batch(None, IMAGE, 5).shape == (5, 3, 8, 8)
    given = tiny_models.images(2)
    torch.testing.assert_close(sample_batch(given.numpy(), IMAGE, 3), given[[0, 1, 0]])
    with raises_code("E-sample-images"):
        sample_batch(given * float("nan"), IMAGE, 2)
    with raises_code("E-sample-images"):
        sample_batch(given[0], IMAGE, 2)

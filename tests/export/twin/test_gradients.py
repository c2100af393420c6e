"""The attack's gradient is right: finite differences in float64 through the whole pipeline, for every method.

Both differentiable pipelines are checked: the reference made of modules and the twin made of the bundle's graphs. What
has no gradient on purpose (the mask's cut, SSNI's choice of a level, the clip where it is active) is constant in the
small neighbourhood that finite differences look at, so it does not disturb them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor

from edgepure.methods import EpsSpec
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.rows.noise import SeededNoise
from edgepure.rows.schedule import NoiseSchedule
from edgepure_export.graphs.attention import MaskModule
from edgepure_export.twin.noise_batches import RecordedNoise, SourceNoise, draw_noise
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

MASK = {"area": 0.3}


def heterogeneous(**changes: Any) -> dict[str, Any]:
    method = {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2, **changes}
    return {"method": method, "mask": MASK}


def ssni(reweighting: dict[str, Any], **preset: Any) -> dict[str, Any]:
    return {**preset, "ssni": {**reweighting, "probe": {"probes": 2, "label": "index"}}}


UNIFORM = {"method": "uniform", "t_star": 60, "steps": 3}
LINEAR = {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0}
SIGMOID = {"reweighting": "sigmoid", "mu": 20.0, "tau": 10.0}
PRESETS: dict[str, dict[str, Any]] = {
    "ddpm": {"method": UNIFORM},
    "ddim": {"method": {**UNIFORM, "sampler": "ddim"}},
    "ddim eta": {"method": {**UNIFORM, "sampler": "ddim", "eta": 0.5, "clip": False}},
    "vp-sde": {"method": {"method": "uniform", "t_star": 4, "sampler": "sde"}},
    "learned variance": {"method": {**UNIFORM, "variance": "learned"}},
    "heterogeneous none": heterogeneous(resample="none"),
    "heterogeneous single": heterogeneous(resample="single", U=3),
    "heterogeneous fused": heterogeneous(resample="single", U=3, variant="official"),
    "heterogeneous multi": heterogeneous(resample="multi", U=2),
    "repaint": {
        "method": {"method": "repaint", "respacing": "20", "t_T": 4, "jump_length": 2, "jump_n_sample": 2},
        "mask": MASK,
    },
    "gdmp": {"method": {"method": "gdmp", "purify_steps": 3, "rounds": 2, "respacing": "40", "guide_scale": 200.0}},
    "gdmp clean": {
        "method": {
            "method": "gdmp",
            "purify_steps": 3,
            "rounds": 1,
            "respacing": "40",
            "guide_scale": 200.0,
            "target": "clean",
        }
    },
    "gnsp": {"method": {"method": "gnsp", "max_timesteps": [30, 60], "num_denoising_steps": [1, 2]}},
    "ssni linear": ssni(LINEAR, method={**UNIFORM, "sampler": "ddim"}),
    "ssni heterogeneous": ssni(SIGMOID, **heterogeneous()),
}


@pytest.fixture(scope="module")
def from_modules() -> TorchReference:
    classifier = tiny_models.TinyClassifier()
    reference = TorchReference(
        tiny_models.TinyUNet(learned=True),
        schedule=NoiseSchedule.linear(),
        classifier=classifier,
        mask_module=MaskModule(classifier, tiny_models.BLOCKS, (8, 8)),
    )
    for network in reference.networks:
        network.double().requires_grad_(False)
    return reference


@pytest.fixture(scope="module", params=["modules", "graphs"])
def reference(request: pytest.FixtureRequest, tiny_bundle: Path, from_modules: TorchReference) -> TorchReference:
    return from_modules if request.param == "modules" else load_twin(tiny_bundle, dtype=torch.float64)


def image(count: int = 2) -> Tensor:
    """Away from 0 and 1, where the result is clipped."""
    return (0.2 + 0.6 * tiny_models.images(count).double()).requires_grad_()


def check(function: Any, *inputs: Tensor) -> None:
    """Finite differences along random directions; a wrong term of one per mille is found."""
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True, eps=1e-6, atol=1e-6, rtol=1e-3)
    gradient = torch.autograd.grad(function(*inputs).sum(), inputs[0])[0]
    assert gradient.abs().max() > 1e-3, "a gradient of zero would pass any check"


@pytest.mark.parametrize("name", PRESETS)
def test_logits_of_every_method(name: str, reference: TorchReference) -> None:
    preset = Preset.parse(PRESETS[name])
    noise = SeededNoise(4)
    check(lambda x: reference.run_preset(x, preset, noise).logits, image())


@pytest.mark.parametrize("name", ["ddpm", "heterogeneous single", "gdmp"])
def test_purified_images(name: str, reference: TorchReference) -> None:
    preset, noise = Preset.parse(PRESETS[name]), SeededNoise(4)
    check(lambda x: reference.run_preset(x, preset, noise).purified, image())


def test_ssni_gives_the_images_different_levels(reference: TorchReference) -> None:
    """Otherwise the checks above would not see plans of different length in one batch."""
    with torch.no_grad():
        done = reference.run_preset(image(2), Preset.parse(PRESETS["ssni linear"]), SeededNoise(4))
    assert len({plan.levels["t_star"] for plan in done.plans}) == 2


def test_ssni_at_a_fixed_level(reference: TorchReference) -> None:
    preset = Preset.parse(PRESETS["ssni linear"])
    plan = reference._planner(image()).plan(preset, 37.0)
    noise = draw_noise(plan, image().detach(), torch.Generator().manual_seed(1))
    check(lambda x: reference.logits(reference.purify(x, plan, noise)), image())


@pytest.mark.parametrize("perturb", [True, False])
def test_eps_probe(perturb: bool, reference: TorchReference) -> None:
    probe = EpsSpec(probes=3, perturb=perturb).compile(NoiseSchedule.linear(), 192)
    noise = draw_noise(probe, image().detach(), torch.Generator().manual_seed(1))
    check(lambda x: reference.score_norm(x, probe, noise), image())


def test_mean_over_votes(reference: TorchReference) -> None:
    preset, noise = Preset.parse(PRESETS["heterogeneous single"]), SeededNoise(4)

    def mean(x: Tensor) -> Tensor:
        votes = [reference.run_preset(x, preset, noise, vote=vote).logits.log_softmax(1) for vote in range(3)]
        return torch.stack(votes).logsumexp(0)

    check(mean, image())


def test_gradient_through_a_soft_mask(reference: TorchReference) -> None:
    """Image and mask as independent inputs of the rows: the part that the surrogate's gradient is multiplied with."""
    plan = reference._planner(image()).plan(Preset.parse(PRESETS["heterogeneous single"]))
    noise = draw_noise(plan, image().detach(), torch.Generator().manual_seed(1))
    soft = torch.rand((2, 1, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    check(lambda x, mask: reference.purify(x, plan, noise, mask), image(), soft.requires_grad_())


def test_gradient_of_the_soft_threshold_mask(reference: TorchReference) -> None:
    """The surrogate in units of a fixed maximum: its slope is that of the attention map."""
    spec = MaskSpec(threshold=0.5)

    def by_hand(x: Tensor) -> Tensor:
        assert reference.mask_module is not None
        full = torch.ones(len(x), dtype=x.dtype)
        _, _, attention = reference.mask_module(x, 0.5 * full, 0.0 * full, 0.0 * full, "soft")
        # The minmax map has the maximum 1 whatever the image, so nothing is lost by holding it.
        return torch.sigmoid((attention - 0.5) / 0.05)

    leaf = image()
    direct = torch.autograd.grad(reference.mask(leaf, spec, "soft").square().sum(), leaf)[0]
    again = torch.autograd.grad(by_hand(leaf).square().sum(), leaf)[0]
    torch.testing.assert_close(direct, again, rtol=1e-9, atol=1e-9)
    check(by_hand, leaf)


def test_backward_uses_the_noise_of_the_forward_pass(reference: TorchReference) -> None:
    """Every row's noise is asked for once, and checkpoints do not draw again."""
    preset = Preset.parse(PRESETS["heterogeneous single"])
    plan = reference._planner(image()).plan(preset)
    leaf, mask = image(), torch.ones(2, 1, 8, 8, dtype=torch.float64)
    recorded = draw_noise(plan, leaf.detach(), torch.Generator().manual_seed(1))
    asked: list[int] = []

    def once(row: int) -> Tensor:
        asked.append(row)
        return recorded.rows[row]

    out = reference.run(2.0 * leaf - 1.0, plan, once, mask).square().sum()
    assert asked == list(range(len(plan.rows)))
    first = torch.autograd.grad(out, leaf)[0]
    assert asked == list(range(len(plan.rows)))
    held = reference.run(2.0 * leaf - 1.0, plan, RecordedNoise(recorded.rows), mask).square().sum()
    torch.testing.assert_close(torch.autograd.grad(held, leaf)[0], first, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["ddpm", "heterogeneous single", "learned variance"])
def test_checkpointed_gradients_are_the_same(name: str, reference: TorchReference) -> None:
    preset = Preset.parse(PRESETS[name])
    results = []
    try:
        for reference.checkpointing in (True, False):
            leaf = image()
            done = reference.run_preset(leaf, preset, SeededNoise(4), mask_gradient="straight_through")
            results.append(torch.autograd.grad(done.logits.square().sum(), leaf)[0])
    finally:
        reference.checkpointing = True
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_new_noise_is_a_new_gradient(reference: TorchReference) -> None:
    preset, leaf = Preset.parse(PRESETS["ddpm"]), image()
    first, same, other = (
        torch.autograd.grad(reference.run_preset(leaf, preset, SeededNoise(seed)).logits.square().sum(), leaf)[0]
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert (first - other).abs().max() > 1e-3


def test_a_wrong_gradient_would_be_found(reference: TorchReference) -> None:
    """The gradient at other noise, which an attack without replay would take, is off by far more than is allowed."""
    plan = reference._planner(image()).plan(Preset.parse(PRESETS["ddpm"]))
    weights, direction = torch.randn((2, 2, 3, 8, 8), dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def loss(x: Tensor, seed: int) -> Tensor:
        noise = SourceNoise(SeededNoise(seed), [plan] * len(x), x)
        return (reference.purify(x, plan, noise) * weights).sum()

    with torch.no_grad():
        step = 1e-6 * direction
        slope = (loss(image() + step, 1) - loss(image() - step, 1)) / 2e-6
    right, wrong = (
        (torch.autograd.grad(loss(leaf, seed), leaf)[0] * direction).sum() for seed in (1, 2) for leaf in (image(),)
    )
    assert abs(right - slope) < 1e-6 * abs(slope)
    assert abs(wrong - slope) > 1e-2 * abs(slope)

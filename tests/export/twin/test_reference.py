"""The PyTorch reference against the runtime's own loop, and its gradients. Goldens: `test_reference_goldens`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from numpy_stepper import NumpyStepper
from torch import Tensor, nn

from edgepure.methods import EpsSpec, HeterogeneousSpec, UniformSpec
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule
from edgepure_export.graphs.attention import MaskModule
from edgepure_export.twin.noise_batches import RecordedNoise, SourceNoise, draw_noise
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.torch_rows import coefficients

SCHEDULE = NoiseSchedule.linear()
SHAPE = (3, 8, 8)
ELEMENTS = 192


def compiled(spec: Any) -> Plan:
    return spec.compile(SCHEDULE, ELEMENTS)


PLANS = {
    "ddim": compiled(UniformSpec(t_star=60, steps=3, sampler="ddim")),
    "ddpm": compiled(UniformSpec(t_star=40, steps=5)),
    "learned": compiled(UniformSpec(t_star=40, steps=4, variance="learned")),
    "sde": compiled(UniformSpec(t_star=4, sampler="sde")),
    "heterogeneous": compiled(HeterogeneousSpec(t_l=80, t_s=40, stage1_steps=2, stage2_steps=2)),
    "eps": compiled(EpsSpec(probes=3)),
}


def reference(learned: bool = False, **options: Any) -> TorchReference:
    classifier = tiny_models.TinyClassifier()
    return TorchReference(
        tiny_models.TinyUNet(learned=learned),
        schedule=SCHEDULE,
        classifier=classifier,
        mask_module=MaskModule(classifier, tiny_models.BLOCKS, (8, 8)),
        **options,
    )


def refs(count: int) -> Tensor:
    return 2.0 * tiny_models.images(count) - 1.0


def half_masks(count: int) -> Tensor:
    mask = torch.zeros(count, 1, 8, 8)
    for i in range(count):
        mask[i, :, i % 8 :] = 1.0
    return mask


def by_numpy(plans: Sequence[Plan], ref: Tensor, mask: Tensor, seed: int, learned: bool, probe: bool = False) -> Any:
    """The same through `InFlight` and `NumpyStepper`, the runtime's own loop."""
    unet = tiny_models.TinyUNet(learned=learned)

    def epsilon(z: Any, t: Any) -> Any:
        with torch.no_grad():
            return unet(torch.from_numpy(z), torch.from_numpy(t)).numpy()

    source, found = SeededNoise(seed), np.zeros_like(ref.numpy())

    def done(job: Job, x: Any) -> None:
        found[job.tag] = x

    jobs = [
        Job(
            plan,
            source.for_image(plan, i, 0, mask[i].numpy(), SHAPE, probe=probe),
            ref[i].numpy(),
            mask[i].numpy(),
            tag=i,
        )
        for i, plan in enumerate(plans)
    ]
    InFlight(NumpyStepper(epsilon, SHAPE, capacity=2)).run(jobs, done)
    return found


@pytest.mark.parametrize("name", PLANS)
def test_against_the_runtimes_loop(name: str) -> None:
    plan, ref, mask = PLANS[name], refs(3), half_masks(3)
    learned, probe = plan.learned_variance, name == "eps"
    with torch.no_grad():
        noise = SourceNoise(SeededNoise(5), [plan] * 3, ref, mask=mask, probe=probe)
        found = reference(learned).run(ref, plan, noise, mask)
    want = by_numpy([plan] * 3, ref, mask, 5, learned, probe)
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-4, atol=2e-5 * max(1.0, np.abs(want).max()))


def test_plans_of_different_length_share_a_batch() -> None:
    nothing = Plan("untouched", ())
    plans = [PLANS["ddpm"], PLANS["ddim"], nothing, PLANS["heterogeneous"], PLANS["sde"]]
    ref, mask = refs(5), half_masks(5)
    with torch.no_grad():
        found = reference().run(ref, plans, SourceNoise(SeededNoise(5), plans, ref, mask=mask), mask)
    np.testing.assert_allclose(found.numpy(), by_numpy(plans, ref, mask, 5, False), rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(found[2], ref[2])


def test_batch_mates_do_not_matter() -> None:
    plan, ref = PLANS["ddpm"], refs(4)
    recorded = draw_noise(plan, ref, torch.Generator().manual_seed(0))
    with torch.no_grad():
        together = reference().run(ref, plan, recorded)
        for i in range(4):
            alone = reference().run(ref[i : i + 1], plan, recorded.rows[:, i : i + 1])
            torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)


def test_noise_in_all_forms() -> None:
    plan, ref = PLANS["ddpm"], refs(2)
    source = SourceNoise(SeededNoise(9), [plan] * 2, ref)
    rows = torch.stack([source.row(i) for i in range(len(plan.rows))])
    with torch.no_grad():
        results = [
            reference().run(ref, plan, noise) for noise in (source, rows, lambda row: rows[row], RecordedNoise(rows))
        ]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0, atol=0)
    with raises_code("E-twin-noise-rows"):
        reference().run(ref, plan, rows[:4])
    with raises_code("E-twin-noise-closing"):
        reference().run(ref, PLANS["sde"], torch.zeros(9, *ref.shape))
    with raises_code("E-twin-noise-second"):
        reference(learned=True).run(ref, PLANS["learned"], rows)
    with raises_code("E-twin-plans"):
        reference().run(ref, [plan] * 3, rows)
    with raises_code("E-twin-variance-mixed"):
        reference(learned=True).run(ref, [plan, PLANS["learned"]], rows)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heterogeneous", "sde", "learned"])
def test_finite_differences(name: str) -> None:
    """The whole purification in float64, with respect to the image: through x, through ref, and through the clip."""
    plan = PLANS[name]
    tested = reference(plan.learned_variance)
    tested.unet.double()
    image = tiny_models.images(2).double().requires_grad_()
    noise = draw_noise(plan, image.detach(), torch.Generator().manual_seed(1))
    mask = half_masks(2).double()

    def loss(x01: Tensor) -> Tensor:
        return tested.purify(x01, plan, noise, mask)

    assert torch.autograd.gradcheck(loss, (image,), fast_mode=True, eps=1e-7, atol=1e-4)


def test_checkpointing_changes_nothing_but_memory() -> None:
    plan, image = PLANS["ddpm"], tiny_models.images(2)
    noise = draw_noise(plan, image, torch.Generator().manual_seed(1))
    calls: list[int] = []
    gradients = []
    for checkpointing in (True, False):
        tested = reference(checkpointing=checkpointing)
        tested.unet.register_forward_hook(lambda *_: calls.append(1))
        leaf = image.clone().requires_grad_()
        tested.purify(leaf, plan, noise).square().sum().backward()
        gradients.append(leaf.grad)
        assert len(calls) == (2 if checkpointing else 1) * len(plan.rows)
        calls.clear()
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("gradient", ["none", "soft", "straight_through"])
def test_gradient_through_the_mask(gradient: Any) -> None:
    plan, image = PLANS["heterogeneous"], tiny_models.images(2)
    spec, noise = MaskSpec(area=0.3), draw_noise(plan, image, torch.Generator().manual_seed(1))
    tested = reference()
    mask = tested.mask(image, spec)
    leaf, fixed = image.clone().requires_grad_(), image.clone().requires_grad_()
    out = tested.purify(leaf, plan, noise, spec, gradient)
    hard = tested.purify(fixed, plan, noise, mask)
    out.square().sum().backward()
    hard.square().sum().backward()
    assert leaf.grad is not None
    assert fixed.grad is not None
    assert leaf.grad.isfinite().all()
    if gradient == "soft":
        assert (out - hard).abs().max() > 1e-3
    else:
        torch.testing.assert_close(out, hard)
    assert torch.equal(leaf.grad, fixed.grad) == (gradient == "none")


def test_presets_as_the_runtime_runs_them() -> None:
    image = tiny_models.images(3)
    preset = Preset.parse(
        {
            "method": {"method": "heterogeneous", "t_l": 80, "t_s": 40, "stage1_steps": 2, "stage2_steps": 2},
            "mask": {"area": 0.25},
            "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "probe": {"probes": 3, "label": "index"}},
        }
    )
    with torch.no_grad():
        done = reference().run_preset(image, preset, SeededNoise(3))
        second = reference().run_preset(image, preset, SeededNoise(3), vote=1)
        shifted = reference().run_preset(image[1:], preset, SeededNoise(3), first_image=1)
    assert done.mask is not None
    assert done.score_norms is not None
    assert done.mask.sum((1, 2, 3)).tolist() == [16.0, 16.0, 16.0]
    assert len({plan.levels["t_l"] for plan in done.plans}) > 1
    assert done.purified.min() >= 0.0
    assert done.purified.max() <= 1.0
    torch.testing.assert_close(done.logits, tiny_models.TinyClassifier()(done.purified))
    assert (second.purified - done.purified).abs().max() > 1e-2
    torch.testing.assert_close(shifted.purified, done.purified[1:], rtol=0, atol=1e-5)
    eps = by_numpy([compiled(EpsSpec(probes=3, label="index"))] * 3, 2 * image - 1, half_masks(3), 3, False, probe=True)
    np.testing.assert_allclose(done.score_norms.numpy(), np.linalg.norm(eps.reshape(3, -1), axis=1), rtol=1e-4)


def test_coefficients_in_float64_are_not_rounded() -> None:
    plan = PLANS["ddpm"]
    exact = coefficients(plan, torch.float64)
    assert exact.dtype == torch.float64
    column = plan.columns.index("x0_eps")
    assert exact[0, column] == -plan.rows[0].sigma / plan.rows[0].alpha
    torch.testing.assert_close(exact.float(), coefficients(plan))
    assert coefficients(Plan("untouched", ())).shape == (0, 16)


def test_what_is_missing_is_said() -> None:
    bare = TorchReference(nn.Identity())
    image = tiny_models.images(1)
    with raises_code("E-twin-mask"):
        bare.mask(image, MaskSpec(area=0.1))
    with raises_code("E-twin-classifier"):
        bare.logits(image)
    with raises_code("E-twin-schedule"):
        bare.run_preset(image, Preset.parse({"method": {"method": "uniform"}}), SeededNoise(0))

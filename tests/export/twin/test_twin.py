"""The twin of a bundle is the PyTorch reference of its models: values, masks and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor

from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.rows.noise import SeededNoise
from edgepure_export.graphs.attention import MaskModule
from edgepure_export.graphs.mask_cut import MaskGradient
from edgepure_export.twin.noise_batches import draw_noise
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin
from samples.digits.models import WEIGHTS, DigitsClassifier, load_classifier, load_unet
from samples.gpu_check.networks import exact

MASKS = {
    "area": MaskSpec(area=0.3),
    "threshold": MaskSpec(threshold=0.5),
    "softmax threshold": MaskSpec(rule="softmax", threshold=0.006),
    "softmax area": MaskSpec(rule="softmax", area=0.2),
}


@pytest.fixture(scope="module")
def digits_bundle() -> Bundle:
    return Bundle.open(demo_bundle())


@pytest.fixture(scope="module")
def digits(digits_bundle: Bundle) -> TorchReference:
    """From the sample's own modules."""
    classifier = load_classifier(WEIGHTS).requires_grad_(False)
    return TorchReference(
        load_unet(WEIGHTS).requires_grad_(False),
        schedule=digits_bundle.manifest.schedule.build(),
        classifier=classifier,
        mask_module=MaskModule(classifier, DigitsClassifier.TAPS, (16, 16)),
    )


@pytest.fixture(scope="module")
def twin(digits_bundle: Bundle) -> TorchReference:
    return load_twin(digits_bundle)


def images(count: int) -> Tensor:
    return torch.from_numpy(demo_images().clean[:count].copy())


PRESETS = sorted(Bundle.open(demo_bundle()).manifest.presets)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_the_digits(name: str, digits_bundle: Bundle, digits: TorchReference, twin: TorchReference) -> None:
    preset = digits_bundle.manifest.presets[name]
    with torch.no_grad():
        mine, theirs = (r.run_preset(images(3), preset, SeededNoise(5), vote=1) for r in (twin, digits))
    assert [p.levels for p in mine.plans] == [p.levels for p in theirs.plans]
    torch.testing.assert_close(mine.purified, theirs.purified, rtol=0, atol=2e-5)
    torch.testing.assert_close(mine.logits, theirs.logits, rtol=1e-4, atol=2e-4)
    if preset.mask is not None:
        torch.testing.assert_close(mine.mask, theirs.mask, rtol=0, atol=0)


@pytest.mark.parametrize("gradient", ["none", "soft", "straight_through"])
@pytest.mark.parametrize("spec", MASKS)
def test_masks_and_their_gradients(
    spec: str, gradient: MaskGradient, digits: TorchReference, twin: TorchReference
) -> None:
    weights = torch.randn((3, 1, 16, 16), generator=torch.Generator().manual_seed(1))
    masks, grads = [], []
    for reference in (twin, digits):
        leaf = images(3).requires_grad_()
        mask = reference.mask(leaf, MASKS[spec], gradient)
        masks.append(mask.detach())
        if gradient == "none":
            assert not mask.requires_grad
        else:
            grads.append(torch.autograd.grad((mask * weights).sum(), leaf)[0])
    area = masks[1].mean((1, 2, 3))
    assert ((area > 0.01) & (area < 0.95)).all()
    torch.testing.assert_close(masks[0], masks[1], rtol=0, atol=2e-5 if gradient == "soft" else 0.0)
    if grads:
        assert grads[1].abs().max() > 0.1
        torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3 * float(grads[1].abs().max()))


@pytest.mark.parametrize("gradient", ["none", "straight_through"])
def test_gradient_of_the_whole_defence(
    gradient: MaskGradient, digits_bundle: Bundle, digits: TorchReference, twin: TorchReference
) -> None:
    preset = digits_bundle.manifest.presets["heterogeneous"]
    grads = []
    for reference in (twin, digits):
        leaf = images(2).requires_grad_()
        done = reference.run_preset(leaf, preset, SeededNoise(5), mask_gradient=gradient)
        grads.append(torch.autograd.grad(done.logits.square().sum(), leaf)[0])
    assert grads[1].abs().max() > 0.1
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-3 * float(grads[1].abs().max()))


@pytest.mark.parametrize("name", ["uniform", "heterogeneous", "paper_mask", "sde", "adaptive"])
def test_a_network_with_a_learned_variance(name: str, tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    preset, classifier = manifest.presets[name], tiny_models.TinyClassifier()
    source = TorchReference(
        tiny_models.TinyUNet(learned=True),
        schedule=manifest.schedule.build(),
        classifier=classifier,
        mask_module=MaskModule(classifier, tiny_models.BLOCKS, (8, 8)),
    )
    with torch.no_grad():
        mine, theirs = (
            r.run_preset(tiny_models.images(3), preset, SeededNoise(2)) for r in (load_twin(tiny_bundle), source)
        )
    torch.testing.assert_close(mine.purified, theirs.purified, rtol=0, atol=2e-5)
    torch.testing.assert_close(mine.logits, theirs.logits, rtol=1e-4, atol=1e-4)


def test_checkpointing_changes_nothing_but_memory(tiny_bundle: Path) -> None:
    preset = Bundle.open(tiny_bundle).manifest.presets["uniform"]
    calls: list[int] = []
    gradients = []
    for checkpointing in (True, False):
        twin = load_twin(tiny_bundle, checkpointing=checkpointing)
        assert twin.learned_step is not None
        twin.learned_step.register_forward_pre_hook(lambda *_: calls.append(1))
        leaf = tiny_models.images(2).requires_grad_()
        done = twin.run_preset(leaf, preset, SeededNoise(2))
        gradients.append(torch.autograd.grad(done.logits.square().sum(), leaf)[0])
        assert len(calls) == (2 if checkpointing else 1) * done.plans[0].unet_calls
        calls.clear()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_float64(tiny_bundle: Path) -> None:
    twin, exact = load_twin(tiny_bundle), load_twin(tiny_bundle, dtype=torch.float64)
    preset = Bundle.open(tiny_bundle).manifest.presets["heterogeneous"]
    with torch.no_grad():
        mine = twin.run_preset(tiny_models.images(2), preset, SeededNoise(2))
        fine = exact.run_preset(tiny_models.images(2).double(), preset, SeededNoise(2))
    assert fine.purified.dtype == torch.float64
    torch.testing.assert_close(mine.purified.double(), fine.purified, rtol=0, atol=2e-5)


def test_what_cannot_be_is_said(tiny_bundle: Path, digits_bundle: Bundle) -> None:
    with raises_code("E-twin-dtype"):
        load_twin(tiny_bundle, dtype=torch.float16)
    with raises_code("E-bundle-variant"):
        load_twin(tiny_bundle, precision="fp16")
    with raises_code("E-twin-executor"):
        TorchReference()
    learned = Preset.parse({"method": {"method": "uniform", "t_star": 60, "steps": 2, "variance": "learned"}})
    with raises_code("E-twin-variance"):
        load_twin(digits_bundle).run_preset(images(1), learned, SeededNoise(0))


@pytest.mark.gpu
def test_on_a_gpu(tiny_bundle: Path) -> None:
    preset, image = Bundle.open(tiny_bundle).manifest.presets["heterogeneous"], tiny_models.images(2)
    grads = []
    for device in ("cpu", "cuda"):
        twin, leaf = load_twin(tiny_bundle, device=device), image.to(device).requires_grad_()
        with exact(device):
            done = twin.run_preset(leaf, preset, SeededNoise(2), mask_gradient="straight_through")
            grads.append(torch.autograd.grad(done.logits.square().sum(), leaf)[0].cpu())
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-3, atol=1e-3)


def test_noise_can_be_recorded(twin: TorchReference, digits_bundle: Bundle) -> None:
    """The twin takes all that the reference takes."""
    plan = twin._planner(images(1)).plan(digits_bundle.manifest.presets["uniform"])
    noise = draw_noise(plan, images(2), torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, again = (twin.purify(images(2), plan, noise) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)

"""The defended classifier as a module: what attack libraries expect of it, and that it is what is deployed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from codes import raises_code
from torch import Tensor
from torch.nn import functional as F

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.purify.results import decide
from edgepure_calibration.integrations import PurifiedClassifier
from edgepure_calibration.integrations.blackbox import BlackBox
from edgepure_calibration.integrations.purified_classifier import vote_logits
from samples.gpu_check.networks import exact

COUNT = 4


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(demo_bundle(), threads=1) as opened:
        yield opened


def images() -> Tensor:
    return torch.from_numpy(demo_images().clean[:COUNT].copy())


def labels() -> Tensor:
    return torch.from_numpy(demo_images().labels[:COUNT].copy())


def defended(preset: Any = "uniform", **options: Any) -> PurifiedClassifier:
    return PurifiedClassifier.from_bundle(demo_bundle(), preset, **options)


@pytest.mark.parametrize("preset", ["uniform", "heterogeneous", "gdmp", "heterogeneous-ssni"])
def test_it_is_the_deployed_engine(preset: str, purifier: edgepure.Purifier) -> None:
    """Same probabilities, same decisions, same number of UNet calls, all votes counted."""
    model = defended(preset, noise="fixed", seed=3)
    answers = BlackBox(purifier, preset, noise="fixed", seed=3)
    decisions = BlackBox(purifier, preset, noise="fixed", seed=3, answer="decision")
    with torch.no_grad():
        logits = model(images())
    np.testing.assert_allclose(logits.softmax(1).numpy(), answers(images().numpy()), rtol=0, atol=2e-5)
    assert logits.argmax(1).tolist() == decisions(images().numpy()).argmax(1).tolist()
    assert (model.queries, model.unet_calls) == (answers.queries, answers.unet_calls)


def test_one_vote_gives_the_classifiers_own_logits() -> None:
    model = defended(votes=1, noise="fixed", seed=3)
    with torch.no_grad():
        purified = model.twin.purify_preset(images(), model.preset, model.noise.next())
        torch.testing.assert_close(model(images()), model.twin.logits(purified), rtol=0, atol=0)


def test_noise_is_new_in_every_pass_unless_it_is_fixed() -> None:
    with torch.no_grad():
        fresh = defended(votes=1)
        assert not torch.equal(fresh(images()), fresh(images()))
        seeded = [defended(votes=1, seed=4) for _ in range(2)]
        for _ in range(2):
            torch.testing.assert_close(seeded[0](images()), seeded[1](images()), rtol=0, atol=0)
        fixed = defended(votes=1, noise="fixed")
        first = fixed(images())
        torch.testing.assert_close(fixed(images()), first, rtol=0, atol=0)
        torch.testing.assert_close(fixed(images()[2:]), first[2:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("mask_gradient", ["none", "straight_through", "soft"])
def test_gradients_reach_the_images_and_nothing_else(mask_gradient: Any) -> None:
    model = defended("heterogeneous", votes=2, noise="fixed", seed=3, mask_gradient=mask_gradient)
    leaf = images().requires_grad_()
    F.cross_entropy(model(leaf), labels()).backward()
    assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().max() > 1e-5
    assert all(p.grad is None for p in model.parameters())


def test_mask_gradients_differ() -> None:
    grads = []
    for mask_gradient in ("none", "straight_through"):
        model = defended("heterogeneous", votes=1, noise="fixed", seed=3, mask_gradient=mask_gradient)
        leaf = images().requires_grad_()
        grads.append(torch.autograd.grad(F.cross_entropy(model(leaf), labels()), leaf)[0])
    assert (grads[0] - grads[1]).abs().max() > 1e-4


def test_votes_by_finite_differences() -> None:
    """The mean over votes, with shared mask, in float64."""
    model = defended("heterogeneous", votes=3, noise="fixed", seed=3).double()
    leaf = (0.1 + 0.8 * images()[:1].double()).requires_grad_()
    assert torch.autograd.gradcheck(model, (leaf,), fast_mode=True, eps=1e-6, atol=1e-5, rtol=1e-3)


def test_what_libraries_do_with_a_module() -> None:
    model = defended(votes=1, noise="fixed", seed=3)
    assert next(model.parameters()).device.type == "cpu"
    assert not model.train().training
    assert not any(m.training for m in model.modules())
    assert not any(p.requires_grad for p in model.parameters())
    assert "heterogeneous" not in repr(model)
    assert "uniform, 1 votes (" in repr(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        torch.testing.assert_close(twin(images()), model(images()), rtol=0, atol=0)


def test_presets_by_name_by_data_and_by_default() -> None:
    assert defended(None).preset.method.method == "heterogeneous"
    own = {"method": {"method": "uniform", "t_star": 50, "steps": 1, "sampler": "ddim"}, "votes": {"count": 2}}
    model = defended(own)
    with torch.no_grad():
        model(images())
    assert model.unet_calls == 2 * COUNT
    with raises_code("E-preset-unknown"):
        defended("unifrom")
    with raises_code("E-votes"):
        defended(votes=0)
    with raises_code("E-noise-policy"):
        defended(noise="none")


@pytest.mark.parametrize("rule", ["mean", "majority"])
def test_the_largest_logit_is_the_decision(rule: str) -> None:
    """Also where votes and mean disagree, which random logits often do."""
    logits = 4.0 * torch.randn((5, 400, 4), generator=torch.Generator().manual_seed(0))
    logits[0] *= 5.0
    found = vote_logits(logits, rule)
    mean = logits.softmax(2).mean(0)
    wanted = [decide(logits[:, i].numpy(), rule)[0] for i in range(400)]
    assert found.argmax(1).tolist() == wanted
    lifted = found.argmax(1) != mean.argmax(1)
    assert lifted.any() == (rule == "majority")
    torch.testing.assert_close(found[~lifted].exp(), mean[~lifted], rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    here, there = defended(noise="fixed", seed=3), defended(noise="fixed", seed=3).to("cuda")
    with torch.no_grad(), exact("cuda"):
        torch.testing.assert_close(there(images().cuda()).cpu(), here(images()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("batch", "code"),
    [
        (torch.zeros(1, 1, 16, 16, dtype=torch.uint8), "E-batch-type"),
        (torch.full((1, 1, 16, 16), 255.0), "E-batch-range"),
        (torch.full((1, 1, 16, 16), -1.0), "E-batch-range"),
        (torch.full((1, 1, 16, 16), float("nan")), "E-batch-range"),
        (torch.zeros(1, 16, 16), "E-batch-shape"),
        (torch.zeros(2, 1, 8, 8), "E-batch-shape"),
        (torch.zeros(2, 3, 16, 16), "E-batch-shape"),
        (torch.zeros(0, 1, 16, 16), "E-batch-shape"),
    ],
)
def test_other_values_than_images_in_0_to_1_are_refused(batch: Tensor, code: str) -> None:
    model = defended()
    with raises_code(code):
        model(batch)


def test_float64_is_computed_in_float32_and_has_a_gradient() -> None:
    point = images()[:1].double().requires_grad_(True)
    logits = defended(noise="fixed", seed=3)(point)
    assert logits.dtype == torch.float32
    (gradient,) = torch.autograd.grad(logits.sum(), point)
    assert gradient.dtype == torch.float64 and float(gradient.abs().max()) > 0.0


def test_a_pickled_one_answers_the_same() -> None:
    model = defended(seed=3)
    model(images()[:1])
    again = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(again(images()[:1]), model(images()[:1]))

"""The same smoothed function judged by others: ART's randomized smoothing, and attacks that look inside the radius."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor, nn

import edgepure
from edgepure.demo import demo_bundle
from edgepure.intervals import lower_bound
from edgepure_export.twin.torch_rows import coefficients
from edgepure_export.twin.twin import load_twin
from samples.digits.data import load_digits_split

SIGMA = 0.5
SMOOTH = {"method": {"method": "smooth", "sigma": SIGMA}}


class Denoised(nn.Module):
    """Denoiser and classifier of a bundle as one function of an image that has its noise already, from its
    differentiable twin: the base classifier of randomized smoothing."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = load_twin(demo_bundle(), checkpointing=False)
        for number, network in enumerate(self.twin.networks):
            self.add_module(str(number), network)
        with edgepure.load(demo_bundle(), threads=1) as purifier:
            self.coeffs = coefficients(purifier.plan(SMOOTH))

    def forward(self, noised: Tensor) -> Tensor:
        ref = 2.0 * noised - 1.0
        ones, none = torch.ones_like(ref[:, :1]), torch.zeros_like(ref)
        x0 = self.twin.step(ref, ref, none, ones, self.coeffs.expand(len(ref), -1))
        return self.twin.logits((0.5 * x0 + 0.5).clamp(0.0, 1.0))


def eight_bits(count: int) -> np.ndarray:
    images = load_digits_split().test.images
    return (np.rint(images[:count].astype(np.float64) * 255.0) / 255.0).astype(np.float32)


def test_art_counts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two samples of the same share: their exact intervals overlap. The radius follows from the count as ours does."""
    smoothing = pytest.importorskip("art.estimators.certification.randomized_smoothing")
    n, alpha = 300, 0.001
    art = smoothing.PyTorchRandomizedSmoothing(
        model=Denoised(),
        loss=nn.CrossEntropyLoss(),
        input_shape=(1, 16, 16),
        nb_classes=10,
        device_type="cpu",
        sample_size=20,
        scale=SIGMA,
        alpha=alpha,
    )
    # its own is this, by a package that is not installed here
    monkeypatch.setattr(art, "_lower_confidence_bound", lambda k, n: beta.ppf(alpha, k, n - k + 1))
    images = eight_bits(4)
    np.random.seed(0)
    labels, radii = art.certify(images, n=n, batch_size=100)
    with edgepure.load(demo_bundle(), threads=1, slots=64) as purifier:
        ours = purifier.certify(images, SMOOTH, n=n, n0=20, alpha=alpha, noise=0)
    for label, radius, own in zip(labels, radii, ours, strict=True):
        assert own.exact and own.label == label
        bound = NormalDist().cdf(radius / SIGMA)
        count = next(
            k for k in range(n + 1) if lower_bound(k, n, alpha) >= bound - 1e-6
        )  # the same rule: a whole count
        assert lower_bound(count, n, alpha) == pytest.approx(bound, abs=1e-6)
        pooled = (count + own.count) / (2 * n)
        assert abs(count - own.count) <= 4.0 * (2 * n * pooled * (1.0 - pooled)) ** 0.5 + 4


@pytest.mark.slow
@pytest.mark.parametrize("count", [30, pytest.param(200, marks=pytest.mark.long)])
def test_no_attack_inside_the_radius_changes_the_smoothed_answer(count: int) -> None:
    """PGD with expectation over the noise, in the L2 ball of each image's certificate, on the twin."""
    images = eight_bits(count + count // 10)
    with edgepure.load(demo_bundle(), threads=1, slots=64) as purifier:
        certified = purifier.certify(images, SMOOTH, n=100, n0=20, noise=0)
        chosen = [i for i, c in enumerate(certified) if not c.abstained][:count]
        assert len(chosen) == count
        start = torch.from_numpy(images[chosen])
        radii = torch.tensor([certified[i].radius for i in chosen])[:, None, None, None]
        labels = torch.tensor([certified[i].label for i in chosen])
        found = attack(Denoised(), start, labels, 0.999 * radii)
        assert (((found - start) ** 2).sum(dim=(1, 2, 3)).sqrt() < radii[:, 0, 0, 0]).all()
        sequential = {"sequential": {"alpha": 0.001, "max": 500}}
        after = purifier.run(found.numpy(), {**SMOOTH, "votes": sequential}, noise=2)
    assert not [i for i, r in enumerate(after) if not r.abstained and r.label != labels[i]]
    assert sum(r.abstained for r in after) <= count // 10


def attack(model: nn.Module, start: Tensor, labels: Tensor, radii: Tensor, steps: int = 8, eot: int = 4) -> Tensor:
    """L2 PGD: each step follows the mean gradient over ``eot`` noises."""
    torch.manual_seed(0)
    x = start.clone()
    for _ in range(steps):
        x.requires_grad_(True)
        loss = sum(
            nn.functional.cross_entropy(model(x + SIGMA * torch.randn_like(x)), labels, reduction="sum")
            for _ in range(eot)
        )
        (gradient,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            step = gradient / gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
            delta = x + 0.4 * radii * step - start
            length = delta.flatten(1).norm(dim=1)[:, None, None, None]
            x = (start + delta * (radii / length.clamp_min(1e-12)).clamp_max(1.0)).clamp(0.0, 1.0)
    return x.detach()

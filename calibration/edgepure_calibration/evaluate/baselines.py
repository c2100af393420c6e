"""What a defence has to be better than: nothing at all, and cheap image filters, attacked in the same way.

Each baseline changes the image and lets the bundle's own classifier answer; gradients go through it (where it has none,
as JPEG, they take the identity). A robust accuracy says little beside a blur that leaves as much.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgepure import Preset, Purifier
from edgepure.errors import ConfigError
from edgepure.methods.presets import VoteSpec
from edgepure.methods.spec import MethodSpec
from edgepure.types import Float32
from edgepure_export.twin.reference import Purification, TorchReference

from ..attacks.attack import AttackTarget
from ..digest import derived_seed

#: Of the blur, in pixels; of the noise, in units of [0, 1]; of JPEG.
BLUR_SIGMA, NOISE_SIGMA, JPEG_QUALITY = 1.0, 0.1, 75
#: Share of the variance of clean images that the projection keeps, and the fewest images that say where it lies.
KEPT_VARIANCE, FEWEST_FOR_PROJECTION = 0.99, 32


class BaselineMethod(MethodSpec):
    """The name of a baseline in the place of a method; it has no rows."""

    method: str


class BaselinePreset(Preset):
    """What stands in the place of a preset."""

    method: BaselineMethod


class Baseline:
    """A baseline. ``votes``: answers of a randomised one that are averaged unless a number is asked for."""

    name = "no-defence"
    words = "the classifier alone"
    votes = 1

    def filter(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images ``[B, C, H, W]`` in [0, 1] to the same, differentiable; ``seeds``: one an image."""
        return images


class Blur(Baseline):
    name = "blur"
    words = f"a Gaussian blur of {BLUR_SIGMA:g} pixels before the classifier"

    def filter(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        reach = int(3 * BLUR_SIGMA)
        weights = torch.exp(-torch.arange(-reach, reach + 1, dtype=images.dtype).square() / (2.0 * BLUR_SIGMA**2))
        weights = (weights / weights.sum()).to(images.device)
        padded = F.pad(images, (reach,) * 4, mode="replicate")
        channels = images.shape[1]
        across = F.conv2d(padded, weights.reshape(1, 1, 1, -1).repeat(channels, 1, 1, 1), groups=channels)
        blurred: Tensor = F.conv2d(across, weights.reshape(1, 1, -1, 1).repeat(channels, 1, 1, 1), groups=channels)
        return blurred


class Jpeg(Baseline):
    name = "jpeg"
    words = f"JPEG of quality {JPEG_QUALITY} before the classifier; its gradient is taken for the identity"

    def filter(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        made = np.stack([_jpeg(image) for image in images.detach().cpu().numpy()])
        return images + (torch.from_numpy(made).to(images) - images).detach()


class GaussianNoise(Baseline):
    name = "noise"
    words = f"Gaussian noise of {NOISE_SIGMA:g} before the classifier, and a vote"
    votes = 5

    def filter(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        drawn = [torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (images + NOISE_SIGMA * torch.stack(drawn).to(images)).clamp(0.0, 1.0)


class Projection(Baseline):
    """Principal components of clean images that are not evaluated."""

    name = "projection"

    def __init__(self, clean: Float32) -> None:
        flat = torch.from_numpy(clean.reshape(len(clean), -1))
        self._mean = flat.mean(0)
        _, sizes, axes = torch.linalg.svd(flat - self._mean, full_matrices=False)
        share = (sizes.square().cumsum(0) / sizes.square().sum()).numpy()
        self._axes = axes[: int(np.searchsorted(share, KEPT_VARIANCE)) + 1]
        self.words = (
            f"projection onto {len(self._axes)} principal components of {len(clean)} other clean images, "
            f"{100 * KEPT_VARIANCE:g} % of their variance"
        )

    def filter(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        mean, axes = self._mean.to(images), self._axes.to(images)
        flat = images.flatten(1) - mean
        projected: Tensor = (flat @ axes.T @ axes + mean).reshape(images.shape).clamp(0.0, 1.0)
        return projected


_SIMPLE: Mapping[str, type[Baseline]] = {kind.name: kind for kind in (Baseline, Blur, Jpeg, GaussianNoise)}
BASELINES = (*_SIMPLE, Projection.name)


def make_baselines(names: Sequence[str], others: Float32) -> list[Baseline]:
    """The baselines of these names. ``others``: clean images ``[N, C, H, W]`` that are not evaluated.

    Raises:
        ConfigError: there is none of a name, or too few other images to project with.
    """
    found: list[Baseline] = []
    for name in names:
        if name not in BASELINES:
            raise ConfigError(f"baseline {name!r}: choose among {', '.join(BASELINES)}", code="E-baseline")
        if name != Projection.name:
            found.append(_SIMPLE[name]())
        elif len(others) < FEWEST_FOR_PROJECTION:
            raise ConfigError(
                f"the baseline projection needs at least {FEWEST_FOR_PROJECTION} images beside those that are "
                f"evaluated, and there are {len(others)}; give more images, or evaluate fewer (--images)",
                code="E-baseline",
            )
        else:
            found.append(Projection(others))
    return found


@dataclass(frozen=True)
class BaselineTarget(AttackTarget):
    """A baseline in the place of a preset, with what answers and what is differentiated."""

    @property
    def calls(self) -> int:
        """None: it has no UNet."""
        return 0


def baseline_target(baseline: Baseline, purifier: Purifier, twin: TorchReference, device: str) -> BaselineTarget:
    """What attacks and the judge take."""
    preset = BaselinePreset(
        method=BaselineMethod(method=baseline.name),
        votes=VoteSpec(count=baseline.votes, rule="mean"),
        description=baseline.words,
    )
    answering = cast(Purifier, _Answering(baseline, purifier))
    return BaselineTarget(baseline.name, preset, answering, cast(TorchReference, _Twin(baseline, twin)), device)


class _Twin:
    """What attacks ask of a twin."""

    def __init__(self, baseline: Baseline, twin: TorchReference) -> None:
        self._baseline, self.logits, self.networks, self.schedule = baseline, twin.logits, twin.networks, twin.schedule

    def run_preset(self, images: Tensor, preset: Preset, noise: Any, **options: Any) -> Purification:
        """The filtered images and what the classifier makes of them."""
        filtered = self._baseline.filter(images, _seeds(noise, range(len(images))))
        return Purification(filtered, self.logits(filtered), None, None, ())


class _Answering:
    """What an evaluation asks of deployed graphs: the classifier is theirs."""

    def __init__(self, baseline: Baseline, purifier: Purifier) -> None:
        self._baseline, self._purifier = baseline, purifier
        self.logits, self.classes = purifier.logits, purifier.classes
        self.provider, self.precision, self.image_shape = purifier.provider, purifier.precision, purifier.image_shape

    @torch.no_grad()
    def run(
        self, images: Float32, preset: Preset, *, votes: int = 1, noise: Any = None, ids: Sequence[int] | None = None
    ) -> list[Any]:
        """One answer for each image, as `edgepure.Purifier.run` gives them."""
        numbers = ids if ids is not None else range(len(images))
        filtered = self._baseline.filter(torch.from_numpy(images), _seeds(noise, numbers)).numpy()
        logits = self._purifier.logits(np.ascontiguousarray(filtered, np.float32)).astype(np.float64)
        likely = np.exp(logits - logits.max(axis=1, keepdims=True))
        likely /= likely.sum(axis=1, keepdims=True)
        return [
            SimpleNamespace(probabilities=p.astype(np.float32), label=int(p.argmax()), unet_calls=0, image=x, mask=None)
            for p, x in zip(likely, filtered, strict=True)
        ]


def _seeds(noise: Any, numbers: Sequence[int]) -> list[int]:
    """Of each image's noise."""
    seed = getattr(noise, "seed", None) or 0
    return [derived_seed(int(seed), "baseline", number) for number in numbers]


def _jpeg(image: Float32) -> Float32:
    from PIL import Image

    pixels = np.round(255.0 * image).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    file.seek(0)
    read = np.asarray(Image.open(file), np.float32).reshape(pixels.shape) / 255.0
    return np.ascontiguousarray(read.transpose(2, 0, 1), np.float32)

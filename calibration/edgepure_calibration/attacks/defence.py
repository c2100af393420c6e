"""The defence to attack: a preset of a bundle as PyTorch computes it, purification and classification in one function.

Attacking it is the white-box attack.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgepure import Preset
from edgepure.errors import ConfigError
from edgepure.methods import UniformSpec
from edgepure.methods.planner import Planner
from edgepure.rows.noise import NoiseSource
from edgepure.rows.plan import Plan
from edgepure_export.graphs.mask_cut import MaskGradient
from edgepure_export.twin.noise_batches import SourceNoise
from edgepure_export.twin.reference import Purification, TorchReference

from .defence_noise import NoisePolicy, OneRequest

#: What the gradient of the mask is, in words, for protocols.
MASK_GRADIENTS: dict[MaskGradient, str] = {
    "none": "mask detached",
    "soft": "mask replaced by its soft surrogate, forward and backward",
    "straight_through": "mask as deployed, gradient of its soft surrogate",
}


class Defence:
    """A preset as one differentiable function: images -> logits after one purification, with new noise at every call.

    All rows that are deployed are differentiated, and the backward pass uses the noise of the forward pass. What has no
    gradient: SSNI's noise level, which is rounded, and the attention mask, which is 0 or 1 (it is computed anew at
    every step, from the image as it is then) - unless ``mask_gradient`` asks for its surrogate.
    """

    GRADIENT = (
        "exact, of the cross-entropy, through every deployed row and the classifier; mask and SSNI level detached"
    )

    def __init__(self, twin: TorchReference, preset: Preset, seed: int, mask_gradient: MaskGradient = "none") -> None:
        self._twin, self._preset, self._mask_gradient = twin, preset, mask_gradient
        self._noise = NoisePolicy("fresh", seed)

    def __call__(self, images: Tensor) -> Tensor:
        return self.purification(images).logits

    def purification(self, images: Tensor) -> Purification:
        """One purification of each image, with the noise of the next call."""
        return self._twin.run_preset(images, self._preset, self._noise.next(), mask_gradient=self._mask_gradient)


class IdentityBackward(Defence):
    """BPDA (Athalye et al. 2018): the purification is run as deployed, and its gradient is taken to be the identity."""

    def __call__(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            purified = self.purification(images.detach()).purified
        return self._twin.logits(images + (purified - images).detach())


class KnownNoise:
    """A preset whose noise the attacker knows: every request uses the same stream, vote v of image 0 of it.

    Copies of a batch of ``images`` images (copy-major, as EOT makes them) meet the votes 0, 1, 2, ... of the stream: an
    average over as many copies as there are votes is the deployed decision itself.
    """

    def __init__(self, twin: TorchReference, preset: Preset, source: NoiseSource, batch: int) -> None:
        self._twin, self._preset, self._source, self._batch = twin, preset, source, batch

    def __call__(self, images: Tensor) -> Tensor:
        size = min(self._batch, len(images))
        parts = [images[first : first + size] for first in range(0, len(images), size)]
        found = [
            self._twin.run_preset(part, self._preset, OneRequest(self._source, vote)).logits
            for vote, part in enumerate(parts)
        ]
        return torch.cat(found)


class NormPenalty:
    """What an attacker adds who knows of SSNI's score norm: ``weight * norm / reference``, subtracted from his loss.

    A small norm makes the image look clean, so it gets less noise. The norm is differentiable through the probe's rows.

    Args:
        reference: the usual norm of clean images, so that ``weight`` is in units of the loss.

    Raises:
        ConfigError: the preset has no SSNI.
    """

    def __init__(self, twin: TorchReference, preset: Preset, weight: float, reference: float, seed: int) -> None:
        if preset.ssni is None or twin.schedule is None:
            raise ConfigError("the preset has no SSNI, so there is no score norm to keep small")
        self._twin, self._preset, self._weight, self._reference = twin, preset, weight, reference
        self._noise = NoisePolicy("fresh", seed)

    def __call__(self, images: Tensor) -> Tensor:
        return self._weight * self.norms(images) / self._reference

    def norms(self, images: Tensor) -> Tensor:
        """Score norms ``[B]`` of images ``[B, C, H, W]`` in [0, 1], differentiable, with new noise at every call."""
        assert self._twin.schedule is not None
        probe = Planner(self._twin.schedule, images[0].numel()).probe(self._preset)
        assert probe is not None
        plans = [probe] * len(images)
        noise = SourceNoise(self._noise.next(), plans, images, probe=True)
        return self._twin.score_norm(images, plans, noise)


def surrogate(preset: Preset, plan: Plan, calls: int) -> Preset:
    """The authors' short cut: the same noise levels purified in ``calls`` UNet calls, to differentiate less.

    "Divide and Conquer" attacks its 100-call defence through 2 calls on CIFAR-10 and 4 on ImageNet. The gradient of the
    short version is not that of the deployed one, so its numbers flatter: it is here for comparison, marked as such.
    Methods of several rounds become one round from their highest timestep. ``plan``: of the preset.
    """
    short = preset.method.surrogate(calls)
    if short is None:
        level = round(max(row.t for row in plan.rows)) + 1
        short = UniformSpec(t_star=level, steps=min(calls, level), sampler="ddim", eta=1.0)
    return preset.model_copy(update={"method": short, "mask": preset.mask if short.needs_mask else None})

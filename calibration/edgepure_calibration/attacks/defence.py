"""The defence to attack: a preset of a bundle as PyTorch computes it, purification and classification in one function.

Attacking it is the white-box attack.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgepure import Preset
from edgepure.rows.noise import NoiseSource
from edgepure_export.graphs.mask_cut import MaskGradient
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

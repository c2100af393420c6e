"""The defence to attack: a preset of a bundle as PyTorch computes it, purification and classification in one function.

Attacking it is the white-box attack.
"""

from __future__ import annotations

from torch import Tensor

from edgepure import Preset, SeededNoise
from edgepure_export.reference import TorchReference


class Defence:
    """A preset as one differentiable function: images -> logits after one purification, with new noise at every call.

    All rows that are deployed are differentiated, and the backward pass uses the noise of the forward pass. What has no
    gradient: the attention mask, which is 0 or 1 (it is computed anew at every step, from the image as it is then), and
    SSNI's noise level, which is rounded.
    """

    GRADIENT = (
        "exact, of the cross-entropy, through every deployed row and the classifier; mask and SSNI level detached"
    )

    def __init__(self, twin: TorchReference, preset: Preset, seed: int) -> None:
        self._twin, self._preset, self._seed = twin, preset, seed
        self._calls = 0

    def __call__(self, images: Tensor) -> Tensor:
        self._calls += 1
        noise = SeededNoise((self._seed << 32) + self._calls)
        return self._twin.run_preset(images, self._preset, noise).logits

"""The deployed engine as one function, for attacks that only ask questions (Square, HopSkipJump, transfer checks)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ConfigError, ImageError
from edgepure.images.arrays import RANGE_TOLERANCE
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier

from ..attacks.defence_noise import NoisePolicy, PolicyName

Float32 = NDArray[np.float32]

#: What a question is answered with.
Answer = Literal["probabilities", "logits", "decision"]


class BlackBox:
    """Images ``[B, C, H, W]`` in [0, 1] -> answers ``[B, N]`` float32, by the deployed engine with all its votes.

    Args:
        purifier: an opened bundle, see `edgepure.load`.
        preset: name, preset or plain data; None: the bundle's default.
        votes: overrides the preset's number of votes.
        answer: ``probabilities``: mean softmax over the votes. ``logits``: their logarithm, whose softmax they are.
            ``decision``: 1 for the label that was decided (by the preset's rule) and 0 elsewhere, for attacks that see
            nothing else.
        noise, seed: see `edgepure_calibration.attacks.defence_noise.NoisePolicy`. The default is what is deployed:
        secret and new.

    Attributes:
        queries: images that were answered so far.
        unet_calls: UNet calls that they took, probes and votes included.

    Raises:
        ConfigError: an unknown preset, answer or policy.
    """

    def __init__(
        self,
        purifier: Purifier,
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        votes: int | None = None,
        answer: Answer = "probabilities",
        noise: PolicyName = "fresh",
        seed: int | None = None,
    ) -> None:
        if answer not in ("probabilities", "logits", "decision"):
            raise ConfigError(
                f"answer {answer!r} is unknown; choose 'probabilities', 'logits' or 'decision'", code="E-answer-unknown"
            )
        self.purifier = purifier
        self.preset = purifier.preset(preset, votes)
        self.answer = answer
        self.noise = NoisePolicy(noise, seed)
        self.queries = 0
        self.unet_calls = 0

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        return self.purifier.image_shape

    @property
    def classes(self) -> int:
        """Number of classes N."""
        return len(self.purifier.classes)

    def __call__(self, images: NDArray[Any]) -> Float32:
        """Answer a batch.

        Raises:
            ImageError: another shape, or values outside [0, 1] by more than rounding.
        """
        results = self.purifier.run(self._checked(images), self.preset, noise=self.noise.next())
        self.queries += len(results)
        self.unet_calls += sum(result.unet_calls for result in results)
        if self.answer == "decision":
            one_hot = np.zeros((len(results), self.classes), np.float32)
            one_hot[np.arange(len(results)), [result.label for result in results]] = 1.0
            return one_hot
        probabilities = np.array([result.probabilities for result in results], np.float32).reshape(-1, self.classes)
        if self.answer == "logits":
            logits: Float32 = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
            return logits
        return probabilities

    def reset(self) -> None:
        """Count from 0 again."""
        self.queries = self.unet_calls = 0

    def _checked(self, images: NDArray[Any]) -> Float32:
        batch = np.asarray(images)
        if batch.ndim != 4 or batch.shape[1:] != self.input_shape:
            shape = ", ".join(str(n) for n in self.input_shape)
            raise ImageError(
                f"the batch has the shape {list(batch.shape)}, expected [B, {shape}] with values in [0, 1]",
                code="E-batch-shape",
            )
        if batch.size and not (batch.min() >= -RANGE_TOLERANCE and batch.max() <= 1.0 + RANGE_TOLERANCE):
            raise ImageError(
                f"the batch has values from {batch.min():.4g} to {batch.max():.4g}, expected [0, 1] without NaN; clip "
                "what the attack makes",
                code="E-batch-range",
            )
        checked: Float32 = np.ascontiguousarray(np.clip(batch, 0.0, 1.0), np.float32)
        return checked

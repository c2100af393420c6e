"""Purification as a preprocessing defence of the Adversarial Robustness Toolbox (ART)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from edgepure.errors import ConfigError
from edgepure.methods.presets import Preset
from edgepure_export.graphs.mask_cut import MaskGradient
from edgepure_export.twin.reference import TorchReference

from ..attacks.defence_noise import NoisePolicy, PolicyName

try:
    from art.defences.preprocessor.preprocessor import PreprocessorPyTorch
except ImportError as error:
    raise ConfigError(
        "the ART preprocessor needs the Adversarial Robustness Toolbox; install it with "
        "`pip install adversarial-robustness-toolbox`",
        code="E-package-art",
    ) from error

#: ``exact``: through every deployed row. ``identity``: BPDA (Athalye et al. 2018), backward as if nothing was done.
Gradient = Literal["exact", "identity"]


class PurificationPreprocessor(PreprocessorPyTorch):  # type: ignore[misc]
    """Purifies images [B, C, H, W] in [0, 1] before an ART classifier sees them, in predictions and in attacks.

    One purification per image and call; votes are a matter of the classifier behind it, which ART has no place for.

    Args:
        twin: see `edgepure_export.twin.twin.load_twin`. Its device decides the preprocessor's.
        preset: method, mask and SSNI.
        gradient: see `Gradient`. The identity is a surrogate: it understates an attacker who has the networks.
        noise, seed: see `edgepure_calibration.attacks.defence_noise.NoisePolicy`; the default is secret and new in
        every call. mask_gradient: see `edgepure_export.graphs.mask_cut.cut_map`.
        apply_fit: purify while the classifier is trained, too.
        apply_predict: purify when it predicts.
    """

    params = ["preset", "gradient", "mask_gradient"]  # noqa: RUF012 - ART's own convention

    def __init__(
        self,
        twin: TorchReference,
        preset: Preset,
        *,
        gradient: Gradient = "exact",
        noise: PolicyName = "fresh",
        seed: int | None = None,
        mask_gradient: MaskGradient = "none",
        apply_fit: bool = False,
        apply_predict: bool = True,
    ) -> None:
        device = next(parameter.device for network in twin.networks for parameter in network.parameters())
        super().__init__(
            device_type="cpu" if device.type == "cpu" else "gpu",
            is_fitted=True,
            apply_fit=apply_fit,
            apply_predict=apply_predict,
        )
        self._device = device
        self.twin = twin
        self.preset = preset
        self.gradient = gradient
        self.noise = NoisePolicy(noise, seed)
        self.mask_gradient = mask_gradient
        self._check_params()

    def forward(self, x: Tensor, y: Any = None) -> tuple[Tensor, Any]:
        """Purified images, labels as they came. Differentiable, as ``gradient`` says."""
        source = self.noise.next()
        if self.gradient == "identity":
            with torch.no_grad():
                purified = self.twin.purify_preset(x, self.preset, source)
            return _Identity.apply(x, purified), y
        return self.twin.purify_preset(x, self.preset, source, mask_gradient=self.mask_gradient), y

    def _check_params(self) -> None:
        if self.gradient not in ("exact", "identity"):
            raise ConfigError(
                f"gradient {self.gradient!r} is unknown; choose 'exact' or 'identity'", code="E-gradient-unknown"
            )


class _Identity(torch.autograd.Function):
    """The purified image with the gradient of the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, purified: Tensor) -> Tensor:
        return purified.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None

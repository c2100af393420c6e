"""Purification and classification as one `nn.Module`, in the convention of RobustBench, AutoAttack, torchattacks and
Foolbox: images in [0, 1] in, logits out, gradients by autograd."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from edgepure.bundle.bundle import Bundle
from edgepure.errors import ConfigError, ImageError
from edgepure.images.arrays import RANGE_TOLERANCE
from edgepure.methods.presets import Preset
from edgepure_export.graphs.mask_cut import MaskGradient
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

from ..attacks.defence_noise import NoisePolicy, PolicyName


class PurifiedClassifier(nn.Module):
    """A preset of a bundle, differentiable through every row that is deployed.

    The result is the classifier's logits for one vote, and for several the logarithm of their mean softmax: its softmax
    is the probability that the runtime reports, its cross-entropy is that of the vote. The largest value is always the
    label that the runtime would decide: with the rule ``majority`` a label that wins by votes but not by the mean
    (which is rare) is lifted above the others by a constant without gradient.

    The module stays in eval mode, and its parameters take no gradients.

    Args:
        twin: see `edgepure_export.twin.twin.load_twin`.
        preset: method, mask, SSNI and votes.
        votes: overrides the preset's number of votes; 1 is the usual choice for attacks, which average by EOT.
        noise, seed: see `edgepure_calibration.attacks.defence_noise.NoisePolicy`. The default is what is deployed:
            secret and new in every forward pass. Backward uses the noise of its forward pass.
        mask_gradient: ``none``, ``soft`` or ``straight_through``, see `edgepure_export.graphs.mask_cut.cut_map`.
            Attackers may use any of them: an evaluation should try more than one.

    Attributes:
        queries: images of all forward passes so far.
        unet_calls: the UNet calls that they took, probes and votes included, backward passes not.
    """

    def __init__(
        self,
        twin: TorchReference,
        preset: Preset,
        *,
        votes: int | None = None,
        noise: PolicyName = "fresh",
        seed: int | None = None,
        mask_gradient: MaskGradient = "none",
    ) -> None:
        super().__init__()
        if votes is not None:
            if votes < 1:
                raise ConfigError(f"votes {votes} must be at least 1", code="E-votes")
            preset = preset.model_copy(update={"votes": preset.votes.model_copy(update={"count": votes})})
        self.twin = twin
        self.preset = preset
        self.noise = NoisePolicy(noise, seed)
        self.mask_gradient: MaskGradient = mask_gradient
        self.networks = nn.ModuleList(twin.networks)  # so that .to() and .parameters() find them
        self.queries = 0
        self.unet_calls = 0
        self._origin: tuple[str, dict[str, Any]] | None = None
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_bundle(
        cls,
        bundle: Bundle | str | PathLike[str],
        preset: str | Preset | Mapping[str, Any] | None = None,
        *,
        precision: str = "fp32",
        device: str | torch.device = "cpu",
        checkpointing: bool = True,
        **options: Any,
    ) -> PurifiedClassifier:
        """From the graphs of a bundle alone.

        Args:
            bundle: opened, or its directory.
            preset: name, preset or plain data; None: the bundle's default.
            precision, device, checkpointing: see `edgepure_export.twin.twin.load_twin`.
            options: see the class.

        Raises:
            BundleError: the bundle is damaged or cannot be differentiated.
            ConfigError: no such preset.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        presets = opened.manifest.presets
        if preset is None:
            preset = opened.manifest.default_preset
        if isinstance(preset, str):
            if preset not in presets:
                raise ConfigError(
                    f"no preset {preset!r}; this bundle has {', '.join(presets)}", code="E-preset-unknown"
                )
            preset = presets[preset]
        chosen = preset if isinstance(preset, Preset) else Preset.parse(preset)
        twin = load_twin(opened, precision=precision, device=device, checkpointing=checkpointing)
        made = cls(twin, chosen, **options)
        opening = {"precision": precision, "device": str(device), "checkpointing": checkpointing}
        made._origin = str(opened.path), {**opening, **{k: v for k, v in options.items() if k != "votes"}}
        return made

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] in [0, 1] -> [B, N]. In the networks' type: float32 if not ``.double()``.

        Raises:
            ImageError: no float, another shape, or values outside [0, 1] by more than rounding.
        """
        images = _checked(images).to(self._dtype)
        source = self.noise.next()
        votes = self.twin.run_votes(images, self.preset, source, mask_gradient=self.mask_gradient)
        self.queries += len(images)
        probe = self.preset.ssni.probe.unet_calls if self.preset.ssni is not None else 0
        rows = sum(plan.unet_calls for plan in votes[0].plans)
        self.unet_calls += probe * len(images) + len(votes) * rows
        return vote_logits(torch.stack([vote.logits for vote in votes]), self.preset.votes.rule)

    @property
    def _dtype(self) -> torch.dtype:
        return next(t.dtype for t in (*self.parameters(), *self.buffers()) if t.is_floating_point())

    def __reduce__(self) -> Any:
        """Pickled as where it came from: networks stay in the bundle, and noise goes on from the next call."""
        if self._origin is None:
            raise ConfigError(
                "this module was made of a twin, which cannot be pickled; make it with "
                "PurifiedClassifier.from_bundle, and the bundle is opened again where it is unpickled",
                code="E-pickle",
            )
        return _reopened, (*self._origin, self.preset.model_dump(mode="json"), self.noise.next_call)

    def __deepcopy__(self, memo: dict[int, Any]) -> PurifiedClassifier:
        """With its networks, as they are now."""
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        made.__dict__.update({name: deepcopy(value, memo) for name, value in self.__dict__.items()})
        return made

    def train(self, mode: bool = True) -> PurifiedClassifier:
        """Stays in eval mode: there is nothing to train."""
        return super().train(False)

    def extra_repr(self) -> str:
        votes = f"{self.preset.votes.count} votes ({self.preset.votes.rule})"
        return f"{self.preset.method.method}, {votes}, noise {self.noise}, mask gradient {self.mask_gradient}"


def _checked(images: Tensor) -> Tensor:
    if not images.is_floating_point():
        raise ImageError(
            f"the images are {str(images.dtype).removeprefix('torch.')}, expected floats in [0, 1]; divide bytes by "
            "255",
            code="E-batch-type",
        )
    if images.ndim != 4:
        raise ImageError(
            f"the batch has the shape {list(images.shape)}, expected [B, C, H, W] with values in [0, 1]",
            code="E-batch-shape",
        )
    if images.numel():
        low, high = float(images.detach().min()), float(images.detach().max())
        if not (low >= -RANGE_TOLERANCE and high <= 1.0 + RANGE_TOLERANCE):
            raise ImageError(
                f"the batch has values from {low:.4g} to {high:.4g}, expected [0, 1] without NaN; give such images "
                "and clip what the attack makes",
                code="E-batch-range",
            )
    return images


def _reopened(path: str, options: dict[str, Any], preset: dict[str, Any], calls: int) -> PurifiedClassifier:
    """What unpickling calls."""
    made = PurifiedClassifier.from_bundle(path, preset, **options)
    made.noise.next_call = calls
    return made


def vote_logits(logits: Tensor, rule: str) -> Tensor:
    """Logits of the votes [K, B, N] -> [B, N], see `PurifiedClassifier`; the largest is the decision."""
    if len(logits) == 1:
        return logits[0]
    mean = logits.log_softmax(2).logsumexp(0) - torch.log(torch.tensor(float(len(logits)), device=logits.device))
    if rule != "majority":
        return mean
    with torch.no_grad():
        counts = nn.functional.one_hot(logits.argmax(2), logits.shape[2]).sum(0)
        # Ties are broken by the mean probability, which is less than one vote.
        winner = (counts + 0.5 * mean.exp()).argmax(1, keepdim=True)
        short = mean.amax(1, keepdim=True) - mean.gather(1, winner)
        lift = torch.where(short > 0, short + 1e-3, 0.0)
    return mean.scatter_add(1, winner, lift)

"""What is tried: the plain classifier, trivial baselines, and presets of a bundle, all seen in the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import edgepure
from edgepure import Purifier
from edgepure.files import write_npz
from edgepure_calibration.attacks import Defence, IdentityBackward
from edgepure_calibration.evaluate import draw
from edgepure_export import TorchReference
from samples.cifar10.baselines import Baseline, blur, gaussian, jpeg, principal_components, projection, wiener
from samples.cifar10.build_bundle import classifier_named, twin
from samples.cifar10.data import Cifar10
from samples.cifar10.models import WEIGHTS, load_unet
from samples.cifar10.presets import T_STAR

Float32 = NDArray[np.float32]
Logits = Callable[[Tensor], Tensor]

#: The strengths of the trivial baselines; chosen by `pilot.py` as the presets' noise level is.
JPEG_QUALITY, BLUR_SIGMA, COMPONENTS, NOISE_SIGMA = 50, 0.8, 384, 0.06
#: What is kept of the training images, in this order.
STATISTICS = ("mean", "components", "variances")


class System(Protocol):
    """One line of the table.

    Attributes:
        name: of the line; of a preset its own name.
        calls: UNet calls of one vote.
        random: whether two answers can differ.
    """

    @property
    def name(self) -> str: ...
    @property
    def calls(self) -> int: ...
    @property
    def random(self) -> bool: ...

    def exact(self, seed: int) -> Logits:
        """Images -> logits, differentiable as far as anything in it is, with new noise at every call."""

    def bpda(self, seed: int) -> Logits:
        """The same with the identity as the gradient of whatever stands before the classifier."""

    def answers(self, images: Float32, count: int, seed: int) -> Float32:
        """Log-probabilities [count, N, 10] of independent answers, of what is deployed."""


def rounded(logits: Logits, bf16: bool) -> Logits:
    """The same with the networks' heavy operators in bfloat16, for attackers: rows and losses stay in float32.

    An attack loses nothing that was measured by it (docs/results/cifar10.md) and takes a third of the time on a
    processor with AMX. What answers in the end is the deployed engine in its own precision.
    """

    def compute(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            return logits(x).float()

    return compute


@dataclass(frozen=True)
class Filtered:
    """The classifier behind a transform, or alone; it answers in PyTorch, for nothing of it is exported."""

    name: str
    classifier: nn.Module
    baseline: Baseline | None = None
    calls: int = 0
    bf16: bool = False

    @property
    def random(self) -> bool:
        return self.baseline is not None and self.baseline.random

    def _transformed(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return x if self.baseline is None else self.baseline.transform(x, generator)

    def exact(self, seed: int) -> Logits:
        generator = torch.Generator().manual_seed(seed)
        return rounded(lambda x: self.classifier(self._transformed(x, generator)), self.bf16)

    def bpda(self, seed: int) -> Logits:
        generator = torch.Generator().manual_seed(seed)
        return lambda x: self.classifier(x + (self._transformed(x, generator) - x).detach())

    @torch.no_grad()
    def answers(self, images: Float32, count: int, seed: int) -> Float32:
        generator = torch.Generator().manual_seed(seed)
        x = torch.from_numpy(images)
        drawn = [self.classifier(self._transformed(x, generator)).log_softmax(1) for _ in range(count)]
        return np.asarray(torch.stack(drawn).numpy(), np.float32)


@dataclass(frozen=True)
class Purified:
    """A preset: attacked through its PyTorch twin, answered by the deployed engine."""

    name: str
    purifier: Purifier
    reference: TorchReference
    random: bool = True
    bf16: bool = False

    @property
    def preset(self) -> edgepure.Preset:
        return self.purifier.preset(self.name)

    @property
    def calls(self) -> int:
        probe = self.purifier.planner.probe(self.preset)
        return self.purifier.plan(self.name).unet_calls + (probe.unet_calls if probe else 0)

    def exact(self, seed: int) -> Logits:
        return rounded(Defence(self._twin(), self.preset, seed), self.bf16)

    def bpda(self, seed: int) -> Logits:
        return rounded(IdentityBackward(self._twin(), self.preset, seed), self.bf16)

    def _twin(self) -> TorchReference:
        # A hundred rows of activations do not fit into memory: long presets compute them again.
        self.reference.checkpointing = self.calls > 20
        return self.reference

    def answers(self, images: Float32, count: int, seed: int) -> Float32:
        found, _ = draw(self.purifier, self.preset, images, count, seed)
        return found


def baselines(data: Cifar10, kept: Path) -> list[Baseline]:
    """The trivial ones. The principal components take a minute and are kept in a file."""
    if not kept.is_file():
        found = principal_components(data.train_images, 1024)
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_npz(kept, {k: v.numpy() for k, v in zip(STATISTICS, found, strict=True)})
    with np.load(kept, allow_pickle=False) as stored:
        mean, components, variances = (torch.from_numpy(stored[k]) for k in STATISTICS)
    return [
        jpeg(JPEG_QUALITY),
        blur(BLUR_SIGMA),
        projection(mean, components, COMPONENTS),
        gaussian(NOISE_SIGMA),
        wiener(mean, components, variances, T_STAR),
    ]


def systems(
    bundle: Path,
    data: Cifar10,
    classifier: str,
    work: Path,
    weights: Path = WEIGHTS,
    bf16: bool = False,
    provider: str = "cpu",
    precision: str = "fp32",
) -> dict[str, System]:
    """All lines of the table by name: `plain`, the baselines, then every preset of the bundle.

    Args:
        bf16: give attackers gradients that were computed in bfloat16.
        provider, precision: of the engine that answers, as `edgepure.load` takes them.
    """
    network = classifier_named(classifier, weights)
    network.requires_grad_(False)
    found: dict[str, System] = {"plain": Filtered("plain", network)}
    for baseline in baselines(data, work / "principal-components.npz"):
        found[baseline.name] = Filtered(baseline.name, network, baseline, bf16=bf16)
    purifier = edgepure.load(bundle, provider, precision=precision, threads=1, slots=32)
    reference = twin(network, load_unet(weights))
    for name in purifier.presets:
        found[name] = Purified(name, purifier, reference, bf16=bf16)
    return found

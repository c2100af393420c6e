"""What was published for these presets, under which protocol: printed beside what is measured, not mixed with it."""

from __future__ import annotations

from dataclasses import dataclass

from edgepure_calibration.evaluate import EvaluateSettings


@dataclass(frozen=True)
class Published:
    """One published result.

    Attributes:
        presets: beginnings of the names of the presets that it belongs to.
        classifier: of the paper.
        clean, robust: accuracies in percent as published.
        protocol: how the robust one was measured.
        source: who published it.
    """

    presets: tuple[str, ...]
    classifier: str
    clean: float | None
    robust: float
    protocol: str
    source: str


_AA = "AutoAttack, linf 8/255 (CIFAR-10) or 4/255 (ImageNet)"
_SURROGATE = f"{_AA}; gradient of a surrogate of 2 UNet calls, mask detached; 20 votes"
_DHNI = ("cifar10-dhni",)
_DIFFPURE = ("cifar10-diffpure",)
_GDMP = ("cifar10-gdmp",)

PUBLISHED = (
    Published(_DHNI, "WRN-28-10", 93.16, 80.45, _SURROGATE, "Divide and Conquer, CVPR 2025"),
    Published(_DHNI, "WRN-70-16", 93.36, 84.83, _SURROGATE, "Divide and Conquer, CVPR 2025"),
    Published(_DIFFPURE, "WRN-28-10", 89.02, 70.64, f"{_AA}; adjoint gradient", "DiffPure, ICML 2022"),
    Published(
        _DIFFPURE, "WRN-28-10", 90.07, 48.28, "PGD with EOT through a surrogate of few steps", "Lee & Kim, ICCV 2023"
    ),
    Published(_DIFFPURE, "WRN-28-10", 89.26, 62.11, f"{_AA}, full gradient; one evaluation", "Liu et al., ICLR 2025"),
    Published(_DIFFPURE, "WRN-28-10", 89.26, 56.25, f"{_AA}, full gradient; 20 evaluations", "Liu et al., ICLR 2025"),
    Published(_DIFFPURE, "WRN-28-10", 89.46, 48.05, "exact gradients; one evaluation", "DiffBreak, NeurIPS 2025"),
    Published(_DIFFPURE, "WRN-28-10", 89.46, 30.86, "exact gradients; 20 evaluations", "DiffBreak, NeurIPS 2025"),
    Published(_DIFFPURE, "WRN-70-16", None, 17.19, "exact gradients; worst of 10", "DiffBreak, NeurIPS 2025"),
    Published(_DIFFPURE, "WRN-70-16", None, 39.45, "exact gradients; majority of 10", "DiffBreak, NeurIPS 2025"),
    Published(_GDMP, "WRN-28-10", 93.50, 90.06, "an attack that does not see the defence", "GDMP, 2022"),
    Published(_GDMP, "WRN-28-10", 93.50, 75.59, "BPDA", "GDMP, 2022"),
    Published(_GDMP, "WRN-28-10", None, 24.53, "PGD with EOT through a surrogate of few steps", "Lee & Kim, ICCV 2023"),
    Published(_GDMP, "WRN-70-16", None, 7.03, "exact gradients; worst of 10", "DiffBreak, NeurIPS 2025"),
    Published(("cifar10-gnsp",), "WRN-28-10", 90.16, 70.47, f"{_AA}; 10 votes", "as quoted by Divide and Conquer"),
    Published(("imagenet-diffpure",), "ResNet-50", 75.77, 73.02, _AA, "as quoted by OSCP, CVPR 2025"),
    Published(
        ("imagenet-diffpure",), "WRN-50-2", 74.22, 12.11, "exact gradients; worst of 8", "DiffBreak, NeurIPS 2025"
    ),
    Published(
        ("imagenet-diffpure",), "WRN-50-2", 77.02, 29.69, "exact gradients; majority of 8", "DiffBreak, NeurIPS 2025"
    ),
)

#: What is run for a data set's table: AutoAttack's `rand`, PGD-EOT, the authors' surrogate, BPDA, transfer; 20 votes.
TABLES = {
    "cifar10": EvaluateSettings(
        attacks=("transfer", "bpda", "surrogate", "pgd", "apgd"),
        eps=8 / 255,
        steps=100,
        eot=20,
        votes=20,
        worst=20,
        surrogate_calls=2,
        batch=16,
        copies=4,
    ),
    "imagenet": EvaluateSettings(
        attacks=("transfer", "bpda", "surrogate", "pgd", "apgd"),
        eps=4 / 255,
        steps=100,
        eot=20,
        votes=20,
        worst=20,
        surrogate_calls=4,
        batch=1,
        copies=1,
    ),
}


def published_for(preset: str) -> list[Published]:
    """The published results of a preset's method."""
    return [p for p in PUBLISHED if preset.startswith(p.presets)]

"""A protocol of an attack, for tests of what is made of protocols."""

from __future__ import annotations

from edgepure_calibration.attacks import AttackProtocol

PROTOCOL = AttackProtocol(
    attack="pgd",
    gradient="exact",
    bounded="linf ball",
    norm="linf",
    eps=0.05,
    steps=40,
    eot=5,
    step_size="0.003",
    restarts=1,
    mask_gradient="none",
    norm_penalty=0.0,
    selection="last iterate",
    queries=None,
    surrogate=False,
    target="the whole defence",
    twin="the twin",
    judge="cpu, fp32",
    noise="secret",
    preset="uniform",
    preset_sha256="p",
    bundle_sha256="b",
    images="10 images",
    data_sha256="d" * 64,
    seeds=(0, 1),
)

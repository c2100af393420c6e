"""What an evaluation attacks: presets of an open bundle through its twin, and the baselines beside them."""

from __future__ import annotations

from collections.abc import Sequence

from edgepure.purify.purifier import Purifier
from edgepure.types import Float32
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

from ..attacks.attack import AttackTarget
from .baselines import baseline_target, make_baselines


def targets_of(
    purifier: Purifier,
    presets: Sequence[str] | None,
    baselines: Sequence[str],
    others: Float32,
    *,
    twin: TorchReference | None = None,
    device: str = "cpu",
    checkpointing: bool = True,
) -> tuple[list[AttackTarget], list[AttackTarget]]:
    """Presets and baselines.

    Args:
        presets: names; None: the bundle's default.
        others: images that are not attacked, of which a baseline may learn.
        twin: use this one instead of the bundle's own graphs.

    Raises:
        ConfigError: a preset or baseline is unknown.
    """
    names = list(presets) if presets else [purifier.bundle.manifest.default_preset]
    chosen = [(name, purifier.preset(name)) for name in dict.fromkeys(names)]
    precision = purifier.precision
    made = twin or load_twin(purifier.bundle, precision=precision, device=device, checkpointing=checkpointing)
    for network in made.networks:
        network.requires_grad_(False)
    attacked = [AttackTarget(name, preset, purifier, made, device) for name, preset in chosen]
    return attacked, [baseline_target(one, purifier, made, device) for one in make_baselines(baselines, others)]

"""What attacks maximise: one loss per image, logits ``[B, N]`` and labels ``[B]`` to ``[B]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from edgepure.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
LossName = Literal["ce", "dlr"]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, as ``softplus(logsumexp of the others - z_y)``.

    In float32 the usual way loses the gradient of the true logit, ``p_y - 1``, as soon as p_y rounds to 1 (a margin of
    17): an attack on a confident classifier then follows the others alone. Here it keeps both to a margin of 87.
    """
    truth = F.one_hot(labels, logits.shape[1]).bool()
    return F.softplus(logits.masked_fill(truth, -float("inf")).logsumexp(1) - logits[truth])


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein 2020, equation 6): ``-(z_y - max_{i != y} z_i) / (z_1st - z_3rd)``.

    Unlike cross-entropy it does not change when logits are scaled or shifted, so it cannot saturate.

    Raises:
        ConfigError: fewer than three classes.
    """
    if logits.shape[1] < 3:
        raise ConfigError(
            f"the DLR loss needs at least three classes, this classifier has {logits.shape[1]}; use the attack apgd-ce",
            code="E-attack-classes",
        )
    ordered = logits.sort(dim=1, descending=True).values
    return -margin(logits, labels) / (ordered[:, 0] - ordered[:, 2]).clamp_min(1e-12)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the truth minus the largest other one; below 0: read wrong."""
    truth = F.one_hot(labels, logits.shape[1]).bool()
    return logits[truth] - logits.masked_fill(truth, -float("inf")).amax(dim=1)


LOSSES: dict[LossName, Loss] = {"ce": cross_entropy, "dlr": dlr}

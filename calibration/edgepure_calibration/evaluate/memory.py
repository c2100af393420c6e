"""How much memory a gradient attack takes, by formula from what one row keeps for its backward pass.

The bytes of one row, of the classifier and of the mask are counted exactly, on one image, with autograd's own hooks.
The rest is arithmetic: with rows computed again in the backward pass (checkpointing)::

    weights + copies x (rows x state + one row's activations + classifier's activations)

and without it ``rows`` times one row's activations. The gradient of a row needs about as much again while it is
computed, so an estimate is twice the activations that are alive at once. Convolution workspaces of a GPU come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.torch_rows import coefficients

from ..attacks.attack import AttackTarget

#: Of the memory that is asked about, this share is left to workspaces and fragmentation.
_RESERVE = 0.15


@dataclass(frozen=True)
class AttackMemory:
    """Bytes, for one copy of one image unless said otherwise. Derived, not measured on a device.

    Attributes:
        weights: of all networks, once.
        row: activations that the backward pass of one UNet row needs.
        classifier: those of the classifier.
        state: what a checkpointed row keeps: its input, its noise and its coefficients.
        rows: UNet rows of a purification.
        checkpointing: rows are computed again.
    """

    weights: int
    row: int
    classifier: int
    state: int
    rows: int
    checkpointing: bool

    @property
    def per_copy(self) -> int:
        """Bytes that one copy of one image adds."""
        alive = self.row if self.checkpointing else self.rows * self.row
        return self.rows * self.state + 2 * max(alive, self.classifier) + min(alive, self.classifier)

    def total(self, copies: int) -> int:
        """Bytes for so many copies side by side (images x EOT copies)."""
        return self.weights + copies * self.per_copy

    def copies_in(self, memory: float) -> int:
        """Copies that fit ``memory`` bytes; a reserve of 15 % is left to workspaces."""
        return max(0, int(((1.0 - _RESERVE) * memory - self.weights) // self.per_copy))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "per_copy": self.per_copy, "copies_in_24_GB": self.copies_in(24e9)}


def attack_memory(target: AttackTarget) -> AttackMemory:
    """Count what an attack on a preset keeps; takes one row and one classification of one image."""
    plan = target.purifier.planner.plan(target.preset)
    return memory_of(target.twin, target.purifier.image_shape, coefficients(plan)[:1], len(plan.rows), target.device)


def memory_of(
    twin: TorchReference, image: tuple[int, int, int], coeffs: Tensor, rows: int, device: str = "cpu"
) -> AttackMemory:
    """The same of a twin without a bundle. ``coeffs``: ``[1, K]``, of any row."""
    x = torch.zeros(1, *image, device=device)
    mask, noise = torch.ones_like(x[:, :1]), torch.zeros_like(x)
    weights = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes()
        for network in twin.networks
        for p in (*network.parameters(), *network.buffers())
    }
    coeffs = coeffs.to(device)
    learned = twin.learned_step is not None and coeffs.shape[1] > 16

    def row(point: Tensor) -> Tensor:
        module = twin.learned_step if learned else twin.step
        assert module is not None
        inputs = (point, point, noise, mask, coeffs, *((noise,) if learned else ()))
        result: Tensor = module(*inputs)
        return result

    state = 4 * (2 * x.numel() + coeffs.numel()) * (1 if not learned else 2)
    return AttackMemory(
        weights=sum(weights.values()),
        row=saved_bytes(row, x, set(weights)),
        classifier=saved_bytes(twin.logits, x, set(weights)),
        state=state,
        rows=rows,
        checkpointing=twin.checkpointing,
    )


def saved_bytes(function: Callable[[Tensor], Tensor], point: Tensor, others: set[int] | None = None) -> int:
    """Bytes that autograd keeps for the backward pass of ``function`` at ``point``, each storage once.

    ``others``: addresses of storages that are there anyway, such as weights.
    """
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in (others or ()):
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor  # it stays alive until the end, so no address is used twice

    with torch.enable_grad(), saved_tensors_hooks(pack, lambda tensor: tensor):
        result = function(point.detach().requires_grad_(True))
    del result
    return sum(kept.values())

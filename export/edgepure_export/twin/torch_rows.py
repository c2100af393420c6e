"""The rows of plans in PyTorch. Every row is a checkpoint: the backward pass computes it again with the noise of the
forward pass, so memory does not grow with the UNet's depth times the number of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from edgepure.errors import ConfigError
from edgepure.rows.plan import Plan

from .noise_batches import Noise, as_batch_noise


class TorchRows:
    """Executes rows by modules that are called as `StepModule` and `LearnedStepModule` are; they are put in eval mode.

    Args:
        step, learned_step: execute one row; the second with a learned variance, None if there is none.
        checkpointing: compute each row again in the backward pass.
    """

    def __init__(self, step: nn.Module, learned_step: nn.Module | None, checkpointing: bool) -> None:
        self.step = step.eval()
        self.learned_step = learned_step.eval() if learned_step is not None else None
        self.checkpointing = checkpointing

    def run(
        self,
        ref: Tensor,
        plan: Plan | Sequence[Plan],
        noise: Noise,
        mask: Tensor | Callable[[Tensor], Tensor] | None = None,
        *,
        on_row: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Execute the rows.

        Args:
            ref: [B, C, H, W] in model range [-1, 1]; float32, or float64 with networks in float64.
            plan: one plan for all images, or one per image; lengths may differ.
            noise: see `Noise`. Row i of every image takes row i of it; images whose plan is over take nothing.
            mask: [B, 1, H, W], 1 inside; None means ones. Or what computes it from the state [B, C, H, W] in [0, 1]
                before the row ``mask_from`` of the plans, which is then the same for all of them.
            on_row: called after every row with (row, state [B, C, H, W]); images whose plan is over keep theirs.

        Returns:
            [B, C, H, W] in model range, not clipped (for a probe: the accumulated vector).
        """
        plans = [plan] * len(ref) if isinstance(plan, Plan) else list(plan)
        if len(plans) != len(ref):
            raise ConfigError(
                f"{len(plans)} plans were given for {len(ref)} images; give one, or one per image",
                code="E-twin-plans",
            )
        kinds = {p.learned_variance for p in plans if p.rows}
        if len(kinds) > 1:
            raise ConfigError(
                "plans with and without learned variance cannot share a batch; run them apart",
                code="E-twin-variance-mixed",
            )
        learned = kinds == {True}
        given = as_batch_noise(noise)
        later, mask = (None, mask) if mask is None or isinstance(mask, Tensor) else (mask, None)
        if mask is None:
            mask = torch.ones_like(ref[:, :1])
        starts = torch.tensor([float(p.start == "ref") for p in plans], dtype=ref.dtype, device=ref.device)
        x = ref * starts.reshape(-1, 1, 1, 1)
        tables = {id(p): coefficients(p, ref.dtype) for p in plans}
        for row in range(max((len(p.rows) for p in plans), default=0)):
            if later is not None and row == plans[0].mask_from:
                mask = later((0.5 * x + 0.5).clamp(0.0, 1.0))
            active = [i for i, p in enumerate(plans) if row < len(p.rows)]
            coeffs = torch.stack([tables[id(plans[i])][row] for i in active]).to(ref.device)
            draws = [given.row(row)]
            if learned:
                draws.append(given.out(row))
            if len(active) == len(plans):
                x = self.row(x, ref, mask, coeffs, draws)
            else:
                index = torch.tensor(active, device=ref.device)
                chosen = [t.index_select(0, index) for t in (x, ref, mask, *draws)]
                x = x.index_copy(0, index, self.row(chosen[0], chosen[1], chosen[2], coeffs, chosen[3:]))
            if on_row is not None:
                on_row(row, x)
        if any(p.closing for p in plans):
            std = torch.tensor([p.closing_std for p in plans], dtype=ref.dtype, device=ref.device)
            x = x + std.reshape(-1, 1, 1, 1) * given.closing()
        return x

    def row(self, x: Tensor, ref: Tensor, mask: Tensor, coeffs: Tensor, draws: Sequence[Tensor]) -> Tensor:
        """One row of a batch: states [B, C, H, W] after it, from those before, `coefficients` [B, K], and its noises
        (one, or two with a learned variance)."""
        module = self.learned_step if len(draws) == 2 else self.step
        if module is None:
            raise ConfigError(
                "the plan needs a learned variance, which this diffusion model does not have", code="E-twin-variance"
            )
        inputs = (x, ref, draws[0], mask, coeffs, *draws[1:])
        if self.checkpointing and torch.is_grad_enabled() and any(t.requires_grad for t in (x, ref, mask)):
            # Nothing in a row is random: its noise is an argument.
            result: Tensor = checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
            return result
        result = module(*inputs)
        return result


def coefficients(plan: Plan, dtype: torch.dtype = torch.float32) -> Tensor:
    """The coefficient table [rows, K]; float64 is computed from the rows and not from their float32 table."""
    if dtype != torch.float64:
        return torch.from_numpy(plan.coeffs.copy()).to(dtype)
    rows = [row.columns() for row in plan.rows]
    table = np.array([[row[name] for name in plan.columns] for row in rows], dtype=np.float64)
    return torch.from_numpy(table.reshape(len(plan.rows), len(plan.columns)))

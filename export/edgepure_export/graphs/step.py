"""One row of a plan as a PyTorch module: the arithmetic of `edgepure.rows.plan` fused around the UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS

#: How the columns are split: what stands together is used together, as the factors of one weighted sum.
_BASE = ("x_base", "ref_base", "noise_base")
_MASK = ("x_mask", "ref_mask", "noise_mask")
_X0 = ("x0_z", "x0_eps", "x0_min", "x0_max")
_OUT = ("out_x", "out_z", "out_x0", "out_eps", "out_ref")
assert ("t", *_BASE, *_MASK, *_X0, *_OUT) == COLUMNS


class UnetModule(nn.Module):
    """The bare network: x [B, C, H, W], t [B] -> epsilon [B, C, H, W], without the variance channels if it has them."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return _epsilon(self.unet(x, t), x)


class StepModule(nn.Module):
    """One row for a batch whose images each have their own coefficients. The equations are in `edgepure.rows.plan`."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor) -> Tensor:
        """x, ref, noise [B, C, H, W]; mask [B, 1, H, W] in [0, 1]; coeffs [B, 16] (`COLUMNS`) -> x' [B, C, H, W]."""
        return self._row(x, ref, mask, noise, coeffs)[0]

    def _row(
        self, x: Tensor, ref: Tensor, mask: Tensor, noise: Tensor, coeffs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """x', z, t [B], the network's whole output, and the single columns [B, 1, 1, 1] by name."""
        learned = LEARNED_COLUMNS[: coeffs.shape[1] - len(COLUMNS)]
        sizes = [1, len(_BASE), len(_MASK), *(1 for _ in _X0), len(_OUT), *(1 for _ in learned)]
        columns = torch.split(coeffs[:, :, None, None], sizes, dim=1)
        c = dict(zip(("t", "base", "mask", *_X0, "out", *learned), columns, strict=True))

        z = _weighted_sum([x, ref, noise], c["base"] + c["mask"] * mask)
        t = coeffs[:, 0]
        output: Tensor = self.unet(z, t)
        eps = _epsilon(output, x)
        x0 = torch.maximum(c["x0_z"] * z + c["x0_eps"] * eps, c["x0_min"])
        x0 = torch.minimum(x0, c["x0_max"])
        after = _weighted_sum([x, z, x0, eps, ref], c["out"])
        return after, z, t, output, c


class TracedStep(StepModule):
    """A row that shows what goes into its network and what comes out: the graph of `UnetModule` is inside its own."""

    OUTPUTS = ("x_next", "z", "t", "epsilon")

    def forward(  # type: ignore[override]
        self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As `StepModule` -> x', z [B, C, H, W], t [B], epsilon [B, C, H, W]."""
        after, z, t, output, _ = self._row(x, ref, mask, noise, coeffs)
        return after, z, t, _epsilon(output, x)


class LearnedStepModule(StepModule):
    """One row with the learned-range variance of a network with 2C output channels (Nichol & Dhariwal 2021, eq. 15)."""

    def forward(  # type: ignore[override]
        self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor, noise_out: Tensor
    ) -> Tensor:
        """As `StepModule`, with coeffs [B, 21] (`COLUMNS + LEARNED_COLUMNS`) and noise_out [B, C, H, W]."""
        after, z, _, output, c = self._row(x, ref, mask, noise, coeffs)
        f = 0.5 * (output[:, x.shape[1] :] + 1.0)
        log_var = c["log_var_min"] + f * (c["log_var_max"] - c["log_var_min"])
        after = after + c["out_noise"] * torch.exp(0.5 * log_var) * noise_out
        return after + torch.exp(log_var) * (c["var_z"] * z + c["var_ref"] * ref)


def _epsilon(output: Tensor, x: Tensor) -> Tensor:
    """What a network predicts for the noise, without the variance channels that it may have."""
    return output if output.shape[1] == x.shape[1] else output[:, : x.shape[1]]


def _weighted_sum(images: list[Tensor], factors: Tensor) -> Tensor:
    """``sum_i factors[:, i] * images[i]``: images [B, C, H, W], factors [B, n, 1, 1] or [B, n, H, W] -> [B, C, H, W].

    One product and one sum of a stack: on small images a step costs what its number of graph nodes costs. (A matrix
    product would be one node, but engines may round its inputs to TF32.)
    """
    stack = torch.cat(images, dim=1)
    channels = images[0].shape[1]
    if channels == 1:
        return (stack * factors).sum(1, keepdim=True)
    stack = torch.unflatten(stack, 1, (len(images), channels))
    return (stack * factors.unsqueeze(2)).sum(1)

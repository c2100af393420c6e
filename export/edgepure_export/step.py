"""One row of a plan as a PyTorch module: the arithmetic of `edgepure.rows` fused around the UNet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgepure.rows import COLUMNS, LEARNED_COLUMNS

_INDEX = {name: i for i, name in enumerate(COLUMNS + LEARNED_COLUMNS)}


class UnetModule(nn.Module):
    """The bare network: x [B, C, H, W], t [B] -> epsilon [B, C, H, W], without the variance channels if it has them."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        output: Tensor = self.unet(x, t)
        return output[:, : x.shape[1]] if output.shape[1] != x.shape[1] else output


class StepModule(nn.Module):
    """One row for a batch whose images each have their own coefficients. The equations are in `edgepure.rows`."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor) -> Tensor:
        """x, ref, noise [B, C, H, W]; mask [B, 1, H, W] in [0, 1]; coeffs [B, 16] (`COLUMNS`) -> x' [B, C, H, W]."""
        return self._row(x, ref, mask, noise, coeffs, COLUMNS)[0]

    def _row(
        self, x: Tensor, ref: Tensor, mask: Tensor, noise: Tensor, coeffs: Tensor, columns: tuple[str, ...]
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """x', z, the network's whole output, and the columns as [B, 1, 1, 1]."""
        # One Split for all columns: on small images every graph node counts.
        c = dict(zip(columns, coeffs[:, :, None, None].split(1, dim=1), strict=True))
        known = c["jump_a"] * (c["w_out"] + (c["w_in"] - c["w_out"]) * mask)
        unknown = c["jump_a"] - known
        carried, injected = unknown * c["carry_s"], known * c["known_s"]
        std = _sqrt(carried * carried + injected * injected + c["jump_s"] * c["jump_s"])
        z = unknown * x + known * c["known_a"] * ref + std * noise

        output: Tensor = self.unet(z, coeffs[:, _INDEX["t"]])
        eps = output if output.shape[1] == x.shape[1] else output[:, : x.shape[1]]
        x0 = (z - c["sigma"] * eps) / c["alpha"]
        x0 = torch.minimum(torch.maximum(x0, -c["clip"]), c["clip"])
        after = (
            c["out_x"] * x + c["out_z"] * z + c["out_x0"] * x0 + c["out_eps"] * eps + c["out_ref"] * ref
        )
        return after, z, output, c


class LearnedStepModule(StepModule):
    """One row with the learned-range variance of a network with 2C output channels (Nichol & Dhariwal 2021, eq. 15)."""

    def forward(  # type: ignore[override]
        self, x: Tensor, ref: Tensor, noise: Tensor, mask: Tensor, coeffs: Tensor, noise_out: Tensor
    ) -> Tensor:
        """As `StepModule`, with coeffs [B, 21] (`COLUMNS + LEARNED_COLUMNS`) and noise_out [B, C, H, W]."""
        after, z, output, c = self._row(x, ref, mask, noise, coeffs, COLUMNS + LEARNED_COLUMNS)
        f = 0.5 * (output[:, x.shape[1] :] + 1.0)
        log_var = c["log_var_min"] + f * (c["log_var_max"] - c["log_var_min"])
        after = after + c["out_noise"] * torch.exp(0.5 * log_var) * noise_out
        return after + torch.exp(log_var) * (c["var_z"] * z + c["var_ref"] * ref)


def _sqrt(value: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0 and not NaN; a plain one in an exported graph, which has no gradient."""
    if torch.compiler.is_exporting():
        return value.sqrt()
    positive = value > 0
    return torch.where(positive, torch.where(positive, value, 1.0).sqrt(), 0.0)

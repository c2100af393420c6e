"""The denoiser that EDM's paper speaks of, for comparison with recorded ones. Exports predict epsilon instead."""

from __future__ import annotations

from torch import Tensor, float32, nn

from edgepure_export.networks.edm import Preconditioning


class EdmDenoiser(nn.Module):
    """``D(x [B, C, H, W], sigma [B])``: the denoised image in [-1, 1]."""

    def __init__(self, network: nn.Module, precond: Preconditioning) -> None:
        super().__init__()
        self.network, self.precond = network, precond

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        sigma = sigma.to(float32)[:, None, None, None]
        c_in, c_noise = self.precond.inputs(sigma)
        c_skip, c_out = self.precond.outputs(sigma)
        raw: Tensor = self.network(c_in * x, c_noise.flatten())
        return c_skip * x + c_out * raw

"""The heterogeneous purification as a PyTorch loop, written the way research code writes it.

Our own re-implementation of the published loop (strided DDIM grid, re-injection of the outside, U forward steps, DDIM),
as the peer to measure against: one Python loop around an eager module, schedule tables on the device, fresh
``torch.randn_like`` noise, a timestep tensor for every call.
"""

from __future__ import annotations

import torch


class AuthorsLoop:
    """``purify(x, mask)`` for x ``[B, 3, H, W]`` in [-1, 1]."""

    def __init__(
        self, unet: torch.nn.Module, *, t_l: int, t_s: int, ddim_steps: int, U: int, channels_last: bool = False
    ) -> None:
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.unet = unet.to(memory_format=self.memory_format)
        self.betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64).float()
        self.alphas_cumprod = torch.cumprod(1.0 - self.betas, dim=0)
        stride = 1000 // ddim_steps
        self.timesteps = list(range(0, 999, stride))[: int(ddim_steps * t_l / 1000) + 1][::-1]
        self.t_s, self.U = t_s, U

    @property
    def unet_calls(self) -> int:
        return len(self.timesteps) - 1

    def diffuse(self, x: torch.Tensor, t: int) -> torch.Tensor:
        abar = self.alphas_cumprod[t]
        return abar.sqrt() * x + (1.0 - abar).sqrt() * torch.randn_like(x)

    @torch.no_grad()
    def purify(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = x.contiguous(memory_format=self.memory_format)
        x_t = self.diffuse(x, self.timesteps[0])
        for t, t_next in zip(self.timesteps, self.timesteps[1:], strict=False):
            if t_next >= self.t_s:
                x_t = mask * x_t + (1.0 - mask) * self.diffuse(x, t)
                for level in range(t + 1, t + self.U + 1):
                    beta = self.betas[level]
                    x_t = (1.0 - beta).sqrt() * x_t + beta.sqrt() * torch.randn_like(x_t)
                t = t + self.U
            epsilon = self.unet(x_t, torch.full((len(x_t),), float(t)))
            abar, abar_next = self.alphas_cumprod[t], self.alphas_cumprod[t_next]
            x0 = (x_t - (1.0 - abar).sqrt() * epsilon) / abar.sqrt()
            x_t = abar_next.sqrt() * x0 + (1.0 - abar_next).sqrt() * epsilon
        return x_t

"""The UNet of guided-diffusion (Dhariwal & Nichol 2021) and improved-diffusion (Nichol & Dhariwal 2021).

``GuidedDiffusionUNet(x [B, C, H, W] in [-1, 1], t [B]) -> [B, C, H, W]``, or [B, 2C, H, W] with ``learn_sigma``:
epsilon (or x0) and the interpolation of the log variance. State-dict keys are the original ones, e.g. those of
``256x256_diffusion_uncond.pt``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.rows.schedule import NoiseSchedule

from .checkpoints import CheckpointError
from .guided_config import GuidedDiffusionConfig, infer_config
from .layers import downsample2, sinusoid, upsample2
from .parametrisation import EpsilonModel, to_epsilon
from .weights import load_weights, refuse_family


class GuidedDiffusionUNet(nn.Module):
    """The UNet. Levels go from full resolution downwards; every encoder block's output is joined in the decoder."""

    def __init__(self, config: GuidedDiffusionConfig) -> None:
        super().__init__()
        self.config = config
        nc, levels = config.num_channels, len(config.channel_mult)
        emb = 4 * nc
        widths = [int(m * nc) for m in config.channel_mult]
        self.time_embed = nn.Sequential(nn.Linear(nc, emb), nn.SiLU(), nn.Linear(emb, emb))

        def res(c_in: int, c_out: int, resample: str = "") -> ResBlock:
            return ResBlock(c_in, c_out, emb, config.use_scale_shift_norm, resample)

        def attention(c: int, upsampling: bool = False) -> AttentionBlock:
            return AttentionBlock(c, config.heads(c, upsampling), config.use_new_attention_order)

        c = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(config.channels, c, 3, padding=1))])
        saved = [c]
        for level, width in enumerate(widths):
            for _ in range(config.num_res_blocks):
                block: list[nn.Module] = [res(c, width)]
                c = width
                if 2**level in config.attention_factors:
                    block.append(attention(c))
                self.input_blocks.append(Stage(*block))
                saved.append(c)
            if level < levels - 1:
                self.input_blocks.append(Stage(res(c, c, "down") if config.resblock_updown else Downsample(c)))
                saved.append(c)

        self.middle_block = Stage(res(c, c), attention(c), res(c, c))

        self.output_blocks = nn.ModuleList()
        for level in reversed(range(levels)):
            for i in range(config.num_res_blocks + 1):
                block = [res(c + saved.pop(), widths[level])]
                c = widths[level]
                if 2**level in config.attention_factors:
                    block.append(attention(c, upsampling=True))
                if level > 0 and i == config.num_res_blocks:
                    block.append(res(c, c, "up") if config.resblock_updown else Upsample(c))
                self.output_blocks.append(Stage(*block))

        outputs = config.channels * (2 if config.learn_sigma else 1)
        self.out = nn.Sequential(nn.GroupNorm(32, c), nn.SiLU(), nn.Conv2d(c, outputs, 3, padding=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = sinusoid(t, self.config.num_channels, endpoint=False, sin_first=False)
        # Every block starts with SiLU(embedding): do it once.
        emb = F.silu(self.time_embed(embedding.to(x.dtype)))
        h, saved = x, []
        for block in self.input_blocks:
            h = block(h, emb)
            saved.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, saved.pop()], dim=1), emb)
        out: Tensor = self.out(h)
        return out


class Stage(nn.Sequential):
    """A sequence in which residual blocks also get the embedding."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            x = layer(x, emb) if isinstance(layer, ResBlock) else layer(x)
        return x


class ResBlock(nn.Module):
    """GroupNorm, SiLU, (resample,) conv; the embedding as scale and shift or as a sum; GroupNorm, SiLU, conv."""

    def __init__(self, c_in: int, c_out: int, emb: int, scale_shift: bool, resample: str) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        # Identities keep the places, and so the keys, of the SiLU and the dropout of the original.
        self.in_layers = nn.Sequential(nn.GroupNorm(32, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.Identity(), nn.Linear(emb, 2 * c_out if scale_shift else c_out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, c_out), nn.SiLU(), nn.Identity(), nn.Conv2d(c_out, c_out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        norm, act, conv = self.in_layers
        h = act(norm(x))
        if self.resample:
            change = upsample2 if self.resample == "up" else downsample2
            h, x = change(h), change(x)
        h = conv(h)
        e = self.emb_layers(emb)[:, :, None, None]
        if self.scale_shift:
            scale, shift = e.chunk(2, dim=1)
            h = self.out_layers[1:](self.out_layers[0](h) * (1 + scale) + shift)
        else:
            h = self.out_layers(h + e)
        out: Tensor = self.skip_connection(x) + h
        return out


class AttentionBlock(nn.Module):
    """Self-attention over all pixels. ``new_order``: q, k, v are split first and then the heads."""

    def __init__(self, channels: int, heads: int, new_order: bool) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise CheckpointError(
                f"{channels} channels cannot be split into {heads} attention heads; check the flags",
                code="E-guided-heads",
            )
        self.heads, self.new_order = heads, new_order
        self.norm = nn.GroupNorm(32, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        qkv = self.qkv(self.norm(flat))
        if self.new_order:
            parts = [torch.unflatten(p, 1, (self.heads, -1)) for p in qkv.chunk(3, dim=1)]
        else:
            parts = list(torch.unflatten(qkv, 1, (self.heads, -1)).chunk(3, dim=2))
        q, k, v = (p.transpose(2, 3) for p in parts)  # [B, heads, N, d]
        h = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        return torch.unflatten(flat + self.proj_out(h), 2, x.shape[2:])


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(upsample2(x))
        return out


def from_state_dict(
    state: Mapping[str, Tensor], config: GuidedDiffusionConfig | None = None, source: str = "the state dict"
) -> GuidedDiffusionUNet:
    """The network with these weights (prefixes already taken off), in evaluation mode; config None: inferred."""
    refuse_family(state, source, "guided-diffusion")
    config = config or infer_config(state, source)
    with torch.device("meta"):
        network = GuidedDiffusionUNet(config)
    return load_weights(network, state, source, "guided-diffusion")


def epsilon_model(network: GuidedDiffusionUNet, runtime: NoiseSchedule | None = None) -> EpsilonModel:
    """``network`` in the runtime's convention: epsilon at an index of its schedule (None: linear VP, T = 1000)."""
    config = network.config
    scale = 1000 / config.diffusion_steps if config.rescale_timesteps else 1.0
    return to_epsilon(network, "x0" if config.predict_xstart else "epsilon", config.schedule(), scale, runtime)

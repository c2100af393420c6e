"""SongUNet and DhariwalUNet: the raw networks F of EDM, with their original key names.

SongUNet is DDPM++ (positional embedding, box filter) or NCSN++ (Fourier embedding, FIR filter, residual input), and
DhariwalUNet is the ADM network; see `ncsnpp` and `guided_diffusion` for the originals. Both are called as
``F(x [B, C, H, W], c_noise [B]) -> [B, C, H, W]``, unconditionally and without augmentation labels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .checkpoints import CheckpointError
from .layers import blur, downsample2, fir_kernel, sinusoid, upsample2


@dataclass(frozen=True)
class EdmUNetConfig:
    """The keyword arguments of the original classes.

    ``augment_dim``: width of the augmentation labels that the network was trained with (their weights are part of the
    file; at inference the label is zero). ``channels_per_head`` is 64 in every DhariwalUNet; SongUNet has one head.
    """

    img_resolution: int
    in_channels: int = 3
    out_channels: int = 3
    augment_dim: int = 0
    model_channels: int = 128
    channel_mult: tuple[int, ...] = (2, 2, 2)
    channel_mult_emb: int = 4
    channel_mult_noise: int = 1
    num_blocks: int = 4
    attn_resolutions: tuple[int, ...] = (16,)
    embedding_type: str = "positional"
    encoder_type: str = "standard"
    resample_filter: tuple[int, ...] = (1, 1)
    channels_per_head: int = 64


@dataclass(frozen=True)
class _BlockStyle:
    """What distinguishes the residual blocks of the two networks."""

    emb: int
    adaptive_scale: bool
    skip_scale: float
    eps: float
    heads_of: int | None  # channels per head; None: one head
    taps: tuple[int, ...]
    projected_resampling: bool


class SongUNet(nn.Module):
    """DDPM++ and NCSN++ as EDM trains them."""

    def __init__(self, config: EdmUNetConfig) -> None:
        super().__init__()
        self.config = config
        noise, emb = config.model_channels * config.channel_mult_noise, config.model_channels * config.channel_mult_emb
        style = _BlockStyle(emb, False, math.sqrt(0.5), 1e-6, None, config.resample_filter, True)
        if config.embedding_type == "fourier":
            self.map_noise = FourierFeatures(noise)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, noise, bias=False)
        self.map_layer0 = nn.Linear(noise, emb)
        self.map_layer1 = nn.Linear(emb, emb)
        self.enc, c, saved = _encoder(config, style)
        self.dec, c = _decoder(config, style, c, saved, attention_at_the_end=True)
        size = config.img_resolution
        self.dec[f"{size}x{size}_aux_norm"] = _group_norm(c, 1e-6)
        self.dec[f"{size}x{size}_aux_conv"] = nn.Conv2d(c, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, noise_label: Tensor) -> Tensor:
        width = self.map_layer0.in_features
        if self.config.embedding_type == "fourier":
            embedding = self.map_noise(noise_label)
        else:
            embedding = sinusoid(noise_label, width, endpoint=True, sin_first=True)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding.to(x.dtype)))))
        h, saved, pyramid = x, list[Tensor](), x
        for block in self.enc.values():
            if isinstance(block, ResidualInput):
                h = saved[-1] = pyramid = (h + block(pyramid)) * math.sqrt(0.5)
            else:
                h = block(h, emb) if isinstance(block, UNetBlock) else block(h)
                saved.append(h)
        *blocks, norm, conv = self.dec.values()
        out: Tensor = conv(F.silu(norm(_decode(blocks, h, saved, emb))))
        return out


class DhariwalUNet(nn.Module):
    """The ADM network as EDM trains it."""

    def __init__(self, config: EdmUNetConfig) -> None:
        super().__init__()
        self.config = config
        emb = config.model_channels * config.channel_mult_emb
        style = _BlockStyle(emb, True, 1.0, 1e-5, config.channels_per_head, (1, 1), False)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, config.model_channels, bias=False)
        self.map_layer0 = nn.Linear(config.model_channels, emb)
        self.map_layer1 = nn.Linear(emb, emb)
        self.enc, c, saved = _encoder(config, style, first=config.model_channels * config.channel_mult[0])
        self.dec, c = _decoder(config, style, c, saved, attention_at_the_end=False)
        self.out_norm = _group_norm(c, 1e-5)
        self.out_conv = nn.Conv2d(c, config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, noise_label: Tensor) -> Tensor:
        embedding = sinusoid(noise_label, self.config.model_channels, endpoint=False, sin_first=False)
        emb = F.silu(self.map_layer1(F.silu(self.map_layer0(embedding.to(x.dtype)))))
        h, saved = x, list[Tensor]()
        for block in self.enc.values():
            h = block(h, emb) if isinstance(block, UNetBlock) else block(h)
            saved.append(h)
        h = _decode(self.dec.values(), h, saved, emb)
        out: Tensor = self.out_conv(F.silu(self.out_norm(h)))
        return out


class UNetBlock(nn.Module):
    """GroupNorm, SiLU, (resample,) conv; embedding; GroupNorm, SiLU, conv; skip; then attention, if there is any."""

    def __init__(self, c_in: int, c_out: int, style: _BlockStyle, resample: str = "", attention: bool = False) -> None:
        super().__init__()
        self.c_in, self.style = c_in, style
        self.heads = (c_out // style.heads_of if style.heads_of else 1) if attention else 0
        self.norm0 = _group_norm(c_in, style.eps)
        self.conv0 = ResampledConv(c_in, c_out, 3, resample, style.taps)
        self.affine = nn.Linear(style.emb, 2 * c_out if style.adaptive_scale else c_out)
        self.norm1 = _group_norm(c_out, style.eps)
        self.conv1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.skip: ResampledConv | None = None
        if c_in != c_out or resample:
            kernel = 1 if c_in != c_out or style.projected_resampling else 0
            self.skip = ResampledConv(c_in, c_out, kernel, resample, style.taps)
        if attention:
            self.norm2 = _group_norm(c_out, style.eps)
            self.qkv = nn.Conv2d(c_out, 3 * c_out, 1)
            self.proj = nn.Conv2d(c_out, c_out, 1)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h: Tensor = self.conv0(F.silu(self.norm0(x)))
        e = self.affine(emb)[:, :, None, None]
        if self.style.adaptive_scale:
            scale, shift = e.chunk(2, dim=1)
            h = F.silu(self.norm1(h) * (1 + scale) + shift)
        else:
            h = F.silu(self.norm1(h + e))
        h = (self.conv1(h) + (x if self.skip is None else self.skip(x))) * self.style.skip_scale
        if self.heads:
            h = (h + self.proj(self._attend(self.qkv(self.norm2(h))))) * self.style.skip_scale
        return h

    def _attend(self, qkv: Tensor) -> Tensor:
        # Channels are laid out as [heads, channel, (q, k, v)].
        parts = torch.unflatten(qkv.flatten(2), 1, (self.heads, -1, 3)).unbind(3)
        q, k, v = (p.transpose(-1, -2) for p in parts)
        h = F.scaled_dot_product_attention(q, k, v)
        return torch.unflatten(h.transpose(-1, -2).flatten(1, 2), 2, qkv.shape[2:])


class ResampledConv(nn.Module):
    """Resampling by two (with the filter kept as a buffer, as in the original), then a convolution; kernel 0: none."""

    def __init__(self, c_in: int, c_out: int, kernel: int, resample: str, taps: Sequence[int]) -> None:
        super().__init__()
        self.resample, self.taps = resample, tuple(float(k) for k in taps)
        shape = (c_out, c_in, kernel, kernel)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape))) if kernel else None
        self.bias = nn.Parameter(torch.zeros(c_out)) if kernel else None
        if resample:
            self.register_buffer("resample_filter", fir_kernel(self.taps)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        if self.resample:
            x = (upsample2 if self.resample == "up" else downsample2)(x, self.taps)
        return x if self.weight is None else F.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class ResidualInput(nn.Module):
    """NCSN++: the input pyramid, filtered and convolved with stride 2, to be added to the down path."""

    def __init__(self, c_in: int, c_out: int, taps: Sequence[int]) -> None:
        super().__init__()
        self.taps = tuple(float(k) for k in taps)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(c_out, c_in, 3, 3)))
        self.bias = nn.Parameter(torch.zeros(c_out))
        self.register_buffer("resample_filter", fir_kernel(self.taps)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        padding = 1 + (len(self.taps) - 1) // 2
        return F.conv2d(blur(x, self.taps, padding), self.weight, self.bias, stride=2)


class FourierFeatures(nn.Module):
    """Random Fourier features of the noise label (NCSN++); the frequencies belong to the checkpoint."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", nn.init.normal_(torch.empty(channels // 2), std=16.0))

    def forward(self, label: Tensor) -> Tensor:
        angles = label.to(torch.float32)[:, None] * (2.0 * math.pi * self.freqs.to(torch.float32))
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def _encoder(
    config: EdmUNetConfig, style: _BlockStyle, first: int | None = None
) -> tuple[nn.ModuleDict, int, list[int]]:
    """Modules, channels at their end, channels of what they save."""
    enc, saved, pyramid = nn.ModuleDict(), list[int](), config.in_channels
    c = first or config.model_channels
    for level, mult in enumerate(config.channel_mult):
        name = "{0}x{0}".format(config.img_resolution >> level)
        if level == 0:
            enc[f"{name}_conv"] = nn.Conv2d(config.in_channels, c, 3, padding=1)
        else:
            enc[f"{name}_down"] = UNetBlock(c, c, style, "down")
            if config.encoder_type == "residual":
                enc[f"{name}_aux_residual"] = ResidualInput(pyramid, c, config.resample_filter)
                pyramid = c
        saved.append(c)
        for i in range(config.num_blocks):
            width = config.model_channels * mult
            attention = config.img_resolution >> level in config.attn_resolutions
            enc[f"{name}_block{i}"] = UNetBlock(c, width, style, attention=attention)
            c = width
            saved.append(c)
    return enc, c, saved


def _decoder(
    config: EdmUNetConfig, style: _BlockStyle, c: int, saved: list[int], attention_at_the_end: bool
) -> tuple[nn.ModuleDict, int]:
    """Modules and channels at their end. ``attention_at_the_end``: only the last block of a level has attention."""
    dec, levels = nn.ModuleDict(), len(config.channel_mult)
    for level in reversed(range(levels)):
        name = "{0}x{0}".format(config.img_resolution >> level)
        if level == levels - 1:
            dec[f"{name}_in0"] = UNetBlock(c, c, style, attention=True)
            dec[f"{name}_in1"] = UNetBlock(c, c, style)
        else:
            dec[f"{name}_up"] = UNetBlock(c, c, style, "up")
        for i in range(config.num_blocks + 1):
            width = config.model_channels * config.channel_mult[level]
            attention = config.img_resolution >> level in config.attn_resolutions
            attention = attention and (i == config.num_blocks or not attention_at_the_end)
            dec[f"{name}_block{i}"] = UNetBlock(c + saved.pop(), width, style, attention=attention)
            c = width
    return dec, c


def _decode(blocks: Iterable[nn.Module], h: Tensor, saved: list[Tensor], emb: Tensor) -> Tensor:
    for block in blocks:
        if block.c_in != h.shape[1]:
            h = torch.cat([h, saved.pop()], dim=1)
        h = block(h, emb)
    return h


def _group_norm(channels: int, eps: float) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=eps)


def infer_config(
    state: Mapping[str, Tensor], source: str = "the state dict"
) -> tuple[type[SongUNet] | type[DhariwalUNet], EdmUNetConfig]:
    """Class and config from keys (without ``model.``) and shapes; they tell everything."""
    if any(k.startswith("map_label.") for k in state):
        raise CheckpointError(
            f"{source} is class-conditional (map_label): purification needs an unconditional model",
            code="E-checkpoint-conditional",
        )
    if any("_aux_skip." in k or "_aux_up." in k for k in state):
        raise CheckpointError(
            f"{source} has skip connections from the image pyramid, which are not supported",
            code="E-edm-skip",
        )
    sizes = sorted({int(m[1]) for k in state if (m := re.match(r"enc\.(\d+)x\1_", k))}, reverse=True)
    song = "out_conv.weight" not in state
    last = f"dec.{sizes[0]}x{sizes[0]}_aux_conv.weight" if song and sizes else "out_conv.weight"
    needed = ["map_layer0.weight", last, *(f"enc.{s}x{s}_block0.conv1.weight" for s in sizes)]
    stem = state.get(f"enc.{sizes[0]}x{sizes[0]}_conv.weight") if sizes else None
    if stem is None or any(k not in state for k in needed):
        raise CheckpointError(
            f"{source} is not a complete EDM network; its first keys are {list(state)[:5]}; "
            "check the file, or name its family",
            code="E-checkpoint-incomplete",
        )
    emb, noise = state["map_layer0.weight"].shape
    widths = [int(state[f"enc.{s}x{s}_block0.conv1.weight"].shape[0]) for s in sizes]
    fourier = state.get("map_noise.freqs")
    # SongUNet's stem has model_channels; DhariwalUNet's label has.
    channels = int(stem.shape[0]) if song else int(noise)
    filters = [v for k, v in state.items() if k.endswith("resample_filter")]
    taps = (1, 3, 3, 1) if filters and filters[0].shape[-1] == 4 else (1, 1)
    if any(v.shape[-1] != len(taps) or not torch.allclose(v[0, 0].float().cpu(), fir_kernel(taps)) for v in filters):
        raise CheckpointError(
            f"{source} has resampling filters other than [1, 1] and [1, 3, 3, 1]", code="E-edm-resampling"
        )
    blocks = [k for k in state if re.match(rf"enc\.{sizes[0]}x{sizes[0]}_block\d+\.conv1\.weight", k)]
    return (SongUNet if song else DhariwalUNet), EdmUNetConfig(
        img_resolution=sizes[0],
        in_channels=int(stem.shape[1]),
        out_channels=int(state[last].shape[0]),
        augment_dim=int(state["map_augment.weight"].shape[1]) if "map_augment.weight" in state else 0,
        model_channels=channels,
        channel_mult=tuple(w // channels for w in widths),
        channel_mult_emb=int(emb) // channels,
        channel_mult_noise=int(noise) // channels,
        num_blocks=len(blocks),
        attn_resolutions=tuple(s for s in sizes if f"enc.{s}x{s}_block0.qkv.weight" in state),
        embedding_type="positional" if fourier is None else "fourier",
        encoder_type="residual" if any("_aux_residual." in k for k in state) else "standard",
        resample_filter=taps,
    )

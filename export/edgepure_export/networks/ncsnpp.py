"""The NCSN++ / DDPM++ network of score_sde (Song et al. 2021, appendix H), in its VP configurations.

``NCSNpp(x [B, C, H, W] in [-1, 1], t [B]) -> [B, C, H, W]``: epsilon at label ``t`` = 0 .. 999, real-valued. The score
is ``-NCSNpp(x, 999 s) / std(s)``. State-dict keys are the original ones, ``all_modules.<i>.<name>`` and the unused
buffer ``sigmas``. A training checkpoint counts by its EMA, a *list* in parameter order (`state_from_checkpoint`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgepure.rows.schedule import NoiseSchedule

from .checkpoints import CheckpointError
from .layers import blur, downsample2, sinusoid, upsample2
from .ncsnpp_config import PRESETS, NCSNppConfig, infer_config
from .parametrisation import EpsilonModel, to_epsilon
from .weights import StateDict, load_weights, refuse_family, state_dict_from, strip_prefixes

_BOX = (1.0, 1.0)
#: What the forward pass does with module i: run a block, attention or the residual input, or save / join a skip.
_Step = tuple[Literal["block", "attention", "residual_input", "save", "join"], int]


class NCSNpp(nn.Module):
    """The network. ``all_modules`` is flat, as in the original; ``program`` says what happens with each module."""

    sigmas: Tensor

    def __init__(self, config: NCSNppConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("sigmas", _sigmas(config))
        nf, emb, levels = config.nf, 4 * config.nf, len(config.ch_mult)
        modules: list[nn.Module] = []
        self.program: list[_Step] = []

        def add(kind: Literal["block", "attention", "residual_input"], module: nn.Module) -> None:
            self.program.append((kind, len(modules)))
            modules.append(module)

        def block(c_in: int, c_out: int, resample: Literal["", "up", "down"] = "") -> None:
            add("block", ResBlock(c_in, c_out, emb, resample, config.fir or _BOX, config.skip_rescale))

        def attention(c: int) -> None:
            add("attention", AttentionBlock(c, config.skip_rescale))

        def save(c: int) -> None:
            self.program.append(("save", -1))
            saved.append(c)

        def join() -> int:
            self.program.append(("join", -1))
            return saved.pop()

        modules += [nn.Linear(nf, emb), nn.Linear(emb, emb), nn.Conv2d(config.channels, nf, 3, padding=1)]
        c, pyramid, saved = nf, config.channels, list[int]()
        save(c)
        for level, mult in enumerate(config.ch_mult):
            for _ in range(config.num_res_blocks):
                block(c, nf * mult)
                c = nf * mult
                if level in config.attention_levels:
                    attention(c)
                save(c)
            if level < levels - 1:
                block(c, c, "down")
                if config.residual_input:
                    add("residual_input", ResidualInput(pyramid, c, config.fir))
                    pyramid = c
                save(c)
        block(c, c)
        attention(c)
        block(c, c)
        for level in reversed(range(levels)):
            for _ in range(config.num_res_blocks + 1):
                block(c + join(), nf * config.ch_mult[level])
                c = nf * config.ch_mult[level]
            if level in config.attention_levels:
                attention(c)
            if level > 0:
                block(c, c, "up")
        modules += [group_norm(c), nn.Conv2d(c, config.channels, 3, padding=1)]
        self.all_modules = nn.ModuleList(modules)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        modules = self.all_modules
        embedding = sinusoid(t, self.config.nf, endpoint=True, sin_first=True).to(x.dtype)
        # Every block starts with SiLU(temb): do it once.
        emb = F.silu(modules[1](F.silu(modules[0](embedding))))
        h: Tensor = modules[2](x)
        pyramid, saved = x, []
        for kind, i in self.program:
            if kind == "block":
                h = modules[i](h, emb)
            elif kind == "attention":
                h = modules[i](h)
            elif kind == "residual_input":
                h = pyramid = _sum(modules[i](pyramid), h, self.config.skip_rescale)
            elif kind == "save":
                saved.append(h)
            else:
                h = torch.cat([h, saved.pop()], dim=1)
        out: Tensor = modules[-1](F.silu(modules[-2](h)))
        return out


class ResBlock(nn.Module):
    """The BigGAN residual block: GroupNorm, SiLU, (resample,) conv, + embedding, GroupNorm, SiLU, conv."""

    def __init__(
        self, c_in: int, c_out: int, emb: int, resample: Literal["", "up", "down"], fir: Sequence[float], rescale: bool
    ) -> None:
        super().__init__()
        self.resample, self.fir, self.rescale = resample, fir, rescale
        self.GroupNorm_0 = group_norm(c_in)
        self.Conv_0 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.Dense_0 = nn.Linear(emb, c_out)
        self.GroupNorm_1 = group_norm(c_out)
        self.Conv_1 = nn.Conv2d(c_out, c_out, 3, padding=1)
        self.Conv_2 = nn.Conv2d(c_in, c_out, 1) if c_in != c_out or resample else None

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = F.silu(self.GroupNorm_0(x))
        if self.resample:
            change = upsample2 if self.resample == "up" else downsample2
            h, x = change(h, self.fir), change(x, self.fir)
        h = self.Conv_0(h) + self.Dense_0(emb)[:, :, None, None]
        h = self.Conv_1(F.silu(self.GroupNorm_1(h)))
        return _sum(x if self.Conv_2 is None else self.Conv_2(x), h, self.rescale)


class AttentionBlock(nn.Module):
    """Single-head self-attention over all pixels."""

    def __init__(self, channels: int, rescale: bool) -> None:
        super().__init__()
        self.rescale = rescale
        self.GroupNorm_0 = group_norm(channels)
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (PixelLinear(channels) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        pixels = self.GroupNorm_0(x).flatten(2).transpose(1, 2)[:, None]  # [B, 1 head, N, C]
        h = F.scaled_dot_product_attention(self.NIN_0(pixels), self.NIN_1(pixels), self.NIN_2(pixels))
        return _sum(x, torch.unflatten(self.NIN_3(h.squeeze(1)).transpose(1, 2), 2, x.shape[2:]), self.rescale)


class PixelLinear(nn.Module):
    """score_sde's "NIN": a linear map of the channels, with its matrix stored as [in, out]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(channels, channels))
        nn.init.xavier_uniform_(self.W)
        self.b = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W + self.b


class ResidualInput(nn.Module):
    """NCSN++: the input pyramid, filtered, convolved and halved, to be added to the down path."""

    def __init__(self, c_in: int, c_out: int, fir: Sequence[float] | None) -> None:
        super().__init__()
        self.fir = fir
        # The original names it differently with and without the filter.
        self.name = "Conv_0" if fir is None else "Conv2d_0"
        self.add_module(self.name, nn.Conv2d(c_in, c_out, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 1, 0, 1)) if self.fir is None else blur(x, self.fir, padding=len(self.fir) // 2)
        out: Tensor = self.get_submodule(self.name)(x)
        return out


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def _sum(x: Tensor, h: Tensor, rescale: bool) -> Tensor:
    return (x + h) * math.sqrt(0.5) if rescale else x + h


def state_from_checkpoint(
    content: Any, source: str, config: NCSNppConfig | None = None
) -> tuple[StateDict, NCSNppConfig]:
    """State dict and config from what a score_sde file holds.

    A training checkpoint ``{optimizer, model, ema, step}`` gives its EMA weights: ``ema["shadow_params"]`` is a list in
    parameter order, without buffers. (Loading its ``model`` instead gives other, worse images and no error.) A plain
    state dict, possibly wrapped, is taken as it is.
    """
    if not (isinstance(content, Mapping) and ("ema" in content or {"optimizer", "model"} <= set(content))):
        state = state_dict_from(content, source)
        config = config or infer_config(state, source)
        return {"sigmas": _sigmas(config), **state}, config
    model = strip_prefixes(content["model"]) if isinstance(content.get("model"), Mapping) else {}
    refuse_family(model, source, "score-sde")
    ema = content.get("ema")
    shadow = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not isinstance(shadow, Sequence) or not all(isinstance(p, Tensor) for p in shadow):
        raise CheckpointError(
            f"{source} is a score_sde training checkpoint without ema.shadow_params, which is needed; "
            "give the checkpoint with its moving average",
            code="E-ncsnpp-ema",
        )
    if config is None and not model:
        raise CheckpointError(
            f"{source} has an EMA list but no `model` to tell the network's shape; name a preset",
            code="E-ncsnpp-ema-model",
        )
    config = config or infer_config(model, source)
    with torch.device("meta"):
        parameters = dict(NCSNpp(config).named_parameters())
    if len(parameters) != len(shadow):
        raise CheckpointError(
            f"{source} has {len(shadow)} EMA tensors, but the network has {len(parameters)} parameters; name the "
            f"preset or config of this checkpoint (presets: {', '.join(PRESETS)})",
            code="E-ncsnpp-ema-count",
        )
    state = dict(zip(parameters, shadow, strict=True))
    return {"sigmas": model.get("sigmas", _sigmas(config)), **state}, config


def from_checkpoint(content: Any, source: str, config: NCSNppConfig | None = None) -> NCSNpp:
    """The network with the weights of a score_sde file (see `state_from_checkpoint`), in evaluation mode."""
    state, config = state_from_checkpoint(content, source, config)
    with torch.device("meta"):
        network = NCSNpp(config)
    return load_weights(network, state, source, "score-sde")


def epsilon_model(network: NCSNpp, runtime: NoiseSchedule | None = None) -> EpsilonModel:
    """``network`` in the runtime's convention: label = index, as every purifier in the literature calls it."""
    return to_epsilon(network, "epsilon", NoiseSchedule.linear(), runtime=runtime)


def _sigmas(config: NCSNppConfig) -> Tensor:
    """The VE noise levels, [num_scales] float64: part of the original state dict, unused by the VP configurations."""
    ends = math.log(config.sigma_max), math.log(config.sigma_min)
    return torch.linspace(*ends, config.num_scales, dtype=torch.float64, device="cpu").exp()

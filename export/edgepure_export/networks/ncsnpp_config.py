"""The shape of a DDPM++/NCSN++ network: score_sde's configs, the published ones, and what a state dict tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .checkpoints import CheckpointError
from .weights import refuse_family

_FIR = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True)
class NCSNppConfig:
    """Shape of the network; names as in score_sde's configs, with attention as levels (0 = full resolution).

    ``residual_input`` is progressive_input = "residual" (NCSN++), with the FIR filter if ``fir``.
    """

    nf: int = 128
    ch_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_res_blocks: int = 8
    attention_levels: tuple[int, ...] = (1,)
    fir: tuple[float, ...] | None = None
    residual_input: bool = False
    skip_rescale: bool = True
    channels: int = 3
    image_size: int = 32
    num_scales: int = 1000
    sigma_min: float = 0.01
    sigma_max: float = 50.0

    @classmethod
    def from_json(cls, config: Mapping[str, Any]) -> NCSNppConfig:
        """From a score_sde config as a tree (``data``, ``model``); what is not a VP DDPM++/NCSN++ is refused."""
        data, model = config.get("data", {}), config.get("model", {})
        for name, wanted in {
            "name": ("ncsnpp",),
            "resblock_type": ("biggan",),
            "embedding_type": ("positional",),
            "progressive": ("none",),
            "progressive_input": ("none", "residual"),
            "nonlinearity": ("swish",),
            "conditional": (True,),
            "scale_by_sigma": (False,),
        }.items():
            value = model.get(name, wanted[0])
            if (value.lower() if isinstance(value, str) else value) not in wanted:
                raise CheckpointError(
                    f"score_sde config has model.{name} = {value!r}; supported are the VP configurations, with "
                    + " or ".join(repr(w) for w in wanted),
                    code="E-ncsnpp-config",
                )
        size, ch_mult = int(data.get("image_size", 32)), tuple(model.get("ch_mult", (1, 2, 2, 2)))
        resolutions = set(model.get("attn_resolutions", (16,)))
        return cls(
            nf=model.get("nf", 128),
            ch_mult=ch_mult,
            num_res_blocks=model.get("num_res_blocks", 8),
            attention_levels=tuple(i for i in range(len(ch_mult)) if size // 2**i in resolutions),
            fir=tuple(float(k) for k in model.get("fir_kernel", _FIR)) if model.get("fir", False) else None,
            residual_input=model.get("progressive_input", "none").lower() == "residual",
            skip_rescale=model.get("skip_rescale", True),
            channels=data.get("num_channels", 3),
            image_size=size,
            num_scales=model.get("num_scales", 1000),
            sigma_min=model.get("sigma_min", 0.01),
            sigma_max=model.get("sigma_max", 50.0),
        )


_CIFAR = NCSNppConfig(num_res_blocks=4)
#: score_sde's VP configurations for CIFAR-10; the DiffPure ``checkpoint_8.pth`` is cifar10-ddpmpp-deep-continuous.
PRESETS: dict[str, NCSNppConfig] = {
    "cifar10-ddpmpp-continuous": _CIFAR,
    "cifar10-ddpmpp-deep-continuous": NCSNppConfig(),
    "cifar10-ncsnpp-continuous": NCSNppConfig(num_res_blocks=4, fir=_FIR, residual_input=True),
    "cifar10-ncsnpp-deep-continuous": NCSNppConfig(fir=_FIR, residual_input=True),
}


def infer_config(state: Mapping[str, Tensor], source: str = "the state dict", image_size: int = 32) -> NCSNppConfig:
    """The config from keys and shapes. They do not tell the image size, and a FIR filter only with residual input."""
    refuse_family(state, source, "score-sde")
    names: dict[int, set[str]] = {}
    for key in state:
        if m := re.match(r"all_modules\.(\d+)\.(.+)", key):
            names.setdefault(int(m[1]), set()).add(m[2])
    order = sorted(names)
    if order != list(range(len(order))) or len(order) < 8 or "NIN_0.W" not in set().union(*names.values()):
        raise CheckpointError(
            f"{source} is not a complete DDPM++/NCSN++ network; its first keys are {list(state)[:5]}; "
            "check the file, or name its family",
            code="E-checkpoint-incomplete",
        )
    if "W" in names[0]:
        raise CheckpointError(
            f"{source} is a VE network (Fourier embedding); supported are the VP configurations",
            code="E-ncsnpp-ve",
        )

    def width(i: int, side: int) -> int:  # side 0: output channels, 1: input channels
        return int(state[f"all_modules.{i}.Conv_0.weight"].shape[side])

    blocks = [i for i in order if "Dense_0.weight" in names[i]]
    if any("Conv_2.weight" not in names[i] and width(i, 0) != width(i, 1) for i in blocks):
        raise CheckpointError(
            f"{source} has residual blocks of the DDPM kind; supported are those of BigGAN",
            code="E-ncsnpp-blocks",
        )
    down = [n for n, i in enumerate(blocks) if width(i, 0) == width(i, 1) and "Conv_2.weight" in names[i]]
    per_level = down[0] if down else (len(blocks) - 3) // 2
    levels = len(blocks) // (2 * per_level + 3) if per_level else 0
    if not levels or levels * (2 * per_level + 3) != len(blocks):
        raise CheckpointError(
            f"{source} has {len(blocks)} residual blocks, which make no DDPM++/NCSN++ network",
            code="E-ncsnpp-block-count",
        )
    nf = int(state["all_modules.0.weight"].shape[1])
    firsts = [blocks[n * (per_level + 1)] for n in range(levels)]
    inputs = [i for i in order if names[i] & {"Conv2d_0.weight"} or ("Conv_0.weight" in names[i] and i not in blocks)]
    return NCSNppConfig(
        nf=nf,
        ch_mult=tuple(width(i, 0) // nf for i in firsts),
        num_res_blocks=per_level,
        attention_levels=tuple(n for n, i in enumerate(firsts) if "NIN_0.W" in names[i + 1]),
        fir=_FIR if inputs and "Conv2d_0.weight" in names[inputs[0]] else None,
        residual_input=bool(inputs),
        channels=int(state["all_modules.2.weight"].shape[1]),
        image_size=image_size,
        num_scales=int(state["sigmas"].shape[0]) if "sigmas" in state else 1000,
    )

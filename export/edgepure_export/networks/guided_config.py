"""The shape of a guided-diffusion UNet: flags of the original scripts, published ones, and what a state dict tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from edgepure.rows.schedule import NoiseSchedule, ScheduleSpec

from .checkpoints import CheckpointError
from .weights import refuse_family

#: channel_mult where the flags leave it empty, per image size.
DEFAULT_CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    512: (0.5, 1, 1, 2, 2, 4, 4),
    256: (1, 1, 2, 2, 4, 4),
    128: (1, 1, 2, 3, 4),
    64: (1, 2, 3, 4),
    32: (1, 2, 2, 2),  # improved-diffusion only
}

#: Flags of the original training scripts that say nothing about the network at inference.
_WITHOUT_EFFECT = {"dropout", "use_checkpoint", "use_fp16", "timestep_respacing", "use_kl", "rescale_learned_sigmas"}
#: Flags that neither keys nor shapes tell.
_UNTOLD = (
    "image_size",
    "num_heads",
    "num_head_channels",
    "num_heads_upsample",
    "use_new_attention_order",
    "predict_xstart",
    "noise_schedule",
    "diffusion_steps",
    "rescale_timesteps",
)


@dataclass(frozen=True)
class GuidedDiffusionConfig:
    """The flags of the original scripts, with attention as downsampling factors (image_size / resolution)."""

    image_size: int
    num_channels: int = 128
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] = (1, 2, 3, 4)
    attention_factors: tuple[int, ...] = (4, 8)
    num_heads: int = 4
    num_head_channels: int = -1
    num_heads_upsample: int = -1
    resblock_updown: bool = False
    use_scale_shift_norm: bool = True
    use_new_attention_order: bool = False
    learn_sigma: bool = False
    predict_xstart: bool = False
    noise_schedule: str = "linear"
    diffusion_steps: int = 1000
    rescale_timesteps: bool = True
    channels: int = 3

    @classmethod
    def from_flags(cls, flags: Mapping[str, Any]) -> GuidedDiffusionConfig:
        """From the flags as the original scripts spell them; those that are left out have the scripts' defaults."""
        given = {k: v for k, v in flags.items() if k not in _WITHOUT_EFFECT}
        if given.pop("class_cond", False):
            raise CheckpointError(
                "class_cond is true: purification needs an unconditional diffusion model",
                code="E-checkpoint-conditional",
            )
        size = int(given.setdefault("image_size", 64))
        mult = given.pop("channel_mult", "") or DEFAULT_CHANNEL_MULT.get(size)
        if mult is None:
            raise CheckpointError(
                f"image_size {size} has no usual channel_mult; add one to the flags, such as '1,2,2,2'",
                code="E-guided-channel-mult",
            )
        given["channel_mult"] = tuple(float(m) if float(m) % 1 else int(float(m)) for m in _numbers(mult))
        resolutions = _numbers(given.pop("attention_resolutions", "16,8"))
        # A resolution that the network does not reach has no effect; the middle block always has attention.
        factors = {size // int(r) for r in resolutions} & {2**n for n in range(len(given["channel_mult"]))}
        given["attention_factors"] = tuple(sorted(factors))
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            raise CheckpointError(
                f"unknown guided-diffusion flags: {', '.join(unknown)}; leave them out, or check their names",
                code="E-guided-flags-unknown",
            )
        return cls(**given)

    def heads(self, channels: int, upsampling: bool) -> int:
        """Attention heads of a block with ``channels`` channels."""
        if self.num_head_channels != -1:
            return channels // self.num_head_channels
        return self.num_heads_upsample if upsampling and self.num_heads_upsample != -1 else self.num_heads

    def schedule(self) -> NoiseSchedule:
        """The schedule it was trained with; a linear one keeps its total noise when the number of steps changes."""
        scale = 1000 / self.diffusion_steps
        if self.noise_schedule == "linear":
            return NoiseSchedule.linear(self.diffusion_steps, scale * 1e-4, scale * 0.02)
        if self.noise_schedule == "cosine":
            return ScheduleSpec(kind="cosine", timesteps=self.diffusion_steps).build()
        raise CheckpointError(
            f"noise_schedule {self.noise_schedule!r} is not known; expected linear or cosine",
            code="E-guided-schedule",
        )


_ADM_256 = GuidedDiffusionConfig(
    image_size=256,
    num_channels=256,
    channel_mult=(1, 1, 2, 2, 4, 4),
    attention_factors=(8, 16, 32),
    num_head_channels=64,
    resblock_updown=True,
    learn_sigma=True,
)
_IDDPM = GuidedDiffusionConfig(
    image_size=64, num_res_blocks=3, learn_sigma=True, noise_schedule="cosine", diffusion_steps=4000
)
#: Published unconditional checkpoints, with the flags of the READMEs of the two repositories.
PRESETS: dict[str, GuidedDiffusionConfig] = {
    "imagenet256-uncond": _ADM_256,  # 256x256_diffusion_uncond.pt
    "lsun256": _ADM_256,  # lsun_bedroom.pt, lsun_cat.pt, lsun_horse.pt
    "imagenet64-uncond": _IDDPM,  # imagenet64_uncond_100M_1500K.pt
    "cifar10-uncond": replace(_IDDPM, image_size=32, channel_mult=(1, 2, 2, 2), attention_factors=(2, 4)),
    "lsun-bedroom-100M": replace(
        _IDDPM,
        image_size=256,
        num_res_blocks=2,
        channel_mult=(1, 1, 2, 2, 4, 4),
        attention_factors=(16,),
        num_heads=1,
        use_scale_shift_norm=False,
        noise_schedule="linear",
        diffusion_steps=1000,
        rescale_timesteps=False,
    ),  # lsun_uncond_100M_*.pt
}


def infer_structure(state: Mapping[str, Tensor], source: str = "the state dict") -> dict[str, Any]:
    """The fields of `GuidedDiffusionConfig` that keys and shapes tell.

    They do not tell the image size, how attention splits into heads, or the noise schedule.
    """
    refuse_family(state, source, "guided-diffusion")
    if "label_emb.weight" in state:
        raise CheckpointError(
            f"{source} is class-conditional (label_emb): purification needs an unconditional model",
            code="E-checkpoint-conditional",
        )
    stem, end = state.get("input_blocks.0.0.weight"), state.get("out.2.weight")
    parts: dict[int, set[str]] = {}
    for key in state:
        if m := re.match(r"output_blocks\.(\d+)\.(\d+\.\w+)\.", key):
            parts.setdefault(int(m[1]), set()).add(m[2])
    if stem is None or end is None or sorted(parts) != list(range(len(parts))) or not parts:
        raise CheckpointError(
            f"{source} is not a complete guided-diffusion UNet; its first keys are {list(state)[:5]}; "
            "check the file, or name its family",
            code="E-checkpoint-incomplete",
        )

    def ends_level(names: set[str]) -> bool:
        return sum(n.endswith(".in_layers") for n in names) == 2 or any(n.endswith(".conv") for n in names)

    per_level = next((i + 1 for i in sorted(parts) if ends_level(parts[i])), len(parts))
    starts = range(len(parts) - per_level, -1, -per_level)  # first output block of each level, full resolution first
    nc, channels = int(stem.shape[0]), int(stem.shape[1])
    if "time_embed.0.weight" in state:
        nc = int(state["time_embed.0.weight"].shape[1])
    first_res = "output_blocks.0.0"
    widths = [int(state[f"output_blocks.{i}.0.out_layers.3.weight"].shape[0]) for i in starts]
    outputs = state[f"{first_res}.out_layers.3.weight"].shape[0]
    return {
        "num_channels": nc,
        "channels": channels,
        "num_res_blocks": per_level - 1,
        "channel_mult": tuple(w // nc if w % nc == 0 else w / nc for w in widths),
        "attention_factors": tuple(2**n for n, i in enumerate(starts) if "1.qkv" in parts[i]),
        "resblock_updown": any(sum(n.endswith(".in_layers") for n in names) == 2 for names in parts.values()),
        "use_scale_shift_norm": state[f"{first_res}.emb_layers.1.weight"].shape[0] == 2 * outputs,
        "learn_sigma": int(end.shape[0]) == 2 * channels,
    }


def infer_config(
    state: Mapping[str, Tensor], source: str = "the state dict", given: Mapping[str, Any] | None = None
) -> GuidedDiffusionConfig:
    """The config from keys and shapes, completed by ``given`` fields or the published preset of the same structure."""
    given = {k: v for k, v in (given or {}).items() if k not in _WITHOUT_EFFECT}
    if unknown := sorted(set(given) - set(_UNTOLD)):
        raise CheckpointError(
            f"flags {', '.join(unknown)} need the other flags too: give all flags of the training script (num_channels "
            f"among them), or only what the keys of {source} do not tell: {', '.join(_UNTOLD)}",
            code="E-guided-flags-partial",
        )
    structure = infer_structure(state, source)
    if "image_size" in given and ("num_heads" in given or "num_head_channels" in given):
        return GuidedDiffusionConfig(**{**structure, **given})
    for preset in PRESETS.values():
        if all(getattr(preset, k) == v for k, v in structure.items()):
            return replace(preset, **given)
    raise CheckpointError(
        f"{source} is none of the published networks ({', '.join(PRESETS)}), and the keys do not tell everything: "
        "give image_size and num_heads or num_head_channels, or all flags of its training script",
        code="E-guided-flags-needed",
    )


def _numbers(value: Any) -> tuple[Any, ...]:
    return tuple(v for v in value.split(",") if v) if isinstance(value, str) else tuple(value)

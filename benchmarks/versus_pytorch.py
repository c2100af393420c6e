"""The same purification by PyTorch, the way the authors' code runs it, and by edgepure; FP32, same threads."""

from __future__ import annotations

import numpy as np
import torch

import edgepure
from edgepure.measure import interleaved
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SecretNoise

from .authors_loop import AuthorsLoop


def measure(purifier: edgepure.Purifier, unet: torch.nn.Module, batch: int, repeats: int) -> dict[str, object]:
    """Heterogeneous purification (official variant) of ``batch`` images; ratios are PyTorch's time over ours."""
    plan = purifier.plan("heterogeneous")
    method = purifier.presets["heterogeneous"].method
    options = {"t_l": method.t_l, "t_s": method.t_s, "ddim_steps": method.ddim_steps, "U": method.U}  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    refs = rng.uniform(-1.0, 1.0, (batch, *purifier.image_shape)).astype(np.float32)
    mask = np.zeros((1, *purifier.image_shape[1:]), np.float32)
    mask[:, : mask.shape[1] // 2] = 1.0
    stepper = purifier.stepper("step")

    def ours() -> None:
        source = SecretNoise()
        jobs = [
            Job(plan, source.for_image(plan, i, 0, mask, purifier.image_shape), ref, mask) for i, ref in enumerate(refs)
        ]
        InFlight(stepper).run(jobs, lambda job, x: None)

    x, m = torch.from_numpy(refs), torch.from_numpy(mask)
    result: dict[str, object] = {"batch": batch, "unet_calls": plan.unet_calls}
    for name, channels_last in (("eager", False), ("channels_last", True)):
        loop = AuthorsLoop(unet, **options, channels_last=channels_last)
        assert loop.unet_calls == plan.unet_calls
        times = interleaved({"edgepure": ours, name: lambda loop=loop: loop.purify(x, m)}, repeats)  # type: ignore[misc]
        result[f"vs_{name}"] = times.ratio(name, "edgepure")
        result[f"{name}_ms_per_call"] = 1e3 * times.median(name) / plan.unet_calls
        result["edgepure_ms_per_call"] = 1e3 * times.median("edgepure") / plan.unet_calls
    return result

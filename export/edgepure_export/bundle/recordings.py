"""Recorded purifications for the self-test: what PyTorch makes of a few images with each preset and seeded noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgepure.bundle.bundle import Bundle
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset
from edgepure.parity.executors import EngineExecutor, masks_of_caller, rows_to_keep
from edgepure.rows.noise import SeededNoise

from ..twin.reference import TorchReference
from .graph_files import Part
from .torch_engine import torch_purifier

#: Seed of the noise of every recorded purification.
SELFTEST_SEED = 20240301


class StateKeeper:
    """Called by `TorchReference.run` after every row; keeps the states after the rows that were asked for."""

    def __init__(self, rows: Sequence[int]) -> None:
        self.rows = tuple(rows)
        self._kept: dict[int, Tensor] = {}

    def __call__(self, row: int, state: Tensor) -> None:
        if row in self.rows:
            self._kept[row] = state.detach().cpu()

    def states(self) -> NDArray[np.float32]:
        """``[B, rows, C, H, W]`` float32 in model range."""
        return torch.stack([self._kept[row] for row in self.rows], dim=1).numpy()


def record_pipelines(
    reference: TorchReference,
    presets: Mapping[str, Preset],
    images: Tensor,
    most_calls: int | None = None,
    on_preset: Callable[[str, int], None] | None = None,
) -> dict[str, NDArray[Any]]:
    """One vote of every preset, as arrays of ``selftest.npz``; of the first one without SSNI (whose rows depend on the
    image) also the states after its rows.

    Args:
        reference: PyTorch twin of the bundle, with schedule and classifier.
        presets: by name.
        images: ``[B, C, H, W]`` in [0, 1], B >= 2.
        most_calls: presets with more UNet calls (probe included) are left out; None: none is.
        on_preset: called before each recording with its name and how many there were before it.
    """
    arrays: dict[str, NDArray[Any]] = {}
    assert reference.schedule is not None
    planner = Planner(reference.schedule, images[0].numel())
    trajectory: str | None = None
    for done, (key, preset) in enumerate(presets.items()):
        probe = planner.probe(preset)
        calls = planner.plan(preset).unet_calls + (0 if probe is None else probe.unet_calls)
        if most_calls is not None and calls > most_calls:
            continue
        if on_preset is not None:
            on_preset(key, done)
        keep = StateKeeper(())
        if trajectory is None and preset.ssni is None:
            trajectory, keep = key, StateKeeper(rows_to_keep(calls, images.numel() * images.element_size()))
        given = masks_of_caller(preset, images.numpy())
        mask = None if given is None else torch.from_numpy(given)
        with torch.no_grad():
            found = reference.run_preset(images, preset, SeededNoise(SELFTEST_SEED), mask=mask, on_row=keep)
        prefix = f"pipeline/{key}/"
        arrays[prefix + "image"] = images.numpy()
        arrays[prefix + "seed"] = np.array(SELFTEST_SEED, dtype=np.int64)
        arrays[prefix + "purified"] = found.purified.numpy()
        if found.logits.shape[1]:
            arrays[prefix + "logits"] = found.logits.numpy()
        arrays.update({f"{prefix}task/{name}": value.numpy() for name, value in found.task.items()})
        if found.mask is not None:
            arrays[prefix + "mask"] = found.mask.numpy()
        if found.score_norms is not None:
            arrays[prefix + "score_norms"] = found.score_norms.numpy()
        if keep.rows:
            arrays[prefix + "rows"] = np.array(keep.rows, dtype=np.int64)
            arrays[prefix + "states"] = keep.states()
    return arrays


def record_frame(bundle: Bundle, parts: Mapping[str, Part], room: int) -> dict[str, NDArray[Any]]:
    """One frame, purified by tiles with the default preset, and what the task makes of it, as arrays of
    ``selftest.npz``: for a task that takes frames. It is the first that the task graph was recorded with. Nothing
    where the preset itself was not recorded, and where it takes more than ``room`` bytes.
    """
    name, selftest = bundle.manifest.default_preset, bundle.selftest()
    graph = selftest.graphs["task"]
    frame = graph.inputs["image"][:1]
    size = frame.nbytes + sum(output[:1].nbytes for output in graph.outputs.values())
    if name not in selftest.pipelines or size > room:
        return {}
    with torch_purifier(bundle, parts) as purifier:
        found = EngineExecutor(purifier).frames(frame, bundle.manifest.presets[name], SELFTEST_SEED)
    prefix = f"pipeline/{name}/"
    return {prefix + "frames": found.purified, **{f"{prefix}task/{key}": v for key, v in found.task.items()}}

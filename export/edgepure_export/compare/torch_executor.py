"""The source networks as an executor of a bundle's graphs and presets, for `edgepure.parity.verify`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgepure.bundle.bundle import Bundle
from edgepure.methods.presets import Preset
from edgepure.parity.executors import EngineExecutor, FrameRun, PresetRun, Trajectory, masks_of_caller
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan

from ..bundle.after_export import run_module
from ..bundle.cases import Cases
from ..bundle.graph_files import Part, bundle_parts
from ..bundle.recordings import StateKeeper
from ..bundle.tasks import Task, TaskModule
from ..bundle.torch_engine import torch_purifier
from ..graphs.attention import MaskModule
from ..graphs.taps import named_taps
from ..graphs.to_onnx import evaluating
from ..twin.noise_batches import SourceNoise
from ..twin.reference import TorchReference

Float32 = NDArray[np.float32]

#: Images that PyTorch purifies at once.
CHUNK = 16


class TorchExecutor:
    """PyTorch beside a bundle. Made by `torch_executor`."""

    name = "PyTorch"
    precision = "fp32"

    def __init__(self, bundle: Bundle, reference: TorchReference, parts: Mapping[str, Part], cases: Cases) -> None:
        self.reference, self.parts, self._bundle, self._cases = reference, parts, bundle, cases

    def cases(self, graph: str) -> Iterable[Mapping[str, Float32]]:
        """Random and real inputs, of the step graphs rows of all presets."""
        for case in self._cases.of(graph):
            yield {name: tensor.numpy() for name, tensor in self.parts[graph].select(case).items()}

    def graph(self, name: str, inputs: Mapping[str, Float32]) -> Mapping[str, Float32]:
        part = self.parts[name]
        return run_module(part.module, {key: _tensor(inputs[key]) for key in part.inputs}, part.outputs)

    def run(self, images: Float32, preset: Preset, seed: int) -> PresetRun:
        found = []
        with torch.no_grad():
            for start in range(0, len(images), CHUNK):
                chunk = _tensor(images[start : start + CHUNK])
                given = masks_of_caller(preset, images[start : start + CHUNK])
                mask = None if given is None else _tensor(given)
                noise = SeededNoise(seed)
                found.append(self.reference.run_preset(chunk, preset, noise, first_image=start, mask=mask))
        masks = [f.mask.numpy() for f in found if f.mask is not None]
        return PresetRun(
            np.concatenate([f.purified.numpy() for f in found]),
            np.concatenate([f.logits.numpy() for f in found]),
            np.concatenate(masks) if masks else None,
            tuple(plan for f in found for plan in f.plans),
            {name: np.concatenate([f.task[name].numpy() for f in found]) for name in found[0].task},
        )

    def frames(self, frames: Float32, preset: Preset, seed: int) -> FrameRun:
        with torch_purifier(self._bundle, self.parts, CHUNK) as purifier:
            return EngineExecutor(purifier).frames(frames, preset, seed)

    def trajectory(
        self, images: Float32, plans: Sequence[Plan], masks: Float32 | None, seed: int, rows: Sequence[int]
    ) -> Trajectory:
        chunk, mask = _tensor(images), None if masks is None else _tensor(masks)
        keep = StateKeeper(rows)
        with torch.no_grad():
            noise = SourceNoise(SeededNoise(seed), plans, chunk, mask=mask)
            purified = self.reference.purify(chunk, plans, noise, mask, on_row=keep)
        return Trajectory(tuple(rows), keep.states(), purified.numpy())


@contextmanager
def torch_executor(
    bundle: Bundle,
    unet: nn.Module,
    classifier: nn.Module | None = None,
    backbone: nn.Module | None = None,
    task: Task | None = None,
) -> Iterator[TorchExecutor]:
    """The networks that a bundle was exported from, in eval mode, with the bundle's mask blocks tapped.

    Raises:
        ExportError: classifier or backbone do not have these blocks.
    """
    manifest = bundle.manifest
    size = (manifest.image.height, manifest.image.width)
    answered = manifest.task_image
    module = None if task is None else TaskModule(task, (answered.height, answered.width))
    tapped = classifier or backbone or (None if task is None else task.network)
    schedule, attention = manifest.schedule.build(), manifest.attention
    mask: MaskModule | None = None
    with evaluating(unet, *(network for network in (classifier, backbone, module) if network is not None)):
        if attention is not None and tapped is not None:
            taps = named_taps(tapped, attention.blocks)
            mask = MaskModule(tapped, taps, size, norm_p=attention.norm_p, input=attention.input)
        try:
            reference = TorchReference(
                unet, schedule=schedule, classifier=classifier, mask_module=mask, checkpointing=False,
                task=module, names=() if module is None else module.names, framed=manifest.framed,
            )  # fmt: skip
            multiple, other = None, None
            if manifest.any_size is not None:
                multiple, other = manifest.any_size.multiple, manifest.any_size.checked[1]
            parts: dict[str, Part] = {
                part.name: part
                for part in bundle_parts(classifier, unet, mask, manifest.learned_variance, module, multiple)
                if part.name in manifest.graphs
            }
            cases = Cases(manifest.image, schedule, manifest.presets, other_size=other, frames=answered)
            yield TorchExecutor(bundle, reference, parts, cases)
        finally:
            if mask is not None:
                mask.close()


def _tensor(array: Float32) -> torch.Tensor:
    return torch.tensor(array)  # a copy: recorded arrays are read-only

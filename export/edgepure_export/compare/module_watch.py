"""What every layer of a PyTorch module reads and gives in one forward pass."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..graphs.to_onnx import evaluating


@dataclass(frozen=True)
class LayerCall:
    """The one call of a layer: its first input (None if that is no tensor) and its output."""

    input: NDArray[np.float32] | None
    output: NDArray[np.float32]


@dataclass
class _Seen:
    """Copies of the values (a later layer may change them in place), and the tensors themselves, to know them again."""

    input: Tensor | None
    output: Tensor
    given: Any
    made: Tensor


def watch_module(
    module: nn.Module, inputs: Sequence[NDArray[np.float32]], known: Collection[str]
) -> dict[str, LayerCall]:
    """Run the module once.

    Args:
        module: called with the inputs as float32 tensors, in eval mode.
        inputs: its arguments.
        known: names of the modules that the graph has nodes of. A batch norm without any was folded into the
            convolution whose output it reads, which then gives what the batch norm does.

    Returns:
        By name, in the order in which they finish: every submodule without children that was called once and gives one
        tensor.
    """
    calls: dict[str, list[_Seen]] = {}
    names = {child: name for name, child in module.named_modules() if name and not any(True for _ in child.children())}

    def before(child: nn.Module, given: tuple[Any, ...]) -> None:
        value = given[0] if given and isinstance(given[0], Tensor) else None
        kept = None if value is None else value.detach().clone()
        calls.setdefault(names[child], []).append(_Seen(kept, torch.empty(0), value, torch.empty(0)))

    def after(child: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            seen = calls[names[child]][-1]
            seen.output, seen.made = output.detach().clone(), output

    handles = [child.register_forward_pre_hook(before) for child in names]
    handles += [child.register_forward_hook(after) for child in names]
    try:
        with evaluating(module):
            module(*(torch.tensor(array) for array in inputs))
    finally:
        for handle in handles:
            handle.remove()
    once = {name: seen[0] for name, seen in calls.items() if len(seen) == 1 and seen[0].output.numel()}
    folded = {
        id(once[name].given): once[name].output
        for child, name in names.items()
        if isinstance(child, _BatchNorm) and name in once and name not in known
    }
    return {
        name: LayerCall(
            None if seen.input is None else seen.input.numpy(), folded.get(id(seen.made), seen.output).numpy()
        )
        for name, seen in once.items()
    }

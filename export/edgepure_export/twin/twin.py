"""The differentiable twin of a bundle: its own ONNX graphs, executed by PyTorch.

No source code of the models is needed, and what is attacked is what is deployed: the fused rows of the `step` graph and
the masks of the `mask` graph, in the precision that is deployed.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from edgepure.bundle.bundle import Bundle
from edgepure.errors import ConfigError

from ..graphs.mask_cut import MaskGradient, cut_map
from .onnx_module import OnnxModule, SharedWeights
from .reference import TorchReference


def load_twin(
    bundle: Bundle | str | PathLike[str],
    *,
    precision: str = "fp32",
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    checkpointing: bool = True,
    temperature: float = 0.05,
) -> TorchReference:
    """A `TorchReference` that computes with the graphs of a bundle.

    Weights are shared between the graphs, as they are in the bundle's file. With ``precision`` int8 or fp8 the gradient
    of rounding is that of the identity (straight-through), and 0 where a value saturates.

    Args:
        bundle: opened, or its directory.
        precision: ``fp32`` or a variant of the bundle, as in `edgepure.load`.
        device: where the networks live; images and noise must be there too.
        dtype: float32, or float64 for gradient checks, in which nothing is rounded to fewer bits but by Q/DQ.
        checkpointing: compute each row again in the backward pass, see `TorchReference`.
        temperature: of the surrogate of the mask, see `edgepure_export.graphs.mask_cut.cut_map`.

    Raises:
        BundleError: the bundle is damaged, has no such variant, or has operators that the twin does not know.
        ConfigError: another dtype.
    """
    if dtype not in (torch.float32, torch.float64):
        raise ConfigError(
            f"dtype {dtype} of the twin is not possible; choose torch.float32 or torch.float64", code="E-twin-dtype"
        )
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    shared: SharedWeights = {}
    graphs = {
        name: OnnxModule.load(opened.graph_path(name, precision), shared)
        for name in opened.manifest.graphs
        if name not in ("unet", "step_any")  # the rows have the one inside, and the other is `step` of any size
    }
    reference = TorchReference(
        step=GraphStep(graphs["step"]),
        learned_step=GraphStep(graphs["step_learned"]) if "step_learned" in graphs else None,
        schedule=opened.manifest.schedule.build(),
        classifier=graphs.get("classifier"),
        task=graphs.get("task"),
        names=() if "task" not in graphs else graphs["task"].output_names,
        mask_module=GraphMask(graphs["mask"], temperature) if "mask" in graphs else None,
        image_shape=opened.manifest.image.shape,
        framed=opened.manifest.framed,
        checkpointing=checkpointing,
    )
    for network in reference.networks:
        # Without a change of type: the weights of an fp16 graph stay what they are.
        network.to(device) if dtype == torch.float32 else network.to(device, dtype)
    return reference


class GraphStep(nn.Module):
    """A step graph, called as `StepModule` or `LearnedStepModule`: inputs in the order of ``ARGUMENTS``."""

    ARGUMENTS = ("x", "ref", "noise", "mask", "coeffs", "noise_out")

    def __init__(self, graph: OnnxModule) -> None:
        super().__init__()
        self.graph = graph
        self._order = [self.ARGUMENTS.index(name) for name in graph.input_names]

    def forward(self, *inputs: Tensor) -> Tensor:
        """x, ref, noise [B, C, H, W]; mask [B, 1, H, W]; coeffs [B, K]; noise_out as noise -> x' [B, C, H, W]."""
        after: Tensor = self.graph(*(inputs[i] for i in self._order))
        return after


class GraphMask(nn.Module):
    """A mask graph, called as `MaskModule`.

    The graph's mask has no gradient. The surrogate is computed from the graph's attention map, which has one.
    """

    def __init__(self, graph: OnnxModule, temperature: float = 0.05) -> None:
        super().__init__()
        self.graph = graph
        self.temperature = temperature

    def forward(
        self, image: Tensor, threshold: Tensor, area: Tensor, rule: Tensor, gradient: MaskGradient = "none"
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """image [B, C, H, W] in [0, 1]; threshold, area, rule [B] -> logits [B, N] (None of a backbone), mask and
        attention [B, 1, H, W]."""
        given = {"image": image, "threshold": threshold, "area": area, "rule": rule}
        values: Any = self.graph(*(given[name] for name in self.graph.input_names))
        outputs = dict(zip(self.graph.output_names, values, strict=True))
        mask, attention = outputs["mask"], outputs["attention"]
        if gradient != "none":
            threshold, area, rule = (v.reshape(-1, 1, 1, 1) for v in (threshold, area, rule))
            # The softmax rule orders pixels by the logarithm; attention that underflowed is at the end of the order.
            logarithm = attention.clamp_min(torch.finfo(attention.dtype).tiny).log()
            score = torch.where(rule > 0.5, logarithm, attention)
            soft = cut_map(attention, score, threshold, area, rule, "soft", self.temperature)
            mask = soft if gradient == "soft" else mask + (soft - soft.detach())
        return outputs.get("logits"), mask, attention

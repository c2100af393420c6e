"""Graphs of cases, exported as the networks of a bundle are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgepure_export.graphs.to_onnx import Graph, check_file, export_graph

from .common import CHANNELS, HEIGHT, WIDTH, Case


class Side(nn.Module):
    """Cases beside each other, one output each."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__()
        self.cases = list(cases)
        self.layers = nn.ModuleList([case for case in cases if isinstance(case, nn.Module)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(case(x) for case in self.cases)


def image(batch: int) -> Tensor:
    """Normal numbers, ``[B, 4, 9, 11]``."""
    return torch.randn((batch, CHANNELS, HEIGHT, WIDTH), generator=torch.Generator().manual_seed(5))


def made(cases: Sequence[Case], path: Path) -> tuple[Graph, list[Tensor]]:
    """Write their graph; also what PyTorch gives for ``image(3)``."""
    module = Side(cases).eval()
    with torch.no_grad():
        wanted = list(module(image(3)))
    graph = export_graph("cases", module, {"x": image(2)}, [f"y{n}" for n in range(len(cases))])
    ir.save(graph.model, path)
    check_file(path)
    return graph, wanted

"""Export a small module with the plain PyTorch exporter and compare ONNX Runtime with PyTorch at other batch sizes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import Tensor, nn


def export(module: nn.Module, inputs: Sequence[Tensor], file: Path) -> onnx.ModelProto:
    """Opset 20, dynamic batch; returns the model after asserting that every output kept its batch axis."""
    assert all(x.shape[0] == 2 for x in inputs), "a batch of one would be exported as a constant"
    batch = torch.export.Dim("batch", min=1, max=64)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs),
            file,
            dynamo=True,
            opset_version=20,
            external_data=False,
            verbose=False,
            dynamic_shapes=tuple({0: batch} for _ in inputs),
        )
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param, f"{value.name} lost its dynamic batch"
    return model


def deviation(module: nn.Module, inputs: Sequence[Tensor], file: Path, batches: Sequence[int] = (1, 3)) -> float:
    """Largest difference of ONNX Runtime to PyTorch, on batches that the export did not see."""
    export(module, [x[:2] for x in inputs], file)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    for n in batches:
        some = [x[torch.arange(n) % x.shape[0]] for x in inputs]
        with torch.no_grad():
            expected = module(*some)
        expected = [expected] if isinstance(expected, Tensor) else expected
        feeds = {arg.name: x.numpy() for arg, x in zip(session.get_inputs(), some, strict=True)}
        for got, wanted in zip(session.run(None, feeds), expected, strict=True):
            assert got.shape == tuple(wanted.shape)
            worst = max(worst, float(np.abs(got - wanted.numpy()).max()))
    return worst

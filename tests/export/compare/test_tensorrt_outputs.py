"""Engines with marked tensors are built by TensorRT for RTX, which needs no GPU for that. Running one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_process import environment
from codes import raises_code

from edgepure_export.compare.onnx_probe import OnnxProbe
from edgepure_export.compare.tensorrt_outputs import tensorrt_outputs

pytest.importorskip("polygraphy", reason="needs polygraphy (pip install edgepure[tensorrt])")
pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (pip install edgepure[rtx])")

#: In a process of its own: which TensorRT Polygraphy means is decided once, at its import.
BUILD = """
import sys
from pathlib import Path
import numpy as np, tensorrt_rtx as trt
from edgepure_export.compare import tensorrt_outputs
feeds = {"x": np.zeros((2, 3, 8, 8), np.float32), "t": np.zeros(2, np.float32)}
polygraphy = tensorrt_outputs._import("tensorrt-rtx")
marked = tensorrt_outputs._marked(polygraphy, Path(sys.argv[1]), sys.argv[2:], feeds)
print("bytes", len(bytes(polygraphy.EngineBytesFromNetwork(*marked)())))  # needs no GPU
"""


def test_every_float_tensor_of_a_graph_can_be_marked(tiny_bundle: Path) -> None:
    tensors = [node.output for node in OnnxProbe(tiny_bundle / "unet.onnx", threads=1).nodes]
    chosen = tensors[:: max(1, len(tensors) // 10)]
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tiny_bundle / "unet.onnx"), *chosen],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.rsplit("bytes ", 1)[1]) > 1000


def test_another_provider_is_refused() -> None:
    with raises_code("E-provider-tensorrt"):
        tensorrt_outputs(Path("unet.onnx"), ["y"], {"x": np.zeros(2, np.float32)}, "cpu")

"""The tiny bundle with a task in place of its classifier: hand-written graphs that NumPy can repeat, no PyTorch.

A segmenter (of frames, too) tells dark pixels from bright ones; a detector has a candidate for the left half and one
for the right; an embedding is the mean of each of 4 x 4 cells.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from headless_bundle import make_headless_bundle
from onnx import TensorProto, helper
from tiny_bundle import GAIN, IMAGE, _Graph, blur, images, rehash

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import GraphEntry, TensorEntry, graph_signature
from edgepure.bundle.task import TASK_OUTPUTS, TaskEntry, TaskKind
from edgepure.files.atomic import write_npz
from edgepure.files.npz import read_all

HALVES = np.array([[0, 0, 8, 16], [8, 0, 16, 16]], np.float32)
SHAPES: dict[str, tuple[int, ...]] = {"boxes": (2, 4), "scores": (2, 2), "vector": (16,)}


def frames(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth gray frames ``[count, 1, height, width]`` in [0, 1]: dark on the left, bright on the right."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0.1, 0.7, size[1], dtype=np.float32)
    return np.clip(ramp + 0.3 * blur(rng.random((count, 1, *size), dtype=np.float32)), 0.0, 1.0).astype(np.float32)


def task_outputs(kind: str, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the graph gives for ``[B, 1, 16, 16]``, by NumPy."""
    if kind == "segmentation":
        return {"logits": np.concatenate([-GAIN * (image - 0.5), GAIN * (image - 0.5)], 1).astype(np.float32)}
    if kind == "embedding":
        return {"vector": image.reshape(-1, 4, 4, 4, 4).mean((2, 4)).reshape(-1, 16)}
    means = np.stack([image[..., :8].mean((1, 2, 3)), image[..., 8:].mean((1, 2, 3))], 1)
    return {"boxes": np.repeat(HALVES[None], len(image), 0), "scores": np.stack([1.0 - means, means], 2)}


def _shape(name: str, size: tuple[int, int]) -> tuple[int, ...]:
    return (2, *size) if name == "logits" else SHAPES[name]


def _model(kind: TaskKind, size: tuple[int, int]) -> onnx.ModelProto:
    g = _Graph()
    if kind == "segmentation":
        bright = g("Mul", g("Sub", "image", g.constant(0.5)), g.constant(GAIN))
        g("Concat", g("Neg", bright), bright, axis=1, out="logits")
    elif kind == "embedding":
        g("Flatten", g("AveragePool", "image", kernel_shape=[4, 4], strides=[4, 4]), out="vector")
    else:
        half = g("AveragePool", "image", kernel_shape=[16, 8], strides=[16, 8])  # [B, 1, 1, 2]
        means = g("Reshape", half, g.constant([-1, 2, 1], np.int64))
        g("Concat", g("Sub", g.constant(1.0), means), means, axis=2, out="scores")
        g("Add", g("Mul", means, g.constant(0.0)), g.constant(HALVES), out="boxes")
    values = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, *size])]
    found = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *_shape(n, size)]) for n in TASK_OUTPUTS[kind]
    ]
    body = helper.make_graph(g.nodes, "task", values, found, g.constants)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def make_task_bundle(folder: Path, kind: TaskKind, frame: tuple[int, int] | None = None) -> Path:
    """Write the bundle into a new folder. ``frame``: height and width of what its segmenter takes."""
    size = frame or (16, 16)
    seen = images(2) if frame is None else frames(2, frame)
    make_headless_bundle(folder)
    manifest = Bundle.open(folder).manifest
    (folder / "task.onnx").write_bytes(_model(kind, size).SerializeToString(deterministic=True))
    arrays: dict[str, Any] = read_all(folder / "selftest.npz")
    arrays["task/in/image"] = seen
    arrays |= {f"task/out/{name}": value for name, value in task_outputs(kind, seen).items()}
    for key in [key for key in arrays if key.endswith("/purified") and frame is None]:
        outputs = task_outputs(kind, arrays[key])
        arrays |= {key.replace("purified", f"task/{name}"): value for name, value in outputs.items()}
    write_npz(folder / "selftest.npz", arrays)
    outputs_ = tuple(TensorEntry(name=name, shape=("batch", *_shape(name, size))) for name in TASK_OUTPUTS[kind])
    inputs, _ = graph_signature("task", IMAGE.model_copy(update={"height": size[0], "width": size[1]}), 0)
    graph = GraphEntry(file="task.onnx", opset=20, inputs=inputs, outputs=outputs_)
    classes = () if kind == "embedding" else ("dark", "bright")
    rehash(
        folder,
        classes=(),
        graphs={**manifest.graphs, "task": graph},
        presets=manifest.presets,
        task=TaskEntry(kind=kind, classes=classes, frame=frame),
    )
    return folder

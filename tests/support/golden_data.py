"""Reading golden vectors, and the tiny networks that they were made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from goldens_path import goldens_dir
from numpy.typing import NDArray

from edgepure.rows.plan import Draw

__all__ = [
    "Recorded",
    "by_source",
    "files",
    "goldens_dir",
    "initializers",
    "load",
    "meta",
    "numpy_epsilon",
    "onnx_epsilon",
    "to_model_range",
    "torch_epsilon",
]

Array = NDArray[Any]
Float32 = NDArray[np.float32]


def files(folder: str, pattern: str, root: Path | None = None) -> list[Path]:
    """The files of one golden section whose name matches; an empty list is a mistake, never a pass."""
    found = sorted((root or goldens_dir()).joinpath(folder).glob(pattern))
    assert found, f"no golden {folder}/{pattern} in {root or goldens_dir()}"
    return found


def load(path: Path) -> dict[str, Array]:
    """All arrays of one npz file; scalars stay 0-d arrays."""
    with np.load(path, allow_pickle=False) as data:
        return {name: data[name] for name in data.files}


def meta(folder: str, root: Path | None = None) -> dict[str, Any]:
    """The section's meta.json."""
    result: dict[str, Any] = json.loads((root or goldens_dir()).joinpath(folder, "meta.json").read_text())
    return result


def to_model_range(x01: Array) -> Float32:
    """[0, 1] to [-1, 1]."""
    return np.asarray(2.0 * x01 - 1.0, dtype=np.float32)


class Recorded:
    """Recorded noises, found by (source, index); remembers which were used.

    ``noises[source]`` lists ``(level, array [B, C, H, W])`` in the order of the method's draws; a level of None is not
    checked against that of the draw.
    """

    def __init__(self, noises: Mapping[str, Sequence[tuple[float | None, Array]]]) -> None:
        self.noises = noises
        self.used: set[tuple[str, int]] = set()

    def __call__(self, draw: Draw, image: int) -> Float32:
        level, array = self.noises[draw.source][draw.index]
        assert level is None or draw.level == level, f"{draw} belongs to the recorded level {level}"
        self.used.add((draw.source, draw.index))
        return np.asarray(array[image], dtype=np.float32)

    def unused(self) -> list[tuple[str, int]]:
        """Recorded noises that no row asked for."""
        every = {(source, index) for source, arrays in self.noises.items() for index in range(len(arrays))}
        return sorted(every - self.used)


def by_source(
    names: Sequence[str], noise: Array, find: Callable[[str], tuple[str, float | None] | None]
) -> dict[str, list[tuple[float | None, Array]]]:
    """Sort recorded noises by our sources. ``find(name)`` gives (source, level); None: never added."""
    result: dict[str, list[tuple[float | None, Array]]] = {}
    for name, array in zip(names, noise, strict=True):
        found = find(str(name))
        if found is not None:
            result.setdefault(found[0], []).append((found[1], array))
    return result


def onnx_epsilon(path: Path) -> Callable[[Float32, Float32], Float32]:
    """A tiny network as an epsilon function, run by ONNX Runtime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def epsilon(x: Float32, t: Float32) -> Float32:
        result: Float32 = session.run(["eps"], {"x": np.ascontiguousarray(x), "t": np.ascontiguousarray(t)})[0]
        return result

    return epsilon


def initializers(path: Path) -> dict[str, Array]:
    """Weights of a tiny network: freqs, wt, bt, w1, b1, w2, b2."""
    import onnx
    from onnx import numpy_helper

    weights = ("freqs", "wt", "bt", "w1", "b1", "w2", "b2")  # the others are constants of the formula
    graph = onnx.load(str(path)).graph
    return {i.name: numpy_helper.to_array(i) for i in graph.initializer if i.name in weights}


def numpy_epsilon(path: Path) -> Callable[[Array, Array], Array]:
    """A tiny network in float64 NumPy, by the formula of the goldens' README (section 0)."""
    w = {name: array.astype(np.float64) for name, array in initializers(path).items()}

    def conv(x: Array, kernel: Array, bias: Array) -> Array:
        height, width = x.shape[2:]
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        out = np.zeros((len(x), len(kernel), height, width))
        for i in range(3):
            for j in range(3):
                window = padded[:, :, i : i + height, j : j + width]
                out += np.einsum("bchw,oc->bohw", window, kernel[:, :, i, j])
        return out + bias[None, :, None, None]

    def epsilon(x: Array, t: Array) -> Array:
        x, t = np.asarray(x, dtype=np.float64), np.asarray(t, dtype=np.float64)
        angle = t[:, None] * w["freqs"].reshape(1, -1)
        g = np.concatenate([np.sin(angle), np.cos(angle)], axis=1) @ w["wt"] + w["bt"]
        h = conv(x, w["w1"], w["b1"]) + g[:, :, None, None]
        o = conv(h / (1.0 + np.exp(-h)), w["w2"], w["b2"])
        s = np.sqrt(1.0 - np.exp(-(1e-4 * (t + 1.0) + 9.95e-6 * (t + 1.0) ** 2)))[:, None, None, None]
        channels = x.shape[1]
        eps = s * x + 0.3 * o[:, :channels]
        return eps if o.shape[1] == channels else np.concatenate([eps, np.tanh(0.5 * o[:, channels:])], axis=1)

    return epsilon


def torch_epsilon(path: Path) -> Any:
    """A tiny network as a differentiable ``torch.nn.Module`` with ``forward(x, t)``."""
    import torch

    class TinyEpsilon(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, array in initializers(path).items():
                self.register_buffer(name, torch.from_numpy(array.copy()))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            angle = t[:, None] * self.freqs.reshape(1, -1)
            g = torch.cat([torch.sin(angle), torch.cos(angle)], dim=1) @ self.wt + self.bt
            h = torch.nn.functional.conv2d(x, self.w1, self.b1, padding=1) + g[:, :, None, None]
            o = torch.nn.functional.conv2d(h * torch.sigmoid(h), self.w2, self.b2, padding=1)
            s = torch.sqrt(1.0 - torch.exp(-(1e-4 * (t + 1.0) + 9.95e-6 * (t + 1.0) ** 2)))[:, None, None, None]
            channels = x.shape[1]
            eps = s * x + 0.3 * o[:, :channels]
            if o.shape[1] == channels:
                return eps
            return torch.cat([eps, torch.tanh(0.5 * o[:, channels:])], dim=1)

    return TinyEpsilon().eval()

"""The smallest directory that is a valid bundle: real ONNX graphs of the right signatures that compute nothing useful.

For tests of the format. The purification itself is tested on real networks elsewhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from edgepure.bundle.bundle import hash_files, write_manifest
from edgepure.bundle.calibration import Calibration
from edgepure.bundle.entries import GraphEntry, GraphName, TensorEntry, graph_signature
from edgepure.bundle.manifest import Manifest
from edgepure.files.atomic import write_npz
from edgepure.images.spec import ImageSpec

IMAGE = ImageSpec(channels=1, height=4, width=5)
CLASSES = ("zero", "one", "two")
GRAPHS: tuple[GraphName, ...] = ("classifier", "mask", "step", "unet")
#: Bytes of each graph's tensor in weights.bin.
TENSOR_BYTES = 64


def value_info(entry: TensorEntry) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(entry.name, TensorProto.FLOAT, list(entry.shape))


def external_tensor(location: str, name: str = "weight", **more: str) -> onnx.TensorProto:
    """A float tensor of 16 values whose data is said to lie in ``location``."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[TENSOR_BYTES // 4])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0", "length": str(TENSOR_BYTES), **more}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def graph_model(graph: GraphName, location: str = "weights.bin") -> onnx.ModelProto:
    """Every output is zeros of its shape plus the sum of one external tensor; every input is read."""
    inputs, outputs = graph_signature(graph, IMAGE, len(CLASSES))
    nodes = [
        helper.make_node("Shape", [inputs[0].name], ["size"], start=0, end=1),
        helper.make_node("ReduceSum", ["weight"], ["bias"], keepdims=0),
    ]
    initializers = [external_tensor(location)]
    for out in outputs:
        fixed = [n for n in out.shape if isinstance(n, int)]
        initializers.append(helper.make_tensor(f"{out.name}_dims", TensorProto.INT64, [len(fixed)], fixed))
        nodes += [
            helper.make_node("Concat", ["size", f"{out.name}_dims"], [f"{out.name}_shape"], axis=0),
            helper.make_node("Expand", ["bias", f"{out.name}_shape"], [out.name]),
        ]
    body = helper.make_graph(
        nodes, graph, [value_info(i) for i in inputs], [value_info(o) for o in outputs], initializers
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def manifest_data(files: dict[str, Any] | None = None) -> dict[str, Any]:
    """Plain data of a valid manifest."""
    graphs = {}
    for graph in GRAPHS:
        inputs, outputs = graph_signature(graph, IMAGE, len(CLASSES))
        graphs[graph] = GraphEntry(file=f"{graph}.onnx", opset=20, inputs=inputs, outputs=outputs).model_dump(
            mode="json"
        )
    listed = [f"{g}.onnx" for g in GRAPHS] + ["selftest.npz", "weights.bin"]
    return {
        "schema_version": 1,
        "name": "minimal",
        "image": IMAGE.model_dump(),
        "classes": list(CLASSES),
        "schedule": {"kind": "linear", "timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
        "graphs": graphs,
        "attention": {"blocks": ["layer1", "layer2"], "norm_p": 2.0, "input": "own"},
        "learned_variance": False,
        "presets": {
            "uniform": {"method": {"method": "uniform", "t_star": 100}},
            "heterogeneous": {"method": {"method": "heterogeneous"}, "mask": {"area": 0.15}},
        },
        "default_preset": "heterogeneous",
        "provenance": {
            "created": "2026-03-01",
            "edgepure_version": "0.1.0",
            "torch_version": "2.8.0",
            "onnx_version": "1.19.0",
            "classifier": "nothing",
            "diffusion": "nothing",
            "parity": {"step": 1e-6},
        },
        "files": files or {name: {"sha256": "0" * 64, "bytes": 1} for name in listed},
    }


def calibration(**changes: Any) -> Calibration:
    """A small calibration with one probe and ten reference norms, 1 to 10."""
    norms = {"images": 10, "mean": 5.5, "std": 3.02765, "min": 1.0, "max": 10.0, "quantiles": {"0.5": 5.5}}
    probe = {"levels": [10.0]}
    data = {
        "created": "2026-03-02",
        "edgepure_version": "0.1.0",
        "seed": 0,
        "clean": {"sha256": "0" * 64, "images": 10},
        "probes": [{"probe": probe, "clean": norms, "sample": [float(n) for n in range(1, 11)]}],
        "chosen": probe,
        "reason": "the only one",
        "linear": {"xi_min": 1.0, "xi_max": 10.0},
        "sigmoid": {"mu": 5.5, "tau": 3.02765},
    }
    return Calibration.model_validate({**data, **changes})


def selftest_arrays(batch: int = 2) -> dict[str, np.ndarray]:
    """Arrays with every key that the manifest asks for; the values mean nothing."""
    generator = np.random.default_rng(7)

    def draw(shape: tuple[int | str, ...]) -> np.ndarray:
        return generator.random([batch if n == "batch" else int(n) for n in shape], dtype=np.float32)

    arrays: dict[str, np.ndarray] = {}
    for graph in GRAPHS:
        inputs, outputs = graph_signature(graph, IMAGE, len(CLASSES))
        arrays |= {f"{graph}/in/{t.name}": draw(t.shape) for t in inputs}
        arrays |= {f"{graph}/out/{t.name}": draw(t.shape) for t in outputs}
    for preset in ("uniform", "heterogeneous"):
        prefix = f"pipeline/{preset}/"
        arrays[prefix + "image"] = draw(("batch", *IMAGE.shape))
        arrays[prefix + "purified"] = draw(("batch", *IMAGE.shape))
        arrays[prefix + "logits"] = draw(("batch", len(CLASSES)))
        arrays[prefix + "seed"] = np.array(11, dtype=np.int64)
    arrays["pipeline/heterogeneous/mask"] = np.round(draw(("batch", 1, *IMAGE.shape[1:])))
    return arrays


def make_bundle(folder: Path) -> Path:
    """Write the bundle into a new folder."""
    folder.mkdir()
    for graph in GRAPHS:
        (folder / f"{graph}.onnx").write_bytes(graph_model(graph).SerializeToString())
    (folder / "weights.bin").write_bytes(np.arange(TENSOR_BYTES // 4, dtype=np.float32).tobytes())
    write_npz(folder / "selftest.npz", selftest_arrays())
    rehash(folder)
    return folder


def rehash(folder: Path, **changes: Any) -> None:
    """Write a manifest with the hashes of the files as they are now, as one who means harm could."""
    files = {name: entry.model_dump() for name, entry in hash_files(folder).items()}
    write_manifest(folder, Manifest.from_data(manifest_data(files) | changes))

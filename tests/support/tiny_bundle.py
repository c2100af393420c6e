"""A small bundle that really purifies: hand-written ONNX graphs around an epsilon function that NumPy can repeat.

Images are gray, 16 x 16. The classifier tells dark from bright by the mean, the mask attends to what is bright after
min-max scaling, and epsilon is a 3 x 3 blur of z times a factor of t, plus a fixed map. The self-test vectors come from
NumPy alone (`NumpyStepper`), so the bundle is a second opinion on the engine and not its echo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from numpy_stepper import NumpyStepper
from onnx import TensorProto, helper

from edgepure.bundle.bundle import hash_files, write_manifest
from edgepure.bundle.entries import GraphEntry, GraphName, graph_signature
from edgepure.bundle.manifest import Manifest
from edgepure.files.atomic import write_npz
from edgepure.images.spec import ImageSpec
from edgepure.methods.planner import Planner
from edgepure.methods.presets import MaskSpec, Preset
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.execute import execute_row
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import COLUMNS

Float32 = NDArray[np.float32]

IMAGE = ImageSpec(channels=1, height=16, width=16)
CLASSES = ("dark", "bright")
GRAPHS: tuple[GraphName, ...] = ("classifier", "mask", "step", "unet")
#: Logits are +-GAIN * (mean - 0.5).
GAIN = 20.0
BLUR = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]], np.float32) / 16.0
FIXED_MAP = np.random.default_rng(3).standard_normal((1, 1, 16, 16)).astype(np.float32)
SEED = 11
#: The preset whose states after every row are recorded.
TRAJECTORY = "heterogeneous"

UNIFORM = {"method": {"method": "uniform", "t_star": 40, "steps": 4, "sampler": "ddim"}}
PRESETS: dict[str, dict[str, Any]] = {
    "uniform": {**UNIFORM, "description": "four DDIM steps from t = 40"},
    "heterogeneous": {
        "method": {"method": "heterogeneous", "t_l": 60, "t_s": 30, "stage1_steps": 2, "stage2_steps": 2, "U": 3},
        "mask": {"threshold": 0.5},
    },
    "voted": {**UNIFORM, "votes": {"count": 3, "rule": "majority"}},
    "adaptive": {
        **UNIFORM,
        "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "probe": {"probes": 2, "label": "index"}},
    },
}


# ---- what the graphs compute, in NumPy -------------------------------------------------------------------------------


def blur(x: Float32) -> Float32:
    """3 x 3 convolution with `BLUR`, zeros outside."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    windows = [BLUR[i, j] * padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.sum(windows, axis=0, dtype=np.float32)


def epsilon(z: Float32, t: Float32) -> Float32:
    """``z [B, 1, 16, 16], t [B] -> [B, 1, 16, 16]``."""
    factor = (0.1 + 0.002 * t)[:, None, None, None].astype(np.float32)
    return np.asarray(factor * blur(z) + np.float32(0.05) * FIXED_MAP, np.float32)


def logits(image: Float32) -> Float32:
    """``[B, 1, 16, 16] -> [B, 2]``."""
    mean = image.mean(axis=(1, 2, 3)) - np.float32(0.5)
    return np.stack([-GAIN * mean, GAIN * mean], axis=1).astype(np.float32)


def attention(image: Float32, threshold: float) -> tuple[Float32, Float32]:
    """Mask and attention map, both ``[B, 1, 16, 16]``."""
    low, high = image.min(axis=(2, 3), keepdims=True), image.max(axis=(2, 3), keepdims=True)
    scaled = ((image - low) / (high - low + np.float32(1e-6))).astype(np.float32)
    return (scaled >= np.float32(threshold)).astype(np.float32), scaled


# ---- the graphs ------------------------------------------------------------------------------------------------------


class _Graph:
    """Writes nodes with automatic names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def fixed_map(self) -> str:
        """The one tensor that lives in weights.bin."""
        tensor = TensorProto(name="fixed_map", data_type=TensorProto.FLOAT, dims=FIXED_MAP.shape)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "weights.bin", "offset": "0", "length": str(FIXED_MAP.nbytes)}.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        self.constants.append(tensor)
        return "fixed_map"

    def model(self, graph: GraphName) -> onnx.ModelProto:
        inputs, outputs = (
            [helper.make_tensor_value_info(e.name, TensorProto.FLOAT, list(e.shape)) for e in side]
            for side in graph_signature(graph, IMAGE, len(CLASSES))
        )
        body = helper.make_graph(self.nodes, graph, inputs, outputs, self.constants)
        return helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _per_image(g: _Graph, vector: str) -> str:
    """``[B] -> [B, 1, 1, 1]``."""
    return g("Reshape", vector, g.constant([-1, 1, 1, 1], np.int64))


def _epsilon_nodes(g: _Graph, z: str, t: str, out: str | None = None) -> str:
    factor = g("Add", g("Mul", _per_image(g, t), g.constant(0.002)), g.constant(0.1))
    blurred = g("Conv", z, g.constant(BLUR[None, None]), pads=[1, 1, 1, 1])
    return g("Add", g("Mul", factor, blurred), g("Mul", g.fixed_map(), g.constant(0.05)), out=out)


def _logit_nodes(g: _Graph) -> None:
    mean = g("Flatten", g("GlobalAveragePool", "image"))
    g("MatMul", g("Sub", mean, g.constant(0.5)), g.constant([[-GAIN, GAIN]]), out="logits")


def classifier_model() -> onnx.ModelProto:
    g = _Graph()
    _logit_nodes(g)
    return g.model("classifier")


def mask_model() -> onnx.ModelProto:
    g = _Graph()
    _logit_nodes(g)
    axes = g.constant([2, 3], np.int64)
    low, high = g("ReduceMin", "image", axes), g("ReduceMax", "image", axes)
    span = g("Add", g("Sub", high, low), g.constant(1e-6))
    g("Div", g("Sub", "image", low), span, out="attention")
    # enough of the contract for tests: an area counts as the threshold 1 - area, and both rules compare alike
    level = g("Where", g("Greater", "area", g.constant(0.0)), g("Sub", g.constant(1.0), "area"), "threshold")
    unused = g("Mul", "rule", g.constant(0.0))
    inside = g("GreaterOrEqual", "attention", _per_image(g, g("Add", level, unused)))
    g("Cast", inside, out="mask", to=TensorProto.FLOAT)
    return g.model("mask")


def unet_model() -> onnx.ModelProto:
    g = _Graph()
    _epsilon_nodes(g, "x", "t", out="epsilon")
    return g.model("unet")


def step_model() -> onnx.ModelProto:
    g = _Graph()
    flat = {n: g("Gather", "coeffs", g.constant(i, np.int64), axis=1) for i, n in enumerate(COLUMNS)}
    c = {name: _per_image(g, vector) for name, vector in flat.items()}

    def weighted(name: str, value: str) -> str:
        return g("Mul", g("Add", c[f"{name}_base"], g("Mul", c[f"{name}_mask"], "mask")), value)

    z = g("Sum", weighted("x", "x"), weighted("ref", "ref"), weighted("noise", "noise"))
    eps = _epsilon_nodes(g, z, flat["t"])
    x0 = g("Add", g("Mul", c["x0_z"], z), g("Mul", c["x0_eps"], eps))
    x0 = g("Min", g("Max", x0, c["x0_min"]), c["x0_max"])
    parts = {"out_x": "x", "out_z": z, "out_x0": x0, "out_eps": eps, "out_ref": "ref"}
    g("Sum", *(g("Mul", c[name], value) for name, value in parts.items()), out="x_next")
    return g.model("step")


# ---- the vectors and the folder --------------------------------------------------------------------------------------


def images(count: int, seed: int = 0) -> Float32:
    """Smooth gray images ``[count, 1, 16, 16]`` in [0, 1], dark and bright ones in turn."""
    rng = np.random.default_rng(seed)
    soft = blur(rng.random((count, 1, 16, 16), dtype=np.float32))
    level = np.where(np.arange(count) % 2 == 0, 0.05, 0.5).astype(np.float32)[:, None, None, None]
    return np.clip(level + 0.4 * soft, 0.0, 1.0).astype(np.float32)


def selftest_arrays() -> dict[str, Any]:
    """Inputs and expected outputs of every graph and of the presets whose plan does not depend on a score norm."""
    rng = np.random.default_rng(5)
    image = images(2)
    mask, heat = attention(image, 0.5)
    x, ref, noise = (rng.standard_normal((2, 1, 16, 16)).astype(np.float32) for _ in range(3))
    planner = Planner(Manifest.from_data(_manifest_data({})).schedule.build(), 256)
    rows = planner.plan(Preset.parse(PRESETS["heterogeneous"])).coeffs[:2]
    t = np.array([5.0, 300.0], np.float32)
    ones = np.ones(2, np.float32)
    arrays: dict[str, Any] = {
        "classifier/in/image": image,
        "classifier/out/logits": logits(image),
        "mask/in/image": image,
        "mask/in/threshold": 0.5 * ones,
        "mask/in/area": 0 * ones,
        "mask/in/rule": 0 * ones,
        "mask/out/logits": logits(image),
        "mask/out/mask": mask,
        "mask/out/attention": heat,
        "step/in/x": x,
        "step/in/ref": ref,
        "step/in/noise": noise,
        "step/in/mask": mask,
        "step/in/coeffs": rows,
        "step/out/x_next": execute_row(epsilon, x, ref, mask, noise, rows),
        "unet/in/x": x,
        "unet/in/t": t,
        "unet/out/epsilon": epsilon(x, t),
    }
    for name in ("uniform", "heterogeneous", "voted"):
        preset = Preset.parse(PRESETS[name])
        purified = reference_purification(image, preset, planner, SEED)
        prefix = f"pipeline/{name}/"
        arrays |= {prefix + "image": image, prefix + "seed": np.array(SEED, np.int64), prefix + "purified": purified}
        arrays[prefix + "logits"] = logits(purified)
        if preset.mask is not None:
            arrays[prefix + "mask"] = mask
    states = reference_states(image, Preset.parse(PRESETS[TRAJECTORY]), planner, SEED)
    arrays[f"pipeline/{TRAJECTORY}/rows"] = np.arange(states.shape[1])
    arrays[f"pipeline/{TRAJECTORY}/states"] = states
    return arrays


def reference_purification(image: Float32, preset: Preset, planner: Planner, seed: int) -> Float32:
    """The first vote of each image by NumPy: ``[B, 1, 16, 16]`` in [0, 1]."""
    return _reference(image, preset, planner, seed)[0]


def reference_states(image: Float32, preset: Preset, planner: Planner, seed: int) -> Float32:
    """The state after every row: ``[B, rows, 1, 16, 16]`` in model range."""
    return _reference(image, preset, planner, seed)[1]


def _reference(image: Float32, preset: Preset, planner: Planner, seed: int) -> tuple[Float32, Float32]:
    plan, found = planner.plan(preset), np.zeros_like(image)
    states = np.zeros((len(image), len(plan.rows), *IMAGE.shape), np.float32)
    source = SeededNoise(seed)

    def jobs() -> list[Job]:
        made = []
        for i, one in enumerate(image):
            mask = attention(one[None], _threshold(preset.mask))[0][0] if preset.mask is not None else None
            noise = source.for_image(plan, i, 0, mask, IMAGE.shape)
            made.append(Job(plan, noise, 2.0 * one - 1.0, mask, tag=i, watch=watch))
        return made

    def watch(job: Job, row: int, state: Float32) -> None:
        states[job.tag, row] = state

    def done(job: Job, x: Float32) -> None:
        found[job.tag] = np.clip(0.5 * x + 0.5, 0.0, 1.0)

    InFlight(NumpyStepper(epsilon, IMAGE.shape)).run(jobs(), done)
    return found, states


def _threshold(mask: MaskSpec) -> float:
    assert mask.threshold is not None
    return mask.threshold


def _manifest_data(files: dict[str, Any]) -> dict[str, Any]:
    graphs = {}
    for graph in GRAPHS:
        inputs, outputs = graph_signature(graph, IMAGE, len(CLASSES))
        graphs[graph] = GraphEntry(file=f"{graph}.onnx", opset=20, inputs=inputs, outputs=outputs)
    names = [*(f"{g}.onnx" for g in GRAPHS), "weights.bin", "selftest.npz"]
    return {
        "name": "tiny",
        "image": IMAGE,
        "classes": CLASSES,
        "schedule": {"kind": "linear"},
        "graphs": graphs,
        "attention": {"blocks": ["image"]},
        "learned_variance": False,
        "presets": {name: Preset.parse(data) for name, data in PRESETS.items()},
        "default_preset": "uniform",
        "provenance": {
            "created": "2026-03-01",
            "edgepure_version": "0.1.0",
            "torch_version": "none",
            "onnx_version": "1.19.0",
            "classifier": "mean brightness",
            "diffusion": "a blur",
            "parity": {"step": 1e-6},
        },
        "files": files or {name: {"sha256": "0" * 64, "bytes": 1} for name in names},
    }


def make_tiny_bundle(folder: Path) -> Path:
    """Write the bundle into a new folder."""
    folder.mkdir(parents=True)
    models = {"classifier": classifier_model(), "mask": mask_model(), "step": step_model(), "unet": unet_model()}
    for name, model in models.items():
        (folder / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (folder / "weights.bin").write_bytes(FIXED_MAP.tobytes())
    write_npz(folder / "selftest.npz", selftest_arrays())
    rehash(folder)
    return folder


def rehash(folder: Path, **changes: Any) -> None:
    """Write the manifest with the hashes of the files as they are now, and other keys changed."""
    files = {name: entry.model_dump() for name, entry in hash_files(folder).items()}
    write_manifest(folder, Manifest.from_data(_manifest_data(files) | changes))

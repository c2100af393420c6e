"""The tiny bundle without its classifier: a diffusion model, and a backbone whose brightness makes the mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny_bundle import IMAGE, PRESETS, make_tiny_bundle, mask_model, rehash, selftest_arrays

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.entries import graph_signature
from edgepure.files.atomic import write_npz
from edgepure.methods.presets import Preset

#: RePaint inside the caller's mask.
GIVEN: dict[str, Any] = {
    "method": {"method": "repaint", "respacing": "50", "t_T": 4, "jump_length": 2, "jump_n_sample": 2},
    "mask": {"source": "caller"},
}


def make_headless_bundle(folder: Path) -> Path:
    """Write the bundle into a new folder."""
    make_tiny_bundle(folder)
    manifest = Bundle.open(folder).manifest
    (folder / "classifier.onnx").unlink()
    model = mask_model()
    model.graph.output.remove(next(value for value in model.graph.output if value.name == "logits"))
    (folder / "mask.onnx").write_bytes(model.SerializeToString(deterministic=True))
    kept = {key: value for key, value in selftest_arrays().items() if "classifier" not in key and "logits" not in key}
    write_npz(folder / "selftest.npz", kept)
    inputs, outputs = graph_signature("mask", IMAGE, 0)
    graphs = {name: entry for name, entry in manifest.graphs.items() if name != "classifier"}
    graphs["mask"] = graphs["mask"].model_copy(update={"inputs": inputs, "outputs": outputs})
    presets = {name: Preset.parse(data) for name, data in {**PRESETS, "given": GIVEN}.items()}
    rehash(folder, classes=(), graphs=graphs, presets=presets)
    return folder

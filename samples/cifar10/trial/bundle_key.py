"""What answers belong to: the arithmetic, weights and presets of a bundle, and what runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
from onnx.numpy_helper import to_array

from edgepure import Bundle


def bundle_key(bundle: Path, provider: str, precision: str) -> str:
    """Sixteen digits that follow from the graphs that answer and the presets of a bundle, and what runs them.

    Another exporter may give the values in a graph other names: that changes nothing.
    """
    manifest = Bundle.open(bundle).manifest
    names = sorted(n for n in manifest.files if n.endswith(".onnx") and Path(n).stem != "unet")  # which answers nothing
    graphs = [(n, graph_digest(bundle / n)) for n in names]
    presets = sorted((name, preset.model_dump_json(exclude_defaults=True)) for name, preset in manifest.presets.items())
    return hashlib.sha256(repr((graphs, presets, provider, precision)).encode()).hexdigest()[:16]


def graph_digest(path: Path) -> str:
    """SHA-256 of what a graph computes: its operators in their order, their attributes and weights."""
    graph = onnx.load(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    values = {value.name: f"input {value.name}" for value in graph.input}
    digest = hashlib.sha256()
    for node in graph.node:
        for name in node.input:
            if name in weights and name not in values:
                array = to_array(weights[name])
                values[name] = f"weight {len(values)} {array.dtype} {array.shape}"
                digest.update(array.tobytes())
        attributes = sorted(a.SerializeToString(deterministic=True) for a in node.attribute)
        inputs = [values[name] if name else "" for name in node.input]
        digest.update(repr((node.domain, node.op_type, attributes, inputs)).encode())
        for name in node.output:
            values[name] = f"value {len(values)}"
    digest.update(repr([(value.name, values[value.name]) for value in graph.output]).encode())
    return digest.hexdigest()

"""Bundles that somebody changed: faults with the right hashes, for tests of what must find them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx

from edgepure.bundle.bundle import hash_files
from edgepure.bundle.manifest import Manifest


def rehash(bundle: Path) -> None:
    """As one who changes a file on purpose would."""
    data = json.loads((bundle / "bundle.json").read_text())
    data["files"] = {name: entry.model_dump() for name, entry in hash_files(bundle).items()}
    (bundle / "bundle.json").write_text(Manifest.from_json(json.dumps(data)).to_json())


def perturb(bundle: Path, graph: str, weight: str, by: float) -> None:
    """Add to every value of one weight, wherever it lies."""
    path = bundle / f"{graph}.onnx"
    model = onnx.load(path, load_external_data=False)
    (tensor,) = [t for t in model.graph.initializer if t.name == weight]
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        place = {entry.key: entry.value for entry in tensor.external_data}
        offset, count = int(place["offset"]), int(place["length"]) // 4
        data = np.memmap(bundle / place["location"], np.float32, "r+", offset, (count,))
        data += np.float32(by)
        data.flush()
    else:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(by), weight))
        path.write_bytes(model.SerializeToString())
    rehash(bundle)

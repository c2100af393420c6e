"""A bundle beside its PyTorch networks at four levels, and a changed weight that is found and named."""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx

import edgepure
from edgepure.bundle import edit_bundle
from edgepure.parity import ImageSet
from edgepure_export import verify_against_torch

NETWORKS = {
    "classifier": "python:samples/digits/models.py:load_classifier",
    "diffusion": "python:samples/digits/models.py:load_unet",
}


def change_a_weight(bundle: Path, weight: str) -> None:
    """Add 0.02 to all values of one weight, with the hashes put right: the file is whole, its content is not."""
    graph = onnx.load(bundle / "unet.onnx", load_external_data=False).graph
    tensor = next(t for t in graph.initializer if t.name == weight)
    place = {entry.key: entry.value for entry in tensor.external_data}
    start, length = int(place["offset"]), int(place["length"])
    data = bytearray((bundle / "weights.bin").read_bytes())
    values = np.frombuffer(data, np.float32, length // 4, start)
    data[start : start + length] = (values + np.float32(0.02)).tobytes()
    with edit_bundle(bundle) as edit:
        edit.write("weights.bin", bytes(data))


alone = edgepure.verify(edgepure.demo_bundle())
print(f"with the recorded vectors: {[level.status for level in alone.levels]}")

digits = edgepure.demo_images()
sets = [ImageSet("clean", digits.clean, digits.labels), ImageSet("attacked", digits.adversarial, digits.labels)]
beside = verify_against_torch(edgepure.demo_bundle(), **NETWORKS, images=sets, presets=["uniform"])
print(f"beside PyTorch: {[level.status for level in beside.levels]}")
for part in beside.levels[3].parts:
    found = part.to_json()
    most = 100 * found["interval"][1]
    print(f"{found['data']}: {found['flips']} of {found['images']} labels flip, at most {most:.1f} % do")

with tempfile.TemporaryDirectory() as folder:
    copy = Path(shutil.copytree(edgepure.demo_bundle(), Path(folder) / "digits"))
    change_a_weight(copy, "unet.middle1.conv2.weight")
    print(f"\na weight was changed: {[level.status for level in edgepure.verify(copy).levels]}")
    findings = verify_against_torch(copy, **NETWORKS, pipelines=False).findings
    for finding in findings:
        assert finding.layer is not None
        print(f"{finding.graph}: the first layer that differs is {finding.layer.module} ({finding.layer.operator})")
    print(f"usual cause: {findings[0].causes[0]}")

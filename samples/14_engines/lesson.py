"""TensorRT engines of a bundle: what they are built for, and when they are built again. Needs no GPU."""

import shutil
from pathlib import Path

from edgepure.demo import demo_bundle
from edgepure.engines import build_engines

bundle = Path("out/engines_lesson")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)

# TensorRT for RTX builds on any machine, for GPUs that are named; without a target, for the GPU that is here.
built = build_engines(bundle, batches=(1, 4), graphs=["step", "classifier"], provider="tensorrt-rtx", targets=["sm86"])
for engine in built:
    print(f"{engine.graph}: {'kept' if engine.reused else 'built'}, {engine.path.name}")

key = built[-1].key
print(f"for {', '.join(key.targets)}, batches {key.batches}, strongly typed: {'STRONGLY_TYPED' in key.flags}")
print("inputs of a batch of 4:", {name: "x".join(map(str, shape)) for name, shape in key.profiles[1].items()})

# The same again costs nothing; another batch size is another engine.
again = build_engines(bundle, batches=(1, 4), graphs=["step"], provider="tensorrt-rtx", targets=["sm86"])
other = build_engines(bundle, batches=(1, 8), graphs=["step"], provider="tensorrt-rtx", targets=["sm86"])
print("again:", "kept" if again[0].reused else "built", "- with batch 8:", "kept" if other[0].reused else "built")

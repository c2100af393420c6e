"""The digits on both CPU engines: the same decisions; then a bf16 variant that is judged on OpenVINO itself."""

import shutil
from pathlib import Path

import numpy as np

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.images import LabelledImages
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.quantize import Limits, QuantizeSettings, quantize

bundle = Path("out/openvino")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)
digits = demo_images()

# Noise depends on the seed, not on the engine: results can be compared pixel by pixel.
results = {}
for provider in ("cpu", "openvino"):
    with edgepure.load(bundle, provider, threads=1) as purifier:
        results[provider] = purifier.run(digits.adversarial, noise=7)
pairs = list(zip(results["cpu"], results["openvino"], strict=True))
largest = max(np.abs(a.image - b.image).max() for a, b in pairs)
print(f"purified pixels differ by {'less' if largest < 1e-5 else 'more'} than 1e-5")
print(f"{sum(a.label == b.label for a, b in pairs)} of {len(pairs)} attacked digits get the same answer")

# The digits' networks are too small for a speed to be asked for; yours are not: leave `limits` out.
names = tuple(str(i) for i in range(len(digits)))
clean = LabelledImages(digits.clean, digits.labels, names)
attacked = LabelledImages(digits.adversarial, digits.labels, names)
settings = QuantizeSettings("bf16", "openvino", redraws=6, limits=Limits(flips=0.08, accuracy=0.08, speed=0.0))
openvino = ProviderSettings("openvino", threads=1, slots=8)
outcome = quantize(bundle, settings, clean, attacked, provider=openvino)
print(f"bf16: {'accepted' if outcome else 'refused'}, measured on {outcome.evidence['measured_on']}")
for part, flips in outcome.evidence["attempts"][-1]["gates"][0]["flips"].items():
    flipped, redrawn = (100 * flips[key] / flips["decisions"] for key in ("flipped", "redrawn"))
    print(f"  {part} images: {flipped:.1f} % of the decisions flip, new noise flips {redrawn:.1f} %")

with edgepure.load(bundle, "openvino", precision="bf16", threads=1) as purifier:
    result = purifier.classify([digits.adversarial[0]], noise=1)[0]
    print(f"bf16 says {result.class_name}, the truth is {digits.labels[0]}")

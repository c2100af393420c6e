"""Make INT8 and FP16 variants of a copy of the digits bundle, and see what each does to decisions."""

import shutil
from pathlib import Path

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.images import LabelledImages
from edgepure_calibration.quantize import Limits, QuantizeSettings, quantize

bundle = Path("out/quantized")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)

digits = demo_images()
names = tuple(str(i) for i in range(len(digits)))
clean = LabelledImages(digits.clean, digits.labels, names)
attacked = LabelledImages(digits.adversarial, digits.labels, names)

# 56 images are left to judge with: one decision that flips may stand for 8 %, as far as they can show.
limits = Limits(flips=0.08, accuracy=0.09)
# For TensorRT: this machine cannot time it, but it can judge its decisions.
for precision in ("int8", "fp16"):
    settings = QuantizeSettings(precision, "tensorrt", presets=("uniform",), redraws=6, limits=limits)
    outcome = quantize(bundle, settings, clean, attacked)
    gate = outcome.evidence["attempts"][-1]["gates"][0]
    print(f"{precision}: {'accepted' if outcome else 'refused'}")
    for part, flips in gate["flips"].items():
        flipped, redrawn = (100 * flips[key] / flips["decisions"] for key in ("flipped", "redrawn"))
        print(f"  {part} images: {flipped:.1f} % of the decisions flip, new noise flips {redrawn:.1f} %")

    most = list(outcome.evidence["sensitivity"].items())[:2]
    if most:
        print("  layers that cost most: " + ", ".join(name.partition("/")[0] for name, _ in most))

print(f"variants in the bundle: {', '.join(sorted(edgepure.Bundle.open(bundle).manifest.variants))}")
with edgepure.load(bundle, precision="int8") as purifier:
    result = purifier.classify([digits.adversarial[0]], "uniform", noise=1)[0]
    print(f"int8 says {result.class_name}, the truth is {digits.labels[0]}")

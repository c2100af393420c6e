"""Search presets under a budget of UNet calls; the best ones become presets of the bundle."""

import shutil
from pathlib import Path

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.images import LabelledImages
from edgepure_calibration.tune import TuneSettings, tune

BUDGET = 5

bundle = Path("out/tuned")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)

digits = demo_images()
names = tuple(str(i) for i in range(len(digits)))
clean = LabelledImages(digits.clean, digits.labels, names)
attacked = LabelledImages(digits.adversarial, digits.labels, names)

# 24 images are searched on; the other 40 measure the best candidates again. Without PyTorch the only attack
# is the one that was made on the plain classifier.
settings = TuneSettings(
    calls=BUDGET, whitebox=False, references=("heterogeneous",), trials=10, images=24, finalists=3, seed=4
)
found = tune(bundle, clean, settings, attacked=attacked)

print(f"candidates tried: {len(found.trials)}, of at most {max(p.calls for p in found.trials)} UNet calls a decision")
print("accuracy on attacked images, and UNet calls a decision:")
before = found.references["heterogeneous"]
print(f"  heterogeneous (was there)  {100 * before.robust:.1f} %  {before.calls}")
for name, point in found.chosen.items():
    print(f"  {name:25}  {100 * point.robust:.1f} %  {point.calls}")

with edgepure.load(bundle) as purifier:
    result = purifier.classify(digits.adversarial[0], "robust", noise=1)[0]
    print(f"an attacked {digits.labels[0]} is read as {result.class_name}, UNet calls {result.unet_calls}")

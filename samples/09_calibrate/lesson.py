"""Calibrate a copy of the digits bundle, then let its monitor watch."""

import shutil
from pathlib import Path

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure.images import LabelledImages
from edgepure_calibration.calibrate import CalibrateSettings, calibrate, describe

bundle = Path("out/calibrated")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)

digits = demo_images()
names = tuple(str(i) for i in range(len(digits)))
clean = LabelledImages(digits.clean, digits.labels, names)
attacked = LabelledImages(digits.adversarial, digits.labels, names)

# The probes to try, each with noise in the image and without; those of the presets and of the papers come along.
found = calibrate(bundle, clean, attacked=attacked, settings=CalibrateSettings(levels=((2,), (10,), (100,), (200,))))
for entry in found.calibration.probes:
    assert entry.separation is not None
    print(f"{describe(entry.probe)}: AUROC {100 * entry.separation.auroc:.0f} %")
print(f"chosen: {describe(found.calibration.chosen)}")
print(f"presets that follow it: {', '.join(sorted(found.presets))}")

with edgepure.load(bundle) as purifier:
    monitor = purifier.monitor(flag_rate=0.05)
    mixed = [digits.clean[0], digits.adversarial[0], digits.adversarial[1]]
    for result in purifier.classify(mixed, "uniform-ssni", votes=1, noise=7, monitor=monitor):
        print(f"image {result.name}: flagged {result.flagged}, noise level {result.levels['t_star']:.0f}")
    counted = monitor.to_dict()
    print(f"counted: {counted['flagged']} of {counted['images']} flagged")

"""Attack a copy of the digits bundle through its twin, let the engine answer, and put the card into the bundle."""

import shutil
from pathlib import Path

from edgepure.demo import demo_bundle, demo_images
from edgepure.images import LabelledImages
from edgepure_calibration.evaluate import EvaluateSettings, evaluate, write_card

bundle = Path("out/evaluated")
shutil.rmtree(bundle, ignore_errors=True)
shutil.copytree(demo_bundle(), bundle)

digits = demo_images()
data = LabelledImages(digits.clean, digits.labels, tuple(str(i) for i in range(len(digits))))

# Weak settings, so that the lesson is quick. noise_seed makes it repeatable; an evaluation leaves it out.
settings = EvaluateSettings(attacks=("transfer", "surrogate", "pgd"), eps=0.05, steps=5, eot=2, worst=5, noise_seed=1)
found = evaluate(bundle, data, ["uniform"], settings, checkpointing=False)

notes = found.footnotes()
(preset,) = found.presets
for attack in (preset.clean, *preset.attacks):
    shares = ", ".join(f"{a.rule} {100 * a.fraction:.1f} %" for a in attack.accuracies)
    number = notes.cite(attack.protocol)
    print(f"[{number}] {attack.protocol.title}: {shares}; classifier alone {100 * attack.plain.fraction:.1f} %")
    if attack.agreement is not None:
        print(f"    twin and engine disagree on {attack.agreement.flips} of {attack.agreement.images} images")

pgd = preset.attacks[-1]
first, last = pgd.resubmission[0], pgd.resubmission[-1]
print(f"one query reads {100 * first:.1f} % wrong, {len(pgd.resubmission)} queries {100 * last:.1f} %")

write_card(bundle, found)
print((bundle / "robustness" / "card.md").read_text().splitlines()[0])
print("not tested, among others:")
for line in found.not_tested()[-3:]:
    print(f"- {line}")

"""AutoAttack itself, version `rand`: APGD with cross-entropy, then with the DLR loss on what is left, both averaged
over the noise. Then the deployed votes answer.

A real evaluation leaves AutoAttack's own numbers alone: 100 steps, EOT 20, and hundreds of images.
"""

import torch
from pyautoattack import AutoAttack

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import PurifiedClassifier

IMAGES, EPS, STEPS, EOT = 8, 0.1, 4, 2

digits = demo_images()
images, labels = torch.from_numpy(digits.clean[:IMAGES]), torch.from_numpy(digits.labels[:IMAGES])
model = PurifiedClassifier.from_bundle(demo_bundle(), "uniform", votes=1, seed=1)

adversary = AutoAttack(model, norm="Linf", eps=EPS, version="rand", device="cpu", seed=0)
adversary.apgd.n_iter, adversary.apgd.eot_iter = STEPS, EOT
found = adversary.run_standard_evaluation(images, labels, batch_size=IMAGES)
adversarial = found[0] if isinstance(found, tuple) else found
attack_calls = model.unet_calls

# AutoAttack keeps an image as soon as one answer is wrong. What a decision is worth, other noise has to say.
deployed = PurifiedClassifier.from_bundle(demo_bundle(), "uniform", seed=2)
with torch.no_grad():
    clean, robust = ((deployed(x).argmax(1) == labels).float().mean() for x in (images, adversarial))
print(
    f"uniform, {deployed.preset.votes.count} votes, new noise; AutoAttack rand, {STEPS} steps, EOT {EOT}, Linf {EPS}, "
    f"exact gradient, {IMAGES} images: {100 * clean:.0f} % right clean, {100 * robust:.0f} % right attacked; "
    f"the attack took {attack_calls} UNet calls forward"
)

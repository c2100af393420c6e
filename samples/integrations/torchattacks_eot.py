"""torchattacks: PGD averaged over the noise (EOT) through the whole purification."""

import torch
import torchattacks

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import PurifiedClassifier

IMAGES, EPS, STEPS, EOT = 8, 0.1, 4, 2

digits = demo_images()
images, labels = torch.from_numpy(digits.clean[:IMAGES]), torch.from_numpy(digits.labels[:IMAGES])

# One vote while attacking: EOT averages over the noise.
model = PurifiedClassifier.from_bundle(
    demo_bundle(), "heterogeneous", votes=1, seed=1, mask_gradient="straight_through"
)
torch.manual_seed(0)
attack = torchattacks.EOTPGD(model, eps=EPS, alpha=EPS / 2, steps=STEPS, eot_iter=EOT)
adversarial = attack(images, labels)
attack_calls = model.unet_calls

# The decision that is deployed: all votes.
deployed = PurifiedClassifier.from_bundle(demo_bundle(), "heterogeneous", seed=2)
with torch.no_grad():
    clean, robust = ((deployed(x).argmax(1) == labels).float().mean() for x in (images, adversarial))
print(
    f"heterogeneous, {deployed.preset.votes.count} votes, new noise; PGD Linf {EPS}, {STEPS} steps, EOT {EOT}, exact "
    f"gradient, straight-through mask, {IMAGES} images: {100 * clean:.0f} % right clean, {100 * robust:.0f} % right "
    f"attacked; the attack took {attack_calls} UNet calls forward"
)

"""RobustBench's way: a model with images in [0, 1] and logits, clean accuracy, then the attacks of AutoAttack's `rand`
version: APGD with cross-entropy, then with the DLR loss on what is left, both averaged over the noise.

A real evaluation takes 100 steps, EOT 20 and hundreds of images.
"""

import torch
import torchattacks

from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import PurifiedClassifier

IMAGES, EPS, STEPS, EOT = 8, 0.1, 4, 2

digits = demo_images()
images, labels = torch.from_numpy(digits.clean[:IMAGES]), torch.from_numpy(digits.labels[:IMAGES])
model = PurifiedClassifier.from_bundle(demo_bundle(), "uniform", votes=1, seed=1)


def right(batch: torch.Tensor) -> torch.Tensor:
    """One evaluation with new noise: which images of the batch are classified as they should be."""
    with torch.no_grad():
        return model(batch).argmax(1) == labels


clean = right(images)
adversarial, standing = images.clone(), clean.clone()
for loss in ("ce", "dlr"):
    if standing.any():
        attack = torchattacks.APGD(model, norm="Linf", eps=EPS, steps=STEPS, loss=loss, eot_iter=EOT, seed=0)
        adversarial[standing] = attack(images[standing], labels[standing])
        standing &= right(adversarial)
# `standing` kept the worst of several evaluations; one more shows what a single decision is worth.
single = right(adversarial)
print(
    f"uniform, 1 vote, new noise; APGD-CE and APGD-DLR, {STEPS} steps, EOT {EOT}, Linf {EPS}, exact gradient, "
    f"{IMAGES} images: {100 * clean.float().mean():.0f} % right clean; attacked {100 * standing.float().mean():.0f} % "
    f"in every evaluation, {100 * single.float().mean():.0f} % in one more"
)

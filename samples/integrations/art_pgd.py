"""ART: purification as a preprocessing defence, attacked by projected gradient descent."""

import numpy as np
from art.attacks.evasion import ProjectedGradientDescent
from art.estimators.classification import PyTorchClassifier
from torch import nn

from edgepure import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import PurificationPreprocessor
from edgepure_export import load_twin

IMAGES, EPS, STEPS = 16, 0.1, 10

digits, bundle = demo_images(), Bundle.open(demo_bundle())
images, labels = digits.clean[:IMAGES], digits.labels[:IMAGES]
twin = load_twin(bundle)
assert twin.classifier is not None

for gradient in ("identity", "exact"):
    defence = PurificationPreprocessor(twin, bundle.manifest.presets["uniform"], gradient=gradient, seed=1)
    classifier = PyTorchClassifier(
        model=twin.classifier,
        loss=nn.CrossEntropyLoss(),
        input_shape=images.shape[1:],
        nb_classes=len(bundle.manifest.classes),
        clip_values=(0.0, 1.0),
        preprocessing_defences=[defence],
        device_type="cpu",
    )
    np.random.seed(0)  # ART draws its starting points from NumPy's global generator
    attack = ProjectedGradientDescent(classifier, eps=EPS, eps_step=EPS / 4, max_iter=STEPS, verbose=False)
    adversarial = attack.generate(images, np.eye(10)[labels])
    clean, robust = (np.mean(classifier.predict(x).argmax(1) == labels) for x in (images, adversarial))
    print(
        f"uniform, one purification, new noise; PGD Linf {EPS}, {STEPS} steps, {gradient} gradient, {IMAGES} images: "
        f"{100 * clean:.0f} % right clean, {100 * robust:.0f} % right attacked"
    )

"""Black box: ART's Square attack asks the deployed engine, which needs no PyTorch."""

import numpy as np
from art.attacks.evasion import SquareAttack
from art.estimators.classification import BlackBoxClassifierNeuralNetwork

import edgepure
from edgepure.demo import demo_bundle, demo_images
from edgepure_calibration.integrations import BlackBox

IMAGES, EPS, QUERIES = 8, 0.1, 8

digits = demo_images()
images, labels = digits.clean[:IMAGES], digits.labels[:IMAGES]

with edgepure.load(demo_bundle()) as purifier:
    box = BlackBox(purifier, "uniform", votes=3, seed=1)
    target = BlackBoxClassifierNeuralNetwork(box, box.input_shape, box.classes, clip_values=(0.0, 1.0))
    np.random.seed(0)  # ART draws its squares from NumPy's global generator
    attack = SquareAttack(target, eps=EPS, max_iter=QUERIES, verbose=False)
    adversarial = attack.generate(images, np.eye(box.classes)[labels])
    queries, calls = box.queries, box.unet_calls
    clean, robust = (np.mean(box(x).argmax(1) == labels) for x in (images, adversarial))
    print(
        f"uniform, {box.preset.votes.count} votes, new noise, on the engine; Square Linf {EPS}, {QUERIES} iterations, "
        f"{IMAGES} images: {100 * clean:.0f} % right clean, {100 * robust:.0f} % right attacked; "
        f"{queries} queries, {calls} UNet calls"
    )

"""Noise is secret unless you say otherwise, and every purification can be repeated by who holds its seed."""

import numpy as np

import edgepure
from edgepure.demo import demo_bundle, demo_images

images = demo_images().adversarial[:4]

with edgepure.load(demo_bundle()) as purifier:
    # The default: a fresh key from the operating system for every call. Two calls differ.
    first, second = (purifier.purify(images)[0].image for _ in range(2))
    print(f"secret noise, two calls alike: {np.array_equal(first, second)}")

    # An audit: keep the key of a decision (it is as secret as a password), repeat the decision later.
    noise = edgepure.SecretNoise()
    answered = purifier.classify(images, noise=noise)
    repeated = purifier.classify(images, noise=noise.seed)
    print(
        f"audit, same answers and images: {all(np.array_equal(a.image, b.image) for a, b in zip(answered, repeated))}"
    )

    # Noise belongs to (seed, image number, vote, row), so batch-mates change nothing but rounding.
    alone = purifier.purify(images[:1], noise=7)[0].image
    among = purifier.purify(images, noise=7)[0].image
    print(f"alone or in a batch, difference below 1e-5: {np.abs(alone - among).max() < 1e-5}")

"""Noise is secret unless you say otherwise, and every purification can be repeated by whoever holds its seed."""

import numpy as np

import edgepure

images = edgepure.demo_images().adversarial[:4]

with edgepure.load(edgepure.demo_bundle()) as purifier:
    # The default: a fresh key from the operating system for every call. Two calls differ.
    first, second = (purifier.purify(images)[0].image for _ in range(2))
    print(f"secret noise, two calls give the same image: {np.array_equal(first, second)}")

    # An audit: keep the key of a decision (as secret as a password), and repeat the decision later.
    noise = edgepure.SecretNoise()
    answered = purifier.classify(images, noise=noise)
    repeated = purifier.classify(images, noise=noise.seed)
    same = all(np.array_equal(a.image, b.image) for a, b in zip(answered, repeated, strict=True))
    print(f"repeated with the kept key, the same images: {same}")

    # Noise belongs to (seed, image number, vote, row): batch-mates change nothing but the last rounding.
    alone = purifier.purify(images[:1], noise=7)[0].image
    among = purifier.purify(images, noise=7)[0].image
    print(f"alone or in a batch, less than 1e-5 apart: {np.abs(alone - among).max() < 1e-5}")

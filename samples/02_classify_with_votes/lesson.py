"""One purification is a draw; several of them vote."""

import numpy as np

import edgepure

digits = edgepure.demo_images()

with edgepure.load(edgepure.demo_bundle()) as purifier:
    print(f"decision rule of the preset: {purifier.preset('uniform').votes}")
    for votes in (1, 3, 9):
        results = purifier.classify(digits.adversarial, "uniform", votes=votes, noise=2)
        right = np.mean([r.label == truth for r, truth in zip(results, digits.labels, strict=True)])
        calls = np.mean([r.unet_calls for r in results])
        print(f"{votes} votes: {100 * right:.0f} % right, {calls:.0f} UNet calls an image")

    # The last results are those of 9 votes: which image do its purifications agree on least?
    split = max(results, key=lambda r: len(set(r.vote_labels)))
    print(f"image {split.name} got the votes {split.vote_labels}: decided as {split.class_name}")

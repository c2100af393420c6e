"""A preset is plain data: method, mask, SSNI, votes. Make your own, or change one of the bundle's."""

import numpy as np

import edgepure

digits = edgepure.demo_images()

mine = {
    "method": {"method": "uniform", "t_star": 150, "steps": 3, "sampler": "ddim", "eta": 1.0},
    "votes": {"count": 3, "rule": "mean"},
    "description": "three calls from t = 150",
}

with edgepure.load(edgepure.demo_bundle()) as purifier:
    # The same mask as the bundle's preset, stronger noise inside it.
    ready = purifier.preset("heterogeneous").model_dump()
    stronger = {**ready, "method": {**ready["method"], "t_l": ready["method"]["t_l"] + 50}}

    for name, preset in (("mine", mine), ("stronger", stronger)):
        results = purifier.classify(digits.adversarial, preset, noise=4)
        right = np.mean([r.label == truth for r, truth in zip(results, digits.labels, strict=True)])
        print(f"{name}: {100 * right:.0f} % right with {purifier.plan(preset).unet_calls} UNet calls a purification")

    # A misspelt key is an error; it never falls back to a default in silence.
    try:
        purifier.preset({"method": {"method": "uniform", "tstar": 150}})
    except edgepure.EdgepureError as error:
        print(f"refused: {error}")

"""The score norm that SSNI computes anyway tells attacked images from clean ones."""

import numpy as np

import edgepure
from edgepure.demo import demo_bundle, demo_images

digits = demo_images()

with edgepure.load(demo_bundle()) as purifier:
    preset = "uniform-ssni"
    ssni = purifier.preset(preset).ssni
    assert ssni is not None
    print(f"probe: UNet calls {ssni.probe.unet_calls}; clean training images have a mean norm of {ssni.mu:.1f}")

    clean = purifier.score_norms(digits.clean, preset, noise=5)
    attacked = purifier.score_norms(digits.adversarial, preset, noise=6)
    print(f"median norm: clean {np.median(clean):.1f}, attacked {np.median(attacked):.1f}")

    # The chance that an attacked image has the larger norm: 50 % is a coin, 100 % a perfect alarm.
    auroc = np.mean(attacked[:, None] > clean[None, :])
    print(f"AUROC of the norm as an alarm: {100 * auroc:.0f} %")

    for name, norm in (("clean", np.median(clean)), ("attacked", np.median(attacked))):
        plan = purifier.plan(preset, norm)
        print(f"a typical {name} image gets {dict(plan.levels)} and {plan.unet_calls} UNet calls")

"""Purify one adversarial image and save it beside the original."""

from pathlib import Path

import numpy as np
from PIL import Image

import edgepure

out = Path("out/01")
out.mkdir(parents=True, exist_ok=True)


def save(image: np.ndarray, name: str) -> None:
    """Write a ``[1, H, W]`` image in [0, 1] as an 8-bit PNG."""
    Image.fromarray(np.rint(255 * image[0]).astype(np.uint8)).save(out / name)


digits = edgepure.demo_images()
adversarial, truth = digits.adversarial[0], digits.labels[0]
save(adversarial, "adversarial.png")

with edgepure.load(edgepure.demo_bundle()) as purifier:
    fooled = purifier.logits(adversarial[None]).argmax()
    print(f"the classifier alone sees a {fooled}; it is a {truth}")

    # A path, a PIL image, uint8 HWC or float CHW in [0, 1]: all are accepted, ranges are checked.
    result = purifier.purify(out / "adversarial.png", noise=1)[0]
    print(f"purified, it sees a {result.class_name}, after {result.unet_calls} UNet calls")

save(result.image, "purified.png")

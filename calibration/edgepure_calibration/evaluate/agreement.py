"""Twin against engine: the same adversarial images, the same noise, the same answers?"""

from __future__ import annotations

import numpy as np
import torch

from edgepure import SeededNoise
from edgepure.types import Float32

from ..attacks.attack import AttackTarget
from .results import Agreement


@torch.no_grad()
def agreement(target: AttackTarget, images: Float32, seed: int, batch: int = 64) -> Agreement:
    """Purify ``images`` ``[N, C, H, W]`` once on the engine and once by the twin, both with the noise of ``seed``."""
    flips = masks = 0
    largest = 0.0
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        ids = range(first, first + len(part))
        found = target.purifier.run(part, target.preset, votes=1, noise=SeededNoise(seed), ids=ids)
        x = torch.from_numpy(part).to(target.device)
        same = target.twin.run_preset(x, target.preset, SeededNoise(seed), first_image=first)
        flips += sum(r.label != int(n) for r, n in zip(found, same.logits.argmax(1), strict=True))
        alike = np.ones(len(part), bool)
        if same.mask is not None:
            own = np.stack([r.mask for r in found if r.mask is not None])
            alike = (own == (same.mask[:, 0] > 0.5).cpu().numpy()).all(axis=(1, 2))
            masks += int((~alike).sum())
        apart = np.abs(np.stack([r.image for r in found]) - same.purified.cpu().numpy()).max(axis=(1, 2, 3))
        largest = max(largest, float(apart[alike].max(initial=0.0)))
    return Agreement(len(images), flips, largest, masks if target.preset.mask is not None else None)

"""Choose the noise level of the cheap presets and the strengths of the trivial baselines, on training images.

    python -m samples.cifar10.trial.pilot --data DATA

Every candidate is scored clean, under PGD on the plain classifier, and under a short white-box attack (PGD-EOT through
everything), Linf 8/255. What is chosen is written by hand into presets.py and systems.py, by one rule for presets and
baselines; test images are not looked at.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import edgepure
from edgepure import Preset, SeededNoise
from edgepure_calibration.attacks import PGD, Defence
from samples.cifar10.baselines import blur, gaussian, jpeg, projection, wiener
from samples.cifar10.build_bundle import classifier_named, twin
from samples.cifar10.data import load_cifar10, to_unit
from samples.cifar10.models import WEIGHTS, load_unet
from samples.cifar10.presets import MASK, uniform

from .systems import STATISTICS, Filtered, Logits, baselines, rounded

#: Made on the plain classifier: cheap, and for the other end of what a level has to withstand.
TRANSFER = PGD(eps=8 / 255, steps=20, seed=6)
ATTACK = PGD(eps=8 / 255, steps=10, eot=2, seed=5)
LEVELS = "40,60,80,100,130,160"


def two_levels(t_l: int) -> dict[str, Any]:
    """The six-call heterogeneous preset with another noise level."""
    method = {
        "method": "heterogeneous",
        "t_l": t_l,
        "t_s": t_l // 2,
        "stage1_steps": 2,
        "stage2_steps": 2,
        "resample": "single",
        "U": 3,
        "eta": 1.0,
    }
    return {"method": method, "mask": MASK}


def main(
    data: Annotated[Path, typer.Option(help="CIFAR-10, in any form that data.py reads")],
    weights: Annotated[Path, typer.Option()] = WEIGHTS,
    classifier: Annotated[str, typer.Option(help="ours, resnet20 or resnet56")] = "ours",
    images: Annotated[int, typer.Option(help="Training images")] = 64,
    levels: Annotated[str, typer.Option(help="Noise levels t* and t_l, separated by commas")] = LEVELS,
    whitebox: Annotated[bool, typer.Option(help="Attack through the defence too: most of the time")] = True,
    filters_too: Annotated[bool, typer.Option(help="Score the trivial baselines")] = True,
    bf16: Annotated[bool, typer.Option(help="Networks in bfloat16: three times as fast with AMX")] = False,
    work: Annotated[Path, typer.Option(help="Where the principal components are kept")] = Path("out/cifar10/trial"),
) -> None:
    """Score every candidate."""
    torch.set_num_threads(1)
    stored = load_cifar10(data)
    chosen = np.random.default_rng(3).choice(len(stored.train_labels), images, replace=False)
    x = torch.from_numpy(to_unit(stored.train_images[chosen]))
    y = torch.from_numpy(stored.train_labels[chosen])
    network = classifier_named(classifier, weights)
    network.requires_grad_(False)
    reference = twin(network, load_unet(weights))
    baselines(stored, work / "principal-components.npz")
    with np.load(work / "principal-components.npz", allow_pickle=False) as kept:
        mean, components, variances = (torch.from_numpy(kept[k]) for k in STATISTICS)
    filters = [
        *(jpeg(q) for q in (20, 50, 75)),
        *(blur(s) for s in (0.5, 0.8, 1.2)),
        *(projection(mean, components, k) for k in (128, 256, 384, 768)),
        *(gaussian(s) for s in (0.03, 0.06, 0.12)),
        *(wiener(mean, components, variances, t) for t in (15, 30, 60, 100, 150)),
    ]

    transferred = TRANSFER(network, x, y)

    def score(name: str, attacked_logits: Logits, logits: Logits) -> None:
        start = time.perf_counter()
        tried = {"clean": x, "transferred": transferred}
        if whitebox:
            tried["white-box"] = ATTACK(attacked_logits, x, y)
        with torch.no_grad():
            found = {key: float((logits(z).argmax(1) == y).double().mean()) for key, z in tried.items()}
        cells = "  ".join(f"{key} {value:6.1%}" for key, value in found.items())
        print(f"{name:28} {cells}  {time.perf_counter() - start:5.1f} s", flush=True)

    for baseline in filters if filters_too else ():
        system = Filtered(baseline.name, network, baseline)
        score(baseline.name, system.exact(1), system.exact(2))
    for t in map(int, levels.split(",")):
        for name, raw in ((f"uniform {t}", uniform(3, t_star=t)), (f"heterogeneous {t}/{t // 2}", two_levels(t))):
            preset = Preset.parse(raw)

            def voted(z: torch.Tensor, preset: edgepure.Preset = preset) -> torch.Tensor:
                votes = [reference.run_preset(z, preset, SeededNoise(9), vote=v).logits.softmax(1) for v in range(5)]
                return torch.stack(votes).mean(0)

            score(name, rounded(Defence(reference, preset, 1), bf16), rounded(voted, bf16))


if __name__ == "__main__":
    typer.run(main)

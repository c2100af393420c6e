"""`python -m benchmarks.attacks [--out out/attacks.json]`: our APGD and Square beside AutoAttack's own, same budgets.

On the plain digits classifier, where both can be run: how many images are left, the fewer the stronger the attack.
Needs `pip install pyautoattack`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepure.demo import demo_bundle, demo_images
from edgepure.files.atomic import write_text
from edgepure_calibration.attacks import APGD, Square
from edgepure_export.twin.twin import load_twin

from .__main__ import machine

EPS, STEPS, SEEDS = (0.02, 0.03, 0.05), 100, (0, 1)
#: Radius and queries.
SQUARE = ((0.05, 150), (0.05, 1000), (0.1, 150))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/attacks.json"))
    options = parser.parse_args()
    from pyautoattack.autopgd_base import APGDAttack
    from pyautoattack.square import SquareAttack

    digits = demo_images()
    x, y = torch.from_numpy(digits.clean.copy()), torch.from_numpy(digits.labels.astype(np.int64))
    twin = load_twin(demo_bundle())
    for network in twin.networks:
        network.requires_grad_(False)
    model: Any = twin.logits

    def left(images: torch.Tensor) -> int:
        with torch.no_grad():
            return int((model(images).argmax(1) == y).sum())

    def answers(images: Any) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(images)).numpy()

    rows: list[dict[str, Any]] = []

    def note(attack: str, eps: float, budget: str, ours: list[int], theirs: list[int]) -> None:
        rows.append({"attack": attack, "eps": eps, "budget": budget, "ours": ours, "autoattack": theirs})
        print(
            f"| {attack} | {eps:g} | {budget} | {', '.join(map(str, ours))} | {', '.join(map(str, theirs))} |",
            flush=True,
        )

    print(f"{len(x)} images, {left(x)} read right unattacked; images left, seeds {', '.join(map(str, SEEDS))}\n")
    print("| attack | eps | budget | ours | AutoAttack |\n|---|---|---|---|---|")
    for loss in ("ce", "dlr"):
        for eps in EPS:
            ours = [left(APGD(eps=eps, steps=STEPS, loss=loss, seed=s)(model, x, y)) for s in SEEDS]  # type: ignore[arg-type]
            theirs = []
            for seed in SEEDS:
                attack = APGDAttack(
                    model, n_iter=STEPS, norm="Linf", n_restarts=1, eps=eps, seed=seed, loss=loss, device="cpu"
                )
                theirs.append(left(attack.perturb(x, y)))
            note(f"APGD, {loss.upper()}", eps, f"{STEPS} steps, one start", ours, theirs)
    for eps, queries in SQUARE:
        ours, theirs = [], []
        for seed in SEEDS:
            ours.append(left(torch.from_numpy(Square(eps, queries, seed=seed)(answers, x.numpy(), y.numpy()).images)))
            square = SquareAttack(
                model, norm="Linf", eps=eps, n_queries=queries, seed=seed, resc_schedule=True, device="cpu"
            )
            theirs.append(left(square.perturb(x, y)))
        note("Square", eps, f"{queries} queries", ours, theirs)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, json.dumps({"machine": machine(), "images": len(x), "rows": rows}, indent=1) + "\n")
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()

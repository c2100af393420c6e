"""Certificates: which plans have one, what it proves for an image, and votes that stop when the answer is settled."""

from __future__ import annotations

import numpy as np

import edgepure


def main() -> None:
    demo = edgepure.demo_images()
    images = (np.rint(demo.clean[:4].astype(np.float64) * 255.0) / 255.0).astype(np.float32)  # 8 bits: exact noise
    smooth = {"method": {"method": "smooth", "sigma": 0.25}}
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=64) as purifier:
        for name in ("uniform", "heterogeneous"):
            try:
                print(f"{name}: sigma {purifier.planner.certified_sigma(purifier.preset(name)):.3f}")
            except edgepure.ConfigError as error:
                print(f"{name}: {str(error).split(' (')[0]}")

        for found, label in zip(purifier.certify(images, smooth, n=300, n0=20, noise=1), demo.labels, strict=False):
            print(f"digit {label}: answered {found.class_name}, {found.count} of {found.samples} answers, ", end="")
            print(f"the same within L2 {found.radius:.3f}, exact: {found.exact}")

        settled = {**smooth, "votes": {"sequential": {"alpha": 0.05, "max": 20}}}
        votes = [len(result.vote_labels) for result in purifier.classify(images, settled, noise=1)]
        print(f"votes until settled: {votes}, instead of 20 each")


if __name__ == "__main__":
    main()

"""Certificates: which plans have one, what it proves for an image, and counting that stops when it is settled."""

from __future__ import annotations

import numpy as np

import edgepure

SMOOTH = {"method": {"method": "smooth", "sigma": 0.25}}
SPLIT = {"method": {"method": "split", "sigma": 0.25}, "mask": {"area": 0.5}}
CASCADE = {
    "method": {"method": "smooth", "sigma": 0.5},
    "cascade": {"then": [{"method": "smooth", "sigma": 0.25}], "share": 0.6},
    "votes": {"sequential": {"alpha": 0.05, "max": 200}},
}


def main() -> None:
    demo = edgepure.demo_images()
    images = (np.rint(demo.clean[:4].astype(np.float64) * 255.0) / 255.0).astype(np.float32)  # 8 bits: exact noise
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=64) as purifier:
        for name in ("uniform", "heterogeneous", SPLIT):
            preset = purifier.preset(name)
            try:
                print(f"{preset.method.method}: sigma {purifier.planner.certified_sigma(preset):.3f}")
            except edgepure.ConfigError as error:
                print(f"{preset.method.method}: {str(error).split(' (')[0]}")

        for found, label in zip(purifier.certify(images, SMOOTH, n=300, n0=20, noise=1), demo.labels, strict=False):
            print(f"digit {label}: answered {found.class_name}, {found.count} of {found.samples} answers, ", end="")
            print(f"the same within L2 {found.radius:.3f}, exact: {found.exact}")

        asked = purifier.certify(images, SMOOTH, n=10_000, radius=0.25, noise=1)
        print(f"answers until 0.25 was settled: {[found.answers for found in asked]}")

        for name, preset in (("split", SPLIT), ("cascade", CASCADE)):
            radii = [f"{found.radius:.3f}" for found in purifier.certify(images, preset, n=300, n0=20, noise=1)]
            print(f"{name}: the same within L2 {', '.join(radii)}")

        settled = {**SMOOTH, "votes": {"sequential": {"alpha": 0.05, "max": 20}}}
        votes = [len(result.vote_labels) for result in purifier.classify(images, settled, noise=1)]
        print(f"votes until settled: {votes}, instead of 20 each")


if __name__ == "__main__":
    main()

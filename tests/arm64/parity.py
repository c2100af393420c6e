"""Seeded purifications of the digits, made on one machine and compared on another.

python parity.py make FILE.npz [--bundle DIR --precision int8]     what this machine makes of them
python parity.py compare ONE.npz OTHER.npz                         how far two machines lie apart; fails where they do
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

import numpy as np

import edgepure
from edgepure.demo import demo_images
from edgepure.rows.philox import Stream, normals, philox4x32

IMAGES = 16  # clean, and as many attacked
PRESETS = ("uniform", "heterogeneous", "heterogeneous-ssni")
SEED = 7
#: Of the normals as `edgepure.rows.philox` promises it; of a purified image in [0, 1], as wide as the tests of the
#: engines.
NORMALS, PIXELS = 1e-6, 1e-4


def make(file: Path, bundle: Path, precision: str) -> None:
    """Purify, and write everything down."""
    digits = demo_images()
    images = np.concatenate([digits.clean[:IMAGES], digits.adversarial[:IMAGES]])
    counters = np.random.default_rng(1).integers(0, 2**32, (4, 50_000), dtype=np.uint64)
    found = {
        "integers": philox4x32(counters, (0xDEADBEEF, 0x12345678)),
        "normals": normals(2**63 + 12345, 3, Stream.ROW, 2, range(40), 3072),
    }
    with edgepure.load(bundle, precision=precision, threads=1) as purifier:
        for preset in PRESETS:
            results = purifier.purify(images, preset, noise=SEED)
            found[f"{preset}: images"] = np.stack([result.image for result in results])
            found[f"{preset}: labels"] = np.array([result.label for result in results])
            print(f"{platform.machine()}: {preset}, {precision}", flush=True)
    np.savez(file, **found)


def compare(one: Path, other: Path, pixels: float) -> bool:
    """Print how far they lie apart. True if nowhere further than allowed."""
    good = True
    with np.load(one) as ours, np.load(other) as theirs:
        for name in ours.files:
            a, b = ours[name], theirs[name]
            if a.dtype.kind in "iu":
                print(f"{name}: {int((a == b).sum())} of {a.size} equal")
                good &= bool((a == b).all())
            else:
                furthest = float(np.abs(a - b).max())
                print(f"{name}: largest difference {furthest:.2g}")
                good &= furthest <= (NORMALS if name == "normals" else pixels)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("make", "compare"))
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--bundle", type=Path, default=edgepure.demo_bundle())
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--pixels", type=float, default=PIXELS, help="largest difference of a pixel")
    given = parser.parse_args()
    if given.what == "make":
        make(given.files[0], given.bundle, given.precision)
        return 0
    return 0 if compare(*given.files, given.pixels) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What the package brings along: the digits bundle, and test digits with the attacks that were made on them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError

DATA = Path(__file__).resolve().parent / "data"


@dataclass(frozen=True)
class DemoImages:
    """Held-back test digits and their adversarial versions.

    Attributes:
        clean: ``[N, 1, 16, 16]`` float32 in [0, 1].
        adversarial: the same images attacked, same shape and range.
        labels: ``[N]`` int64, the true digits.
        protocol: how the attack was made: attack, norm, eps, steps, step_size, gradient, target, seed; and how the
            images were drawn from the test set.
    """

    clean: NDArray[np.float32]
    adversarial: NDArray[np.float32]
    labels: NDArray[np.int64]
    protocol: dict[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def demo_bundle() -> Path:
    """The folder of the digits bundle that comes with the package (open it with `edgepure.load`).

    Raises:
        BundleError: the installation lacks its data files.
    """
    return _present(DATA / "digits")


def demo_images() -> DemoImages:
    """The test digits that come with the package.

    Raises:
        BundleError: the installation lacks its data files, or they are damaged.
    """
    path = _present(DATA / "digits_images.npz")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return DemoImages(
                clean=arrays["clean"],
                adversarial=arrays["adversarial"],
                labels=arrays["labels"],
                protocol=json.loads(str(arrays["protocol"])),
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise BundleError(
            f"the demo images {path} cannot be read ({error}); install edgepure again", code="E-demo-data"
        ) from None


def _present(path: Path) -> Path:
    if not path.exists():
        raise BundleError(
            f"{path} is missing: this installation of edgepure has no demo data; install it again from a wheel, or in "
            "a source checkout make the data with `python samples/digits/build_bundle.py`",
            code="E-demo-data",
        )
    return path

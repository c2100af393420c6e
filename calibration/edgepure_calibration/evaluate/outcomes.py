"""Which images were decided right: what a comparison of two presets, precisions or bundles needs, image by image.

They lie in the bundle beside its card, and in a file if one is asked for (``.npz``, nothing pickled): ``images`` holds
the digest of each image, ``labels`` the truth, and ``right`` the outcomes, one row for each entry of ``lines``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepure.errors import ConfigError, words_of
from edgepure.files.atomic import write_npz
from edgepure.files.npz import ArrayError, read_all

if TYPE_CHECKING:
    from .results import Evaluated

#: Where they lie in a bundle.
OUTCOMES_FILE = "robustness/outcomes.npz"
FORMAT = 1


@dataclass(frozen=True)
class Outcomes:
    """Outcomes by preset, attack and decision rule.

    Attributes:
        bundle, engine: what was evaluated, and on what.
        images: digest of each image, ``[N]``.
        labels: the truth, ``[N]``.
        right: (preset, attack, rule) to which images ``[N]`` were decided right, by the first seed.
        protocols: (preset, attack, rule) to the protocol in one line.
        attacked: (preset, attack) to the attacked images ``[N, C, H, W]``, where they were kept.
    """

    bundle: str
    engine: str
    images: tuple[str, ...]
    labels: NDArray[np.int64]
    right: Mapping[tuple[str, str, str], NDArray[np.bool_]]
    protocols: Mapping[tuple[str, str, str], str]
    attacked: Mapping[tuple[str, str], NDArray[np.float32]]

    @property
    def presets(self) -> tuple[str, ...]:
        """Their names, in order."""
        return tuple(dict.fromkeys(preset for preset, _, _ in self.right))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """As arrays for an ``.npz``."""
        about = {
            "format": FORMAT,
            "bundle": self.bundle,
            "engine": self.engine,
            "lines": [[*line, self.protocols[line]] for line in self.right],
            "attacked": [list(line) for line in self.attacked],
        }
        arrays: dict[str, NDArray[Any]] = {
            "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
            "images": np.array([list(bytes.fromhex(digest)) for digest in self.images], np.uint8),
            "labels": self.labels,
            "right": np.stack(list(self.right.values())),
        }
        for number, images in enumerate(self.attacked.values()):
            arrays[f"attacked/{number}"] = images
        return arrays


def outcomes_of(found: Evaluated, *, with_images: bool = False) -> Outcomes:
    """The outcomes of an evaluation. ``with_images``: and the attacked images."""
    right: dict[tuple[str, str, str], NDArray[np.bool_]] = {}
    protocols: dict[tuple[str, str, str], str] = {}
    attacked: dict[tuple[str, str], NDArray[np.float32]] = {}
    for preset in (*found.presets, *found.baselines):
        for attack in (preset.clean, *preset.attacks):
            for accuracy, hits in zip(attack.accuracies, attack.right, strict=True):
                line = preset.name, attack.protocol.title, str(accuracy.rule)
                right[line], protocols[line] = hits, attack.protocol.sentence()
            if with_images and len(attack.images):
                attacked[preset.name, attack.protocol.title] = attack.images
    digests = tuple(hashlib.sha256(image.tobytes()).hexdigest()[:32] for image in found.images)
    return Outcomes(found.bundle, str(found.facts["engine"]), digests, found.labels, right, protocols, attacked)


def write_outcomes(path: str | PathLike[str], outcomes: Outcomes) -> None:
    """Write the file, whole or not at all."""
    write_npz(path, outcomes.to_arrays())


def read_outcomes(path: str | PathLike[str]) -> Outcomes:
    """Of a file, or of a bundle that was evaluated.

    Raises:
        ConfigError: there are none, or they cannot be read.
    """
    place = Path(path)
    file = place / OUTCOMES_FILE if place.is_dir() else place
    if not file.is_file():
        raise ConfigError(
            f"there are no outcomes at {file}; `edgepure evaluate` puts them into the bundle beside the card, and into "
            "a file with --outcomes",
            code="E-outcomes",
        )
    try:
        arrays = read_all(file)
        about = json.loads(arrays["about"].tobytes())
        lines = [tuple(line) for line in about["lines"]]
        right = {line[:3]: np.asarray(row, bool) for line, row in zip(lines, arrays["right"], strict=True)}
        return Outcomes(
            bundle=str(about["bundle"]),
            engine=str(about["engine"]),
            images=tuple(bytes(row).hex() for row in arrays["images"].astype(np.uint8)),
            labels=arrays["labels"].astype(np.int64),
            right=right,
            protocols={line[:3]: line[3] for line in lines},
            attacked={tuple(line): arrays[f"attacked/{n}"] for n, line in enumerate(about["attacked"])},
        )
    except (ArrayError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{file} holds no outcomes of `edgepure evaluate` ({words_of(error)}); evaluate again", code="E-outcomes"
        ) from error

"""The images of a calibration, and what makes them unfit for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgepure import Purifier
from edgepure.bundle.calibration import DataRecord
from edgepure.bundle.manifest import Manifest
from edgepure.errors import ConfigError, ImageError
from edgepure.images.dataset import LabelledImages, load_labelled
from edgepure.images.load import Resize
from edgepure.images.tiles import Tiling

from ..data_checks import check_attacks, check_images, check_labels

#: Fewer clean images say nothing of the edges of their distribution.
FEWEST_CLEAN = 50
FEWEST_ATTACKED = 20
#: Attacked images without labels must change this share of the plain classifier's answers.
FEWEST_CHANGED = 0.2


@dataclass(frozen=True)
class CalibrationData:
    """Checked images in random order, so that the first of them are a fair sample; ``attacked`` is None without any."""

    clean: LabelledImages
    attacked: LabelledImages | None
    clean_record: DataRecord
    attacked_record: DataRecord | None


def load_data(
    purifier: Purifier,
    clean: str | Path | LabelledImages,
    attacked: str | Path | LabelledImages | None,
    *,
    limit: int,
    seed: int,
) -> CalibrationData:
    """Read, check and (beyond ``limit`` images) draw the data.

    Raises:
        ImageError, ConfigError: the images are unfit; the sentence says why. Attacked ones need a classifier.
    """
    found = _load(purifier, clean)
    _check(found, "the clean images", FEWEST_CLEAN)
    other = None if attacked is None else _load(purifier, attacked)
    if other is not None:
        purifier.bundle.manifest.require_classifier("a calibration with attacked images")
        _check(other, "the attacked images", FEWEST_ATTACKED)
        plain, answers = (purifier.logits(part.images).argmax(axis=1) for part in (found, other))
        _check_attacked(purifier, found, other, plain, answers)
    clean_record, used = _record(purifier, _drawn(found, limit, seed))
    attacked_record, used_attacks = (None, None) if other is None else _record(purifier, _drawn(other, limit, seed))
    return CalibrationData(used, used_attacks, clean_record, attacked_record)


def read_images(data: str | Path, manifest: Manifest, resize: Resize = False) -> LabelledImages:
    """Images of the network's size; of a bundle whose task takes frames, also frames of its size, in tiles.

    Raises:
        ImageError, ConfigError: as `load_labelled`.
    """
    if not manifest.framed:
        return load_labelled(data, manifest.image, manifest.classes, resize=resize)
    try:
        return load_labelled(data, manifest.image, ())
    except ImageError:
        return _tiles(load_labelled(data, manifest.task_image, (), resize=resize), manifest)


def _tiles(frames: LabelledImages, manifest: Manifest) -> LabelledImages:
    """The tiles that the default preset cuts of frames, but for those of one constant colour."""
    overlap = manifest.preset(manifest.default_preset).tiles.overlap
    tiling = Tiling(manifest.task_image.shape[1:], manifest.image.shape[1:], overlap)
    found = [
        (tiling.cut(frame, i), f"{name}, tile {i}")
        for frame, name in zip(frames.images, frames.names, strict=True)
        for i in range(len(tiling))
        if np.ptp(tiling.cut(frame, i)) > 0.0
    ]
    if not found:
        raise ImageError("all frames are of one constant colour; give pictures", code="E-data-constant")
    return LabelledImages(np.stack([tile for tile, _ in found]), None, tuple(name for _, name in found))


def _load(purifier: Purifier, data: str | Path | LabelledImages) -> LabelledImages:
    manifest = purifier.bundle.manifest
    if not isinstance(data, LabelledImages):
        return read_images(data, manifest)
    if data.images.shape[1:] != manifest.image.shape:
        raise ImageError(
            f"the images are {list(data.images.shape[1:])} (C, H, W), this bundle takes {list(manifest.image.shape)}; "
            "resize them",
            code="E-data-size",
        )
    return data


def _drawn(data: LabelledImages, limit: int, seed: int) -> LabelledImages:
    some = data if len(data) <= limit else data.take(limit, seed)
    return some.pick(np.random.default_rng(seed).permutation(len(some)))


def _record(purifier: Purifier, data: LabelledImages) -> tuple[DataRecord, LabelledImages]:
    """What is recorded of the images that are used, and these."""
    accuracy = None
    if data.labels is not None and purifier.classes:
        accuracy = round(float((purifier.logits(data.images).argmax(axis=1) == data.labels).mean()), 6)
    return DataRecord(sha256=data.sha256, images=len(data), accuracy=accuracy), data


def _check(data: LabelledImages, what: str, fewest: int) -> None:
    check_images(data, what, fewest)
    flat = data.images.reshape(len(data), -1)
    constant = np.flatnonzero(np.ptp(flat, axis=1) == 0.0)
    if len(constant):
        raise ImageError(
            f"{what}: {len(constant)} of {len(data)} are one constant colour (the first is {data.names[constant[0]]}), "
            "which would shift the statistics; remove them",
            code="E-data-constant",
        )
    if data.labels is not None:
        check_labels(data, what)


def _check_attacked(
    purifier: Purifier,
    clean: LabelledImages,
    attacked: LabelledImages,
    plain: NDArray[np.int64],
    answers: NDArray[np.int64],
) -> None:
    known = {image.tobytes() for image in clean.images}
    same = sum(image.tobytes() in known for image in attacked.images)
    if same == len(attacked):
        raise ConfigError(
            "the attacked images are the clean ones: every one of them is also among the clean images; give images "
            "that were attacked, or leave them out",
            code="E-attacked-clean",
        )
    if clean.labels is not None and attacked.labels is not None:
        check_attacks(clean, attacked, purifier.logits, "the attacked images")
    elif len(clean) == len(attacked):
        changed = int((plain != answers).sum())
        if changed < FEWEST_CHANGED * len(attacked):
            raise ConfigError(
                f"the attacked images are no attacks on this bundle's classifier: it answers {len(attacked) - changed} "
                f"of {len(attacked)} as their clean versions; give images that were attacked on it",
                code="E-attacked-weak",
            )
    else:
        raise ConfigError(
            f"nothing tells whether the attacked images are attacks: there are {len(clean)} clean and {len(attacked)} "
            "attacked images, not both with labels; give labels, or the attacked version of every clean image in order",
            code="E-attacked-unproven",
        )


def random_signs(images: NDArray[np.float32], eps: float, seed: int) -> NDArray[np.float32]:
    """The images with +eps or -eps in every pixel, clipped to [0, 1]: a stand-in where there are no attacks."""
    signs = np.random.default_rng(seed).integers(0, 2, images.shape, dtype=np.int8) * 2 - 1
    return np.asarray(np.clip(images + np.float32(eps) * signs, 0.0, 1.0), np.float32)

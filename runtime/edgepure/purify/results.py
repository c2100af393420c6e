"""What a purification says about one image, or one frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import NotFiniteError
from ..types import Float32
from ..validation import expect


class _Masked:
    """What has a mask, or none."""

    mask: NDArray[np.bool_] | None

    @property
    def mask_area(self) -> float | None:
        """Share of the pixels inside the mask."""
        return None if self.mask is None else float(self.mask.mean())


@dataclass(frozen=True, eq=False, kw_only=True)
class Purified(_Masked):
    """One image, purified. Equal to itself only; it can be pickled and be a key.

    Attributes:
        name: file name or position of the image.
        levels: noise levels that were used, in timesteps: ``t_star``, or ``t_l`` and ``t_s``.
        score_norm: Euclidean norm of the EPS vector; None without SSNI (and without a monitor that probes).
        p_value: of "this image looks like the clean ones of the calibration" (`edgepure.purify.monitor`); None without
            a score norm, or if its probe was not calibrated. Small means off-distribution: an alarm, not a proof.
        flagged: the monitor's answer; None without a monitor.
        held: score norm, p-value, flag and mask are those of an earlier frame of the track.
        mask: ``[H, W]`` bool, True where the strong noise went; None for presets without a mask.
        mask_area: share of pixels inside the mask; None likewise.
        unet_calls: UNet calls that this decision took, probes and votes included.
        seconds: seconds from entering the engine to the decision, shared calls counted in full; not what the image
            waited before.
        image: ``[C, H, W]`` float32 in [0, 1], the first vote's purified image.
    """

    name: str
    levels: Mapping[str, float]
    unet_calls: int
    seconds: float
    image: NDArray[np.float32] = field(repr=False)
    score_norm: float | None = None
    p_value: float | None = None
    flagged: bool | None = None
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    held: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the images."""
        return {
            "name": self.name,
            **self._answer(),
            "levels": dict(self.levels),
            "score_norm": self.score_norm,
            "p_value": self.p_value,
            "flagged": self.flagged,
            "mask_area": self.mask_area,
            "held": self.held,
            "unet_calls": self.unet_calls,
            "seconds": round(self.seconds, 6),
        }

    def _answer(self) -> dict[str, Any]:
        """What was made of the purified image, as plain data."""
        return {}


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(Purified):
    """One image, purified and classified.

    Attributes:
        label: index of the class that was decided.
        class_name: its name.
        probabilities: ``[N]`` float32, mean softmax over the votes.
        vote_labels: label of each vote.
        plain_label: what the classifier says of the image without purification; None if that was not computed.
        abstained: True if sequential votes did not settle the answer: then the label is only the one with most votes.
    """

    label: int
    class_name: str
    probabilities: NDArray[np.float32]
    vote_labels: tuple[int, ...]
    plain_label: int | None = None
    abstained: bool = False

    def _answer(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "class_name": self.class_name,
            "probability": round(float(self.probabilities[self.label]), 6),
            "probabilities": [round(float(p), 6) for p in self.probabilities],
            "vote_labels": list(self.vote_labels),
            "plain_label": self.plain_label,
            "abstained": self.abstained,
        }


@dataclass(frozen=True, eq=False)
class FrameResult(_Masked):
    """One purified frame.

    Attributes:
        name: file name or position of the frame.
        image: ``[C, H, W]`` float32 in [0, 1].
        mask: ``[H, W]`` bool, True where the strong noise went; None for methods without a mask.
        levels: noise levels that were used, in timesteps, of the tile with the strongest noise.
        score_norms: of each tile, or one of the frame; None without SSNI.
        held: mask and score norms are those of an earlier frame of the track.
        tiles: tiles below and beside each other.
        unet_calls: rows that were executed, of all tiles and probes: tiles that share a call count one each.
        seconds: from the first call to the last.
    """

    name: str
    image: Float32 = field(repr=False)
    levels: Mapping[str, float]
    tiles: tuple[int, int]
    unet_calls: int
    seconds: float
    mask: NDArray[np.bool_] | None = field(default=None, repr=False)
    score_norms: tuple[float, ...] | None = field(default=None, repr=False)
    held: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the images."""
        return {
            "name": self.name,
            "height": self.image.shape[1],
            "width": self.image.shape[2],
            "tiles": list(self.tiles),
            "levels": dict(self.levels),
            "score_norms": None if self.score_norms is None else [round(n, 6) for n in self.score_norms],
            "mask_area": self.mask_area,
            "held": self.held,
            "unet_calls": self.unet_calls,
            "seconds": round(self.seconds, 6),
        }


@dataclass(frozen=True)
class Failure:
    """An input that could not be read; the others were done."""

    name: str
    reason: str


#: What there is of each image: a `Purified`, or a `Result`, which is one with a label.
P = TypeVar("P", bound=Purified)


class Results(list[P], Generic[P]):
    """The results in the order of the inputs.

    Attributes:
        failures: the inputs that could not be used, in their order; only with ``on_error="collect"``.
    """

    def __init__(self, results: Iterable[P] = (), failures: Iterable[Failure] = ()) -> None:
        expect(results=(results, Iterable), failures=(failures, Iterable))
        super().__init__(results)
        self.failures: tuple[Failure, ...] = tuple(failures)


def decide(logits: NDArray[np.float32], rule: str) -> tuple[int, NDArray[np.float32], tuple[int, ...]]:
    """Combine the votes of one image: label, mean softmax ``[N]``, label of each vote.

    ``logits``: ``[votes, N]``. ``majority``: the label with most votes, ties broken by the higher mean probability.
    ``mean``: the highest mean probability.

    Raises:
        NotFiniteError: the logits of a vote are NaN or infinite.
    """
    if not np.isfinite(logits.max(axis=1)).all():
        raise NotFiniteError(
            "the classifier gave NaN or infinite logits, which name no class", code="E-not-finite-logits"
        )
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exp = np.exp(shifted)
    mean = (exp / exp.sum(axis=1, keepdims=True)).mean(axis=0)
    labels = tuple(int(n) for n in logits.argmax(axis=1))
    if rule == "majority":
        counts = np.bincount(labels, minlength=logits.shape[1])
        label = int(np.lexsort((-mean, -counts))[0])
    else:
        label = int(mean.argmax())
    return label, mean.astype(np.float32), labels

"""By what a variant is judged: the answers that its purifications lead to, beside those of fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from edgepure.images.dataset import LabelledImages
from edgepure.methods.presets import Preset
from edgepure.purify.purifier import Purifier
from edgepure.types import Float32, Progress

from ..truth.data import Truth
from .verdict import Changes, Check, Limits

#: Arrays by name, ``[images, noises, ...]``: one answer of every single purification, not of the vote.
Answers = dict[str, NDArray[Any]]
#: Images to judge with: with the class of each, with the truth of a task, or with neither.
Data = LabelledImages | Truth
D = TypeVar("D", bound=Data)


class Judge(Generic[D]):
    """Takes answers, and compares them.

    Args:
        data: images by ``clean`` and ``attacked``.
    """

    def __init__(self, data: Mapping[str, D]) -> None:
        self.data = dict(data)

    def answers(
        self,
        purifier: Purifier,
        images: Float32,
        preset: Preset,
        noises: int,
        seed: int,
        masks: Float32 | None,
        on_progress: Progress | None,
    ) -> Answers:
        """Purify each image with so many noises, and say what is made of it."""
        raise NotImplementedError

    def changes(
        self, mine: Mapping[str, Answers], theirs: Mapping[str, Answers], limits: Limits
    ) -> tuple[Mapping[str, Changes], list[Check]]:
        """What a variant changes, and whether the limits allow it; both by data set. ``theirs``: of fp32 with the same
        noises."""
        raise NotImplementedError

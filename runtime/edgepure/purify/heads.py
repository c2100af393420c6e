"""What is made of purified images: nothing more, or labels by vote. A request is given one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, Generic, TypeVar

import numpy as np

from ..bundle.manifest import Manifest
from ..errors import ConfigError
from ..images.spec import ImageSpec
from ..methods.presets import Preset, VoteSpec
from ..types import Float32
from .graphs import OpenGraphs
from .results import Purified, Result, decide

P = TypeVar("P", bound=Purified)


class Head(Generic[P]):
    """Reads purified images, and settles the answers of the votes of one image."""

    def image(self, manifest: Manifest) -> ImageSpec:
        """Size of the images that it takes; those that are larger than the network's are purified by tiles."""
        return manifest.image

    def check(self, preset: Preset) -> None:
        """Raise ConfigError if this cannot be made of what the preset gives."""

    def read(self, images: Float32) -> Sequence[Any]:
        """An answer to each of the images ``[B, C, H, W]`` in [0, 1]."""
        raise NotImplementedError

    def settle(self, answers: Sequence[Any], votes: VoteSpec, common: Mapping[str, Any], more: Mapping[str, Any]) -> P:
        """The result of an image.

        Args:
            answers: those to its votes, in order.
            votes: how they decide.
            common: the fields of `Purified`.
            more: ``plain_label`` and ``abstained`` of `Result`.
        """
        raise NotImplementedError


class Images(Head[Purified]):
    """The purified images themselves."""

    def check(self, preset: Preset) -> None:
        if preset.votes.count > 1:
            raise ConfigError(
                "votes decide on labels, and here there are only purified images: purify once (votes=1)",
                code="E-config-votes",
            )

    def read(self, images: Float32) -> Sequence[Any]:
        return [None] * len(images)

    def settle(
        self, answers: Sequence[Any], votes: VoteSpec, common: Mapping[str, Any], more: Mapping[str, Any]
    ) -> Purified:
        return Purified(**common)


class Labels(Head[Result]):
    """Labels by the bundle's classifier.

    Raises:
        ConfigError: it has none.
    """

    def __init__(self, graphs: OpenGraphs) -> None:
        graphs.bundle.manifest.require_classifier("a label")
        self._graphs = graphs

    def read(self, images: Float32) -> Sequence[Float32]:
        """Logits, ``[N]`` of each."""
        return list(self._graphs.logits(images))

    def settle(
        self, answers: Sequence[Float32], votes: VoteSpec, common: Mapping[str, Any], more: Mapping[str, Any]
    ) -> Result:
        label, probabilities, vote_labels = decide(np.stack(answers), votes.rule)
        names = self._graphs.classes
        return Result(
            label=label,
            class_name=names[label],
            probabilities=probabilities,
            vote_labels=vote_labels,
            **common,
            **more,
        )


def as_they_are(head: Head[P], images: Float32, names: Sequence[str], preset: Preset) -> list[P]:
    """What a head says of images ``[B, C, H, W]`` in [0, 1] that nobody purified."""
    start, found = perf_counter(), []
    answers = head.read(images)
    seconds = (perf_counter() - start) / max(len(images), 1)
    for name, image, answer in zip(names, images, answers, strict=True):
        common = {"name": name, "levels": {}, "unet_calls": 0, "seconds": seconds, "image": image}
        found.append(head.settle([answer], preset.votes, common, {}))
    return found

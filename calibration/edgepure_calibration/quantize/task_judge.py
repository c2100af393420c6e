"""Judging a variant by the answers of a task: how far they agree with those of fp32, beside how far two noises agree,
and how much is lost of what is counted against the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.bundle.task import TaskEntry
from edgepure.methods.presets import Preset, VoteSpec
from edgepure.parity.tasks import TERMS, agreement_of
from edgepure.purify.boxes import Boxes
from edgepure.purify.purifier import Purifier
from edgepure.purify.results import Purified
from edgepure.purify.tasks import Detection, Embedding, Segmentation, Task
from edgepure.types import Float32, Progress

from ..bounds import Metric, mean_high, metric_high
from ..truth.data import Truth
from ..truth.metrics import NAMES, Gallery, iou_of, lost, metric_of
from .judge import Answers, Data, Judge
from .labels import beyond, loss_check
from .verdict import Agreed, Check, Limits, check

#: Answers to the same images, for each noise two of them.
_Pairs = Sequence[tuple[list[Any], list[Any]]]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Every(Purified):
    """The answer of every single vote."""

    answers: tuple[Purified, ...]


class _Votes(Task):
    """Settles nothing: each vote keeps its answer."""

    def settle(
        self,
        answers: Sequence[dict[str, Float32]],
        votes: VoteSpec,
        common: Mapping[str, Any],
        more: Mapping[str, Any],
    ) -> _Every:
        settled = super().settle
        return _Every(answers=tuple(settled([one], votes, common, more) for one in answers), **common)


class TaskJudge(Judge[Data]):
    """By what the task answers.

    Args:
        data: images by ``clean`` and ``attacked``, with their truth where it is known.
        purifier: the fp32 bundle. Vectors are searched for among those of its clean, unpurified images.
    """

    def __init__(self, data: Mapping[str, Data], purifier: Purifier) -> None:
        super().__init__(data)
        self._task: TaskEntry = purifier.bundle.manifest.require_task()
        self._purifier, self._searched = purifier, None if self._task.kind != "embedding" else next(iter(data.values()))
        self._vectors: Float32 | None = None

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
        head, chosen = _Votes(purifier.graphs), purifier.preset(preset, noises)
        found = purifier.run_head(head, images, chosen, noise=seed, masks=masks, on_progress=on_progress)
        table = [[self._arrays(answer) for answer in every.answers] for every in found if isinstance(every, _Every)]
        return {name: np.array([[one[name] for one in row] for row in table]) for name in table[0][0]}

    def changes(
        self, mine: Mapping[str, Answers], theirs: Mapping[str, Answers], limits: Limits
    ) -> tuple[dict[str, Agreed], list[Check]]:
        found = {part: self._agreed(part, mine[part], theirs[part]) for part in self.data}
        return found, agreement_checks(found, limits)

    def _arrays(self, answer: Purified) -> dict[str, Any]:
        """An answer in arrays of a size that does not depend on it."""
        if isinstance(answer, Segmentation):
            return {"label_map": answer.label_map.astype(np.int16)}
        if isinstance(answer, Embedding):
            return {"vector": answer.vector}
        assert isinstance(answer, Detection)
        table = np.full((self._task.most, 6), -1.0, np.float32)
        table[: len(answer.labels)] = np.column_stack([answer.boxes, answer.scores, answer.labels])
        return {"boxes": table}

    def _answer(self, arrays: Answers, image: int, noise: int) -> Any:
        """What `_arrays` was made of: a label map, boxes, or a vector."""
        if self._task.kind == "segmentation":
            return arrays["label_map"][image, noise]
        if self._task.kind == "embedding":
            return arrays["vector"][image, noise]
        table = arrays["boxes"][image, noise]
        table = table[table[:, 5] >= 0.0]
        return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))

    def _agreed(self, part: str, mine: Answers, theirs: Answers) -> Agreed:
        data, noises = self.data[part], len(next(iter(mine.values()))[0])
        variant, fp32 = ([self._noise(arrays, j, len(data)) for j in range(noises)] for arrays in (mine, theirs))
        pairs = list(zip(variant, fp32, strict=True)), [(fp32[j], fp32[j - 1]) for j in range(noises)]
        loss, redrawn, high, beyond_high = self._losses(*pairs)
        counted: dict[str, Any] = {}
        if isinstance(data, Truth):
            before, after = ([self._metric(part, data, one) for one in answers] for answers in (fp32, variant))
            counted["metric"] = NAMES[self._task.kind]
            counted["value_fp32"], counted["value"], counted["loss_high"] = lost(before, after, len(data))
        return Agreed(
            images=len(data),
            answers=len(data) * noises,
            term=TERMS[self._task.kind],
            agreement=1.0 - loss,
            high=high,
            redrawn=redrawn,
            beyond_high=beyond_high,
            **counted,
        )

    def _noise(self, arrays: Answers, noise: int, images: int) -> list[Any]:
        """The answers to all images with one noise."""
        return [self._answer(arrays, i, noise) for i in range(images)]

    def _losses(self, variant: _Pairs, redraws: _Pairs) -> tuple[float, float, float, float]:
        """Means of 1 - agreement in [0, 1] of answers to the same images, for each noise a pair: of the variant and of
        new noise; the upper bounds of the first, and of the first minus the second.

        Of label maps it is that of all images together, as mIoU is counted: of one image, a single pixel of a rare
        class would weigh as much as all others.
        """
        if self._task.kind == "segmentation":
            mine, theirs = self._union(variant), self._union(redraws)
            count = len(variant[0][0])
            means = [metric(np.ones(count)) for metric in (mine, theirs)]
            highs = [metric_high(m, count) for m in (mine, lambda weights: mine(weights) - theirs(weights))]
            return means[0], means[1], highs[0], highs[1]
        one, other = self._each(variant), self._each(redraws)
        return float(one.mean()), float(other.mean()), mean_high(one), mean_high(one.mean(axis=1) - other.mean(axis=1))

    def _union(self, pairs: _Pairs) -> Metric:
        found = [iou_of(np.stack(a), np.stack(b), len(self._task.classes)) for a, b in pairs]
        return lambda weights: 1.0 - float(np.mean([metric(weights) for metric in found]))

    def _each(self, pairs: _Pairs) -> NDArray[np.float64]:
        """``[images, noises]``."""
        apart = [[self._apart(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
        found: NDArray[np.float64] = np.array(apart, np.float64).T
        return found

    def _apart(self, first: Any, second: Any) -> float:
        """1 - agreement; vectors that point away from each other have lost everything."""
        return float(np.clip(1.0 - agreement_of(self._task, first, second), 0.0, 1.0))

    def _metric(self, part: str, truth: Truth, answers: Sequence[Any]) -> Metric:
        return metric_of(self._task, truth, answers, self._gallery(part))

    def _gallery(self, part: str) -> Gallery | None:
        searched = self._searched
        if not isinstance(searched, Truth):
            return None
        if self._vectors is None:
            self._vectors = np.stack([a.vector for a in self._purifier.predict(searched.images, purify=False)])
        return Gallery(self._vectors, searched.labels, same=self.data[part] is searched)


def agreement_checks(found: Mapping[str, Agreed], limits: Limits) -> list[Check]:
    """The gate in a task's terms: how far answers change, and how much of the metric is lost, by data set."""
    checks = []
    for part, a in found.items():
        words = (
            f"its answers on {part} images agree with those of fp32 to {100 * a.agreement:.2f} % ({a.term}), those "
            f"with new noise to {100 - 100 * a.redrawn:.2f} % ({beyond(a.beyond_high)} is lost than by that with 95 % "
            f"confidence, by {a.images} images); {100 * limits.flips:g} points more are allowed"
        )
        checks.append(check(f"1 - {a.term}, {part}", a.beyond_high, limits.flips, words))
    for part, a in found.items():
        if a.metric is None or a.value is None or a.value_fp32 is None or a.loss_high is None:
            continue
        checks.append(loss_check(a.metric, part, a.value_fp32, a.value, a.loss_high, a.images, limits))
    return checks

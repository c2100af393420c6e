"""How far a deployed graph may be from its reference: one table, by graph and precision. docs/parity.md derives it.

A tensor passes if both hold: its largest absolute difference is at most ``max_abs`` times max(1, largest absolute
reference value), which finds one bad pixel, and the relative L2 norm of the difference is at most ``relative_l2``,
which finds a small difference of everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from ..errors import ConfigError


@dataclass(frozen=True)
class Tolerance:
    """Bounds of one tensor; see the module's text."""

    max_abs: float
    relative_l2: float

    def times(self, factor: float) -> Tolerance:
        """Both bounds times a factor."""
        return Tolerance(factor * self.max_abs, factor * self.relative_l2)


#: A network's output. ``relative_l2`` is 2^-24, 2^-11 or 2^-8 (half a unit in the last place of fp32, fp16, bf16), or
#: the step of an 8-bit format over sqrt(12), times what a hundred layers add up to. ``max_abs`` is twice that.
_FP32, _FP16, _BF16 = Tolerance(2e-4, 1e-4), Tolerance(2e-2, 1e-2), Tolerance(1.6e-1, 8e-2)
_INT8, _FP8 = Tolerance(5e-1, 2.5e-1), Tolerance(6e-1, 3e-1)

#: precision -> graph -> tolerance. The mask graph squares its activations, which doubles a relative error.
GRAPHS: dict[str, dict[str, Tolerance]] = {
    precision: {
        "classifier": network,
        "mask": network.times(2.0),
        "step": network,
        "step_learned": network,
        "step_any": network,
        "task": network,
        "unet": network,
    }
    for precision, network in {"fp32": _FP32, "fp16": _FP16, "bf16": _BF16, "int8": _INT8, "fp8": _FP8}.items()
}

#: Share of the pixels of a mask that may differ: those whose attention lies within rounding of the cut.
MASK_PIXELS = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.1, "int8": 0.1, "fp8": 0.1}

#: Share of the images for which SSNI may choose another plan: those whose score norm lies within rounding of the border
#: of two noise levels. As with `FLIPS`, more counts as failed once the data show it. From bf16 on: any image.
PLANS = {"fp32": 0.01, "fp16": 0.1, "bf16": 1.0, "int8": 1.0, "fp8": 1.0}

#: Share of the decisions that may flip beyond redraws and ties. More counts as failed once the data show it
#: (`DECISION_CONFIDENCE`): one of two images is no proof, two of two are.
FLIPS = {"fp32": 0.0, "fp16": 0.005, "bf16": 0.01, "int8": 0.02, "fp8": 0.02}
#: Two-sided confidence of all intervals of decisions.
DECISION_CONFIDENCE = 0.95

#: The mean of 1 - agreement that a task may have (`edgepure.parity.tasks`): the shares of a few boxes and pixels at the
#: border of two answers.
TASK_LOSS = {"fp32": 0.005, "fp16": 0.02, "bf16": 0.05, "int8": 0.1, "fp8": 0.1}
#: A detection whose score is this close to the threshold may be there or not.
SCORE_ROUNDING = {"fp32": 1e-3, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.1, "fp8": 0.1}

#: A classifier turns a difference of its image into a larger one of its logits.
LOGITS_OVER_IMAGE = 10.0
#: Two fp32 engines may disagree on an image whose two highest logits are closer than this, times max(1, largest logit).
TIE = 10.0 * _FP32.max_abs


def graph_tolerance(graph: str, precision: str) -> Tolerance:
    """Of one output of a graph whose heavy arithmetic is in ``precision``.

    Raises:
        ConfigError: unknown graph or precision.
    """
    try:
        return GRAPHS[precision][graph]
    except KeyError:
        raise ConfigError(
            f"there is no tolerance for the graph {graph!r} in {precision!r}; give one of your own", code="E-tolerance"
        ) from None


def row_tolerance(precision: str, row: int) -> Tolerance:
    """Of the state (model range) after row ``row`` = 0, 1, ... Rounding errors of different rows are independent, and a
    reverse step hardly enlarges what came before: so they grow as the square root of the number of rows."""
    return graph_tolerance("step", precision).times(sqrt(row + 1))


def image_tolerance(precision: str, rows: int) -> Tolerance:
    """Of a purified image in [0, 1] after ``rows`` rows; its range is half of the model's. ``relative_l2`` is that of
    the image in model range."""
    last = row_tolerance(precision, max(rows - 1, 0))
    return Tolerance(last.max_abs / 2.0, last.relative_l2)


def loosest(precisions: Iterable[str]) -> str:
    """The precision of those with the widest tolerance: what a pipeline of several graphs is as good as."""
    return max(precisions, key=lambda p: graph_tolerance("step", p).relative_l2)

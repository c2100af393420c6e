"""What a client may have of an answer, whichever protocol it speaks: one row an output, by what the bundle is for.

Shapes are those of one image; images are stacked before them. Detections of the images of a request differ in number:
they are padded to the largest, and ``count`` says how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bundle.manifest import Manifest
from ..bundle.task import TASK_KINDS
from ..purify.results import Purified
from .protocol import Tensor


@dataclass(frozen=True)
class Output:
    """One output.

    Attributes:
        name, datatype: in the protocol's words.
        shape: of one image; -1 is any length.
        make: the tensor of all images of a request.
        shown: what the owner has to show for it; empty: it is the answer itself.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    make: Callable[[Sequence[Any]], Tensor]
    shown: str = ""


def outputs_of(manifest: Manifest, show: frozenset[str], *, abstains: bool) -> list[Output]:
    """What there is of a bundle. ``abstains``: votes may end without an answer."""
    kind = "classification" if manifest.classes else manifest.require_task().kind
    image, task = manifest.task_image, manifest.task
    rows = _answers(kind, len(manifest.classes if task is None else task.classes), image.height, image.width)
    if abstains:
        rows.append(Output("abstained", "BOOL", (), lambda r: np.array([one.abstained for one in r])))
    rows += [
        *_sure(kind, len(manifest.classes), image.height, image.width),
        Output("flagged", "BOOL", (), lambda r: np.array([bool(one.flagged) for one in r]), "flags"),
        Output("score_norm", "FP64", (), _norms, "norms"),
        Output("purified", "FP32", image.shape, lambda r: np.stack([one.image for one in r]), "purified"),
    ]
    return [row for row in rows if not row.shown or row.shown in show]


def output_names(show: frozenset[str]) -> list[str]:
    """Of bundles of any kind."""
    rows = [
        row for kind in ("classification", *TASK_KINDS) for row in (*_answers(kind, 2, 1, 1), *_sure(kind, 2, 1, 1))
    ]
    switched = {"flags": "flagged", "norms": "score_norm", "purified": "purified"}
    names = [row.name for row in rows if not row.shown or row.shown in show]
    return [*dict.fromkeys(names), "abstained", *(name for switch, name in switched.items() if switch in show)]


def _answers(kind: str, classes: int, height: int, width: int) -> list[Output]:
    if kind == "classification":
        return [
            Output("label", "INT64", (), lambda r: np.array([one.label for one in r], np.int64)),
            Output("class_name", "BYTES", (), lambda r: [one.class_name.encode() for one in r]),
        ]
    if kind == "segmentation":
        dtype, word = (np.uint8, "UINT8") if classes <= 256 else (np.int64, "INT64")
        return [
            Output("label_map", word, (height, width), lambda r: np.stack([one.label_map for one in r]).astype(dtype))
        ]
    if kind == "embedding":
        return [Output("vector", "FP32", (-1,), lambda r: np.stack([one.vector for one in r]))]
    return [
        Output("count", "INT64", (), lambda r: np.array([len(one.labels) for one in r], np.int64)),
        Output("boxes", "FP32", (-1, 4), lambda r: _padded([one.boxes for one in r], 0.0)),
        Output("labels", "INT64", (-1,), lambda r: _padded([one.labels for one in r], -1)),
    ]


def _sure(kind: str, classes: int, height: int, width: int) -> list[Output]:
    """How sure an answer is: what guides a search."""
    if kind == "classification":
        shape, make = (classes,), lambda r: np.stack([one.probabilities for one in r])
        return [Output("probabilities", "FP32", shape, make, "probabilities")]
    if kind == "segmentation":
        make = lambda r: np.stack([one.confidence for one in r])  # noqa: E731
        return [Output("confidence", "FP32", (height, width), make, "probabilities")]
    if kind == "detection":
        return [Output("scores", "FP32", (-1,), lambda r: _padded([one.scores for one in r], 0.0), "probabilities")]
    return []


def _padded(found: Sequence[Any], rest: float) -> Any:
    """Arrays ``[N_i, ...]`` as one ``[images, max N_i, ...]``, with at least one row: no client has to know of none."""
    most = max(1, *(len(one) for one in found))
    table = np.full((len(found), most, *found[0].shape[1:]), rest, found[0].dtype)
    for row, one in zip(table, found, strict=True):
        row[: len(one)] = one
    return table


def _norms(results: Sequence[Purified]) -> Any:
    return np.array([-1.0 if r.score_norm is None else r.score_norm for r in results], np.float64)

"""What an attack on a task maximises: a differentiable loss of the task's outputs.

Of a segmenter it is the cross-entropy of every pixel with its true class; of an embedding 1 minus the cosine to the
vector of the clean image; of a detector what its scores say of true boxes and of everything else. Which candidates are
to be which boxes, and where, is known to a detector's training alone: its own loss may be given, as a function of the
user's (``python:FILE.py:NAME``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from edgepure.bundle.task import TaskKind
from edgepure.errors import ConfigError, EdgepureError, words_of
from edgepure_export.sources.python import load_named

#: ``loss(outputs, truth)``: both are tensors by name, batch first; a number, or one for each image. Outputs are those
#: of the task graph. Of the truth there are ``labels`` and, of a detector, ``boxes`` (`Truth`), and of an embedding
#: ``vector``, that of the clean image.
Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]

#: Chances are kept this far from 0 and 1, so that their logarithms are finite.
_LEAST = 1e-6


def segmentation_loss(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of the pixels that count."""
    return F.cross_entropy(outputs["logits"], truth["labels"], ignore_index=-1)


def embedding_loss(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """1 minus the cosine to the vector of the clean image, ``[B]``."""
    return 1.0 - F.cosine_similarity(outputs["vector"], truth["vector"], dim=1)


def detection_loss(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """What the scores of a detector are worth, ``[B]``; it takes no training to know.

    Of every true box -log of the chance that any candidate there (of an IoU above one half with it; where there is
    none, the nearest) has its class, if scores were chances: the mean of these. And -log(1 - score) of as many scores
    as there are true boxes, at least one: of the highest of those that are not of this kind.
    """
    boxes, scores, labels = outputs["boxes"], outputs["scores"], truth["labels"]
    there = (labels >= 0).to(scores.dtype)
    shares = _iou(boxes.detach(), truth["boxes"].to(boxes.dtype)) * there[:, None]
    near = (shares > 0.5) | ((shares > 0.0) & (shares == shares.amax(1, keepdim=True)))  # [B, M, T]
    kinds = F.one_hot(labels.clamp(min=0), scores.shape[2]).to(scores.dtype) * there[..., None]  # [B, T, K]
    mine = torch.einsum("bmk,btk->bmt", scores, kinds) * near
    seen = 1.0 - torch.exp(torch.log1p(-mine.clamp(max=1.0 - _LEAST)).sum(1))
    missed = -(seen.clamp(min=_LEAST).log() * there).sum(1) / there.sum(1).clamp(min=1.0)
    right = torch.einsum("bmt,btk->bmk", near.to(scores.dtype), kinds) > 0.0
    wrong = torch.where(right, torch.zeros_like(scores), scores).flatten(1)
    highest = wrong.topk(min(max(labels.shape[1], 1), wrong.shape[1]), dim=1).values
    counted = torch.arange(highest.shape[1], device=scores.device) < there.sum(1, keepdim=True).clamp(min=1.0)
    alarms = -(torch.log1p(-highest.clamp(max=1.0 - _LEAST)) * counted).sum(1) / counted.sum(1)
    return missed + alarms


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes [B, M, 4] and [B, T, 4]: [B, M, T]."""
    low = torch.maximum(first[:, :, None, :2], second[:, None, :, :2])
    high = torch.minimum(first[:, :, None, 2:], second[:, None, :, 2:])
    inside = (high - low).clamp(min=0.0).prod(-1)
    sizes = [(boxes[..., 2:] - boxes[..., :2]).clamp(min=0.0).prod(-1) for boxes in (first, second)]
    return inside / (sizes[0][:, :, None] + sizes[1][:, None] - inside).clamp(min=1e-9)


def default_loss(kind: TaskKind) -> Loss:
    """The loss of a task where none is given."""
    return {"segmentation": segmentation_loss, "detection": detection_loss, "embedding": embedding_loss}[kind]


def load_loss(reference: str) -> Loss:
    """The function behind ``python:FILE.py:NAME`` or ``python:package.module:NAME``. Its module is imported, so its
    code runs.

    Raises:
        ConfigError: nothing there that can be called (``E-task-loss``). ExportError: its code fails.
    """
    scheme, _, place = reference.partition(":")
    found = load_named(place) if scheme == "python" and place else None
    if not callable(found):
        raise ConfigError(
            f"--loss {reference}: expected python:FILE.py:NAME with a function (outputs, truth) -> loss",
            code="E-task-loss",
        )
    loss: Loss = found
    return loss


def per_batch(loss: Loss, outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """The loss of a batch as one number.

    Raises:
        ConfigError: the user's function gives something else, or fails (``E-task-loss``).
    """
    try:
        value: Any = loss(outputs, truth)
    except EdgepureError:
        raise
    except Exception as error:  # any user code
        raise ConfigError(
            f"the loss fails: {type(error).__name__}: {words_of(error)}; it is given the outputs {_named(outputs)} and "
            f"the truth {_named(truth)}",
            code="E-task-loss",
        ) from error
    got = None
    if not isinstance(value, Tensor):
        got = type(value).__name__
    elif value.ndim > 1:
        got = f"a tensor {list(value.shape)}"
    elif not bool(torch.isfinite(value).all()):
        got = "NaN or infinity"
    elif not value.requires_grad:
        got = "a number without a gradient"
    if got is not None:
        raise ConfigError(
            f"the loss gives {got}, expected a finite number, or one for each image, with a gradient to the outputs",
            code="E-task-loss",
        )
    total: Tensor = value.sum()
    return total


def _named(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name!r} {list(value.shape)}" for name, value in tensors.items())

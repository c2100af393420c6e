"""What an attack on a task maximises: a differentiable loss of the task's outputs.

Of a segmenter it is the cross-entropy of every pixel with its true class; of an embedding 1 minus the cosine to the
vector of the clean image. Which candidates of a detector are to be which boxes is known to its training alone: its
loss is given, as a function of the user's (``python:FILE.py:NAME``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from edgepure.bundle.task import TaskKind
from edgepure.errors import ConfigError
from edgepure_export.sources.python import load_named

#: ``loss(outputs, truth)``: both are tensors by name, batch first; a number, or one for each image. Outputs are those
#: of the task graph. Of the truth there are ``labels`` and, of a detector, ``boxes`` (`Truth`), and of an embedding
#: ``vector``, that of the clean image.
Loss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


def segmentation_loss(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """Cross-entropy of the pixels that count."""
    return F.cross_entropy(outputs["logits"], truth["labels"], ignore_index=-1)


def embedding_loss(outputs: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> Tensor:
    """1 minus the cosine to the vector of the clean image, ``[B]``."""
    return 1.0 - F.cosine_similarity(outputs["vector"], truth["vector"], dim=1)


def default_loss(kind: TaskKind) -> Loss:
    """The loss of a task that has one of its own.

    Raises:
        ConfigError: a detector has none (``E-task-loss``).
    """
    if kind == "detection":
        raise ConfigError(
            "a detector has no loss of its own to attack: give the one that it was trained with, a function (outputs, "
            "truth) -> loss (--loss python:FILE.py:NAME)",
            code="E-task-loss",
        )
    return segmentation_loss if kind == "segmentation" else embedding_loss


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
        ConfigError: the user's function gives something else (``E-task-loss``).
    """
    value = loss(outputs, truth)
    if (
        not isinstance(value, Tensor)
        or value.ndim > 1
        or not value.requires_grad
        or not bool(torch.isfinite(value).all())
    ):
        got = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ConfigError(
            f"the loss gives {got}, expected a finite number, or one for each image, with a gradient to the outputs",
            code="E-task-loss",
        )
    return value.sum()

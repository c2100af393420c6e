"""Are these the candidates of a detector, in the form that a bundle asks for?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgepure.errors import ExportError

#: Share of the boxes that may end before they begin; of centres and sizes taken for corners it is most of them.
_INVERTED = 0.25
#: Boxes of an image of more pixels than this on a side, none of which reaches so far, are no boxes in pixels.
_PIXELS = 4.0


def check_detector(outputs: Mapping[str, Tensor], images: Tensor) -> None:
    """Raise ExportError unless a detector gives candidates for images [B, C, H, W]: corners in pixels, and scores."""
    boxes, scores = outputs["boxes"], outputs["scores"]
    if not boxes.shape[1]:
        raise ExportError(
            "the detector gives no candidate for ordinary images, expected a fixed number of them for every image: "
            "leave the suppression to the runtime",
            code="E-task-output",
        )
    if float(scores.min()) < 0.0 or float(scores.max()) > 1.0:
        raise ExportError(
            f"the detector's scores lie in [{float(scores.min()):.3g}, {float(scores.max()):.3g}], expected [0, 1]: "
            "put the sigmoid or softmax into the module",
            code="E-task-output",
        )
    if float(boxes.abs().max()) <= _PIXELS / 2.0 and min(images.shape[2:]) > _PIXELS:
        raise ExportError(
            f"no box of the detector reaches beyond {float(boxes.abs().max()):.3g}: they are relative to the image, or "
            "to its cells; expected left, top, right, bottom in pixels",
            code="E-task-output",
        )
    inverted = float((boxes[..., 2:] < boxes[..., :2]).any(-1).to(torch.float32).mean())
    if inverted > _INVERTED:
        raise ExportError(
            f"{100.0 * inverted:.0f} % of the detector's boxes end before they begin: they are centres or corners with "
            "sizes; expected left, top, right, bottom in pixels (docs/tasks.md shows the conversion)",
            code="E-task-output",
        )

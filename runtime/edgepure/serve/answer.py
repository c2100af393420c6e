"""One infer request, whichever way it came: its images into the slots, and what the owner lets out of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np

from ..errors import OverdueError, RequestError
from ..purify.results import Purified
from .models import Model
from .outputs import Output
from .protocol import InferRequest, Tensor
from .settings import ServeSettings

#: Decoding more bytes than this happens beside the loop that answers everybody.
_INLINE = 64 << 10


def seconds_left(parameters: Mapping[str, Any], header: str | None, settings: ServeSettings) -> float:
    """How long a request may take: ``timeout`` (microseconds, as Triton has it) among its parameters, the header
    ``X-Request-Timeout`` (seconds), or the owner's own bound, whichever is shortest.

    Raises:
        RequestError: one of them is not a positive number.
    """
    bounds = [settings.timeout]
    for what, value, unit in (("timeout", parameters.get("timeout"), 1e6), ("X-Request-Timeout", header, 1.0)):
        if value is None:
            continue
        try:
            seconds = float(value) / unit
        except (TypeError, ValueError, OverflowError):
            seconds = 0.0
        if not seconds > 0.0:
            raise RequestError(
                f"{what} {str(value)[:40]!r} is not a positive number; send one, or leave it out",
                code="E-request-number",
            )
        bounds.append(seconds)
    return min(bounds)


def urgent(parameters: Mapping[str, Any]) -> bool:
    """Whether a request is of the urgent class: ``priority`` 1, as Triton counts; 0, 2 and none are the ordinary one.

    Raises:
        RequestError: it is something else.
    """
    value = parameters.get("priority", 0)
    if type(value) is not int or value not in (0, 1, 2):
        raise RequestError("priority must be 1 (urgent) or 2 (ordinary)", code="E-request-priority")
    return value == 1


async def answer(
    model: Model, request: InferRequest, settings: ServeSettings, left: float
) -> tuple[dict[str, Tensor], list[Purified]]:
    """Purify the images of a request, and do what the bundle is for.

    Cancelling it takes its images out of the queue and out of the slots.

    Args:
        left: seconds until nobody wants the answer any more.

    Returns:
        The outputs by name, and the results themselves, which stay inside.

    Raises:
        RequestError: the tensors are not images of this model.
        BusyError, OverdueError: there is no room, or not enough time.
    """
    end = time.monotonic() + left
    items, size = images_of(request, model)
    wanted = _wanted(request, model)
    futures: list[Future[Any]] = []

    def submit() -> None:
        for item in items:
            futures.append(model.service.submit(item, deadline=end, urgent=urgent(request.parameters)))

    try:
        if size > _INLINE:
            await asyncio.to_thread(submit)
        else:
            submit()
        waiting = [asyncio.wrap_future(future) for future in futures]
        left_now = max(end - time.monotonic(), 0.001)
        _, missing = await asyncio.wait(waiting, timeout=left_now, return_when=asyncio.FIRST_EXCEPTION)
        errors = [one.exception() for one in waiting if one.done() and not one.cancelled()]
        for error in filter(None, errors):
            raise error
        if missing:
            raise OverdueError(
                f"the answer was not there within {left:g} seconds; ask again later, or give it more time",
                code="E-deadline-answer",
            )
    finally:
        for future in futures:
            future.cancel()  # does nothing where the result is there
    results = [one.result() for one in waiting]
    return {output.name: output.make(results) for output in wanted}, results


def images_of(request: InferRequest, model: Model) -> tuple[list[Any], int]:
    """The images of a request as `edgepure.Service.submit` takes them, and their bytes together.

    Raises:
        RequestError: there is not one input named ``image``, or it is not of a shape and datatype that is taken.
    """
    if set(request.inputs) != {"image"}:
        raise RequestError(
            f"expected one input named 'image', got {', '.join(sorted(request.inputs)) or 'none'}",
            code="E-request-input",
        )
    tensor = request.inputs["image"]
    if isinstance(tensor, list):
        return list(tensor), sum(map(len, tensor))
    c, h, w = model.image_shape
    one = tensor[None] if tensor.ndim == 3 else tensor
    if tensor.dtype == np.float32 and one.shape[1:] == (c, h, w):
        return list(one), tensor.nbytes
    if tensor.dtype == np.uint8 and one.shape[1:] == (h, w, c):
        return list(one), tensor.nbytes
    raise RequestError(
        f"image is {tensor.dtype} {list(tensor.shape)}, expected FP32 [n, {c}, {h}, {w}] in [0, 1], UINT8 "
        f"[n, {h}, {w}, {c}], or BYTES [n] of image files",
        code="E-request-image",
    )


def _wanted(request: InferRequest, model: Model) -> list[Output]:
    known = {output.name: output for output in model.outputs}
    for name in request.outputs:
        if name not in known:
            raise RequestError(
                f"there is no output {name[:40]!r} here; there are {', '.join(known)}", code="E-request-output"
            )
    return [known[name] for name in request.outputs] or list(known.values())

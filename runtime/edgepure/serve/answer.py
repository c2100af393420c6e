"""One infer request, whichever way it came: its images into the slots, and what the owner lets out of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import EdgepureError, OverdueError, RequestError
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
    wanted, first = _wanted(request, model), urgent(request.parameters)
    futures: list[Future[Any]] = []
    over = False

    def submit() -> None:
        for item in items:
            if not over:
                futures.append(model.service.submit(item, deadline=end, urgent=first))

    try:
        if size > _INLINE:
            await asyncio.to_thread(submit)
        else:
            submit()
        await _settled(futures, end)
        for future in futures:
            if future.cancelled():
                raise EdgepureError("this model has been closed; ask again later", code="E-service-closed")
            if future.done() and (error := future.exception()) is not None:
                raise error
        if not all(future.done() for future in futures):
            raise OverdueError(
                f"the answer was not there within {left:g} seconds; ask again later, or give it more time",
                code="E-deadline-answer",
            )
    finally:
        over = True
        for future in futures:
            future.cancel()  # does nothing where the result is there
    results = [future.result() for future in futures]
    return {output.name: output.make(results) for output in wanted}, results


async def _settled(futures: Sequence[Future[Any]], end: float) -> None:
    """Return when all of them have their results, when one has an error instead, or when it is too late.

    One future of the loop for all of them: with a task for each, what asyncio does around a small image takes as long
    as its purification.
    """
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[None] = loop.create_future()
    missing = len(futures)

    def settle() -> None:
        if not settled.done():
            settled.set_result(None)

    def seen(future: Future[Any]) -> None:
        nonlocal missing
        missing -= 1
        if not missing or future.cancelled() or future.exception() is not None:
            settle()

    def done(future: Future[Any]) -> None:  # in the service's thread
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(seen, future)

    for future in futures:
        future.add_done_callback(done)
    late = loop.call_later(max(end - time.monotonic(), 0.001), settle)
    try:
        await settled
    finally:
        late.cancel()


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

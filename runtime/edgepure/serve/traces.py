"""Spans through OpenTelemetry's API where it is installed; without it, nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any


def span(name: str, headers: Callable[[], Mapping[str, str]], **attributes: str | int) -> AbstractContextManager[Any]:
    """A span around a request, below the one that the client names in ``traceparent``. ``headers`` gives those that
    came with it."""
    found = _api()
    if found is None:
        return nullcontext()
    propagate, trace = found
    tracer = trace.get_tracer("edgepure")
    kind = trace.SpanKind.SERVER
    context = propagate.extract(headers())
    started: AbstractContextManager[Any] = tracer.start_as_current_span(
        name, context, kind=kind, attributes=dict(attributes)
    )
    return started


@cache  # a module that is not there is looked for anew by every import: that takes longer than a request
def _api() -> tuple[Any, Any] | None:
    try:
        from opentelemetry import propagate, trace
    except ImportError:
        return None
    return propagate, trace

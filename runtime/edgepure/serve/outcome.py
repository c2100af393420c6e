"""What both protocols say of a request that gets no answer, and who may ask at all."""

from __future__ import annotations

import hmac

from ..errors import BusyError, ImageError, OverdueError, RequestError
from .models import UnknownModelError


class BodySizeError(RequestError):
    """A body is larger than the owner allows (exit code 2)."""

    code = "E-body-size"


def outcome_of(error: BaseException) -> tuple[int, str]:
    """HTTP status of an error, and the word that the metrics have for it."""
    if isinstance(error, UnknownModelError):
        return 404, "invalid"
    if isinstance(error, BodySizeError):
        return 413, "invalid"
    if isinstance(error, (RequestError, ImageError)):
        return 400, "invalid"
    if isinstance(error, BusyError) or getattr(error, "code", None) == "E-service-closed":
        return 503, "refused"
    if isinstance(error, OverdueError):
        return 504, "overdue"
    return 500, "failed"


def permitted(header: str, secret: str) -> bool:
    """Whether the header bears the token; how long that takes says nothing about it."""
    kind, _, given = header.partition(" ")
    sent = given.strip().encode("latin-1", "backslashreplace")  # headers are bytes: clients send UTF-8, or Latin-1
    same = [hmac.compare_digest(sent, secret.encode(name, "backslashreplace")) for name in ("utf-8", "latin-1")]
    return any(same) and kind.lower() == "bearer"

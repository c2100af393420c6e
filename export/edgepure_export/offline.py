"""A name that needs the network when there is none becomes one sentence that says what to download."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from edgepure.errors import ExportError

#: Names of the exceptions that mean "no network", from libraries that need not be installed.
_OFFLINE = {
    "ConnectError", "ConnectionError", "ConnectTimeout", "LocalEntryNotFoundError", "MaxRetryError",
    "OfflineModeIsEnabled", "ProxyError", "ReadTimeout", "URLError", "gaierror",
}  # fmt: skip
#: The hub knows no such name, or does not give it to this user.
_UNKNOWN = {
    "EntryNotFoundError", "GatedRepoError", "HFValidationError", "RepositoryNotFoundError", "RevisionNotFoundError",
}  # fmt: skip


@contextmanager
def downloading(source: str, instead: str) -> Iterator[None]:
    """Around whatever may download.

    Args:
        source: the source as the user wrote it.
        instead: what to do without a network, the end of the sentence.

    Raises:
        ExportError: the network is not there, or the hub does not know the name.
    """
    loggers = [logging.getLogger(n) for n in ("huggingface_hub", "timm", "transformers", "diffusers", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except ExportError:
        raise
    except Exception as error:  # a different one in every library and release
        names = {type(e).__name__ for e in _chain(error)}
        if names & _UNKNOWN and not names & _OFFLINE:
            raise ExportError(
                f"{source}: the model hub has no such model, or does not give it to you without signing in; check the "
                f"name, or {instead}"
            ) from error
        if names & _OFFLINE or any(_is_network(e) for e in _chain(error)):
            raise ExportError(
                f"{source} needs the network for its weights, and there is none (or it is not in the download cache); "
                f"{instead}"
            ) from error
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _is_network(error: BaseException) -> bool:
    if isinstance(error, (socket.gaierror, TimeoutError, ConnectionError)):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED):
        return True
    text = str(error)
    return (
        "offline" in text.lower()
        or "couldn't connect" in text
        or ("not a valid model identifier" in text and os.environ.get("HF_HUB_OFFLINE") == "1")
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__

"""A name that needs the network when there is none becomes one sentence that says what to download, within seconds.

The libraries try again and again for most of a minute before they give up. So one short question comes first: does the
server answer? If not, they are told to work offline, and then look into their download cache alone.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from threading import Thread
from typing import Any

from edgepure.errors import ExportError

#: Seconds within which a server has to answer.
PATIENCE = 5.0

#: Names of the exceptions that mean "no network", from libraries that need not be installed.
_OFFLINE = {
    "ConnectError",
    "ConnectionError",
    "ConnectTimeout",
    "LocalEntryNotFoundError",
    "MaxRetryError",
    "OfflineModeIsEnabled",
    "ProxyError",
    "ReadTimeout",
    "URLError",
    "gaierror",
}
#: The hub knows no such name, or does not give it to this user.
_UNKNOWN = {
    "EntryNotFoundError",
    "GatedRepoError",
    "HFValidationError",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
}


@contextmanager
def downloading(source: str, instead: str, url: str | None = None) -> Iterator[None]:
    """Around whatever may download.

    Args:
        source: the source as the user wrote it.
        instead: what to do without a network, the end of the sentence.
        url: what will be downloaded; None: something of the model hub, which has a download cache of its own.

    Raises:
        ExportError: the network is not there, or the hub does not know the name.
    """
    if url is not None and not reachable(url):
        raise ExportError(_no_network(source, instead), code="E-source-offline")
    loggers = [logging.getLogger(n) for n in ("huggingface_hub", "timm", "transformers", "diffusers", "urllib3")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with nullcontext() if url is not None else _hub_offline_without_network():
            yield
    except ExportError:
        raise
    except Exception as error:  # a different one in every library and release
        names = {type(e).__name__ for e in _chain(error)}
        if names & _UNKNOWN and not names & _OFFLINE:
            raise ExportError(
                f"{source}: the model hub has no such model, or does not give it to you without signing in; check the "
                f"name, or {instead}",
                code="E-source-hub",
            ) from error
        if names & _OFFLINE or any(_is_network(e) for e in _chain(error)):
            raise ExportError(_no_network(source, instead), code="E-source-offline") from error
        raise
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def reachable(url: str, patience: float = PATIENCE) -> bool:
    """True if the server of ``url`` answers, whatever it answers, through the proxy that the environment names.

    Takes at most ``patience`` seconds, the look-up of the name included.
    """
    if any(proxy.lower().startswith("socks") for proxy in urllib.request.getproxies().values()):
        return True  # the libraries can use it and this module cannot: let them try
    answered: list[bool] = []
    # In a thread, because the time limit of a connection does not cover the look-up of its name.
    asking = Thread(target=lambda: answered.append(_answers(url, patience)), daemon=True)
    asking.start()
    asking.join(patience)
    return answered == [True]


def _answers(url: str, patience: float) -> bool:
    try:
        # A new opener: `urlopen` remembers the proxies of its first use.
        with urllib.request.build_opener().open(urllib.request.Request(url, method="HEAD"), timeout=patience):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that is refused is one of a server; the libraries judge it by settings of their own.
        return isinstance(error.reason, ssl.SSLError)
    except ValueError:
        return True  # no address that urllib understands
    except Exception:  # a broken answer: OSError, http.client's own
        return False


@contextmanager
def _hub_offline_without_network() -> Iterator[None]:
    """If the hub does not answer, what its library does in this block uses the download cache alone."""
    try:
        constants: Any = import_module("huggingface_hub.constants")
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    if before or reachable(constants.ENDPOINT):
        yield
        return
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _no_network(source: str, instead: str) -> str:
    return (
        f"{source} needs the network for its weights, and there is none (or it is not in the download cache); {instead}"
    )


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

"""A Ray cluster, as far as edgepure needs to know one: to join it, to ask for its room, and to say what went wrong."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from ..errors import ConfigError, EdgepureError


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """The module `ray`, connected.

    Args:
        address: ``HOST:PORT``, ``auto``, or ``local``: a cluster of this machine, which ends with the block.

    Raises:
        ConfigError: Ray is not installed.
        EdgepureError: the cluster cannot be reached, or what is done on it fails; in the words of a worker if one said
            it in an error of edgepure.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; --ray needs it: pip install 'edgepure[ray]'", code="E-extra-missing"
        ) from None
    own = not ray.is_initialized()
    with redirect_stdout(sys.stderr):  # what Ray says of a worker that it lost belongs there; some of it as it ends
        try:
            if own:
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
            yield ray
        except EdgepureError:
            raise
        except (OSError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as error:
            raise _fault(error) from None
        finally:
            if own and ray.is_initialized():
                ray.shutdown()


def room(ray: Any, threads: int, gpu: bool, asked: int | None) -> int:
    """How many engines to start, each on a GPU of its own or on so many cores of one node: as many as were asked for,
    or as there is room for.

    Raises:
        ConfigError: there is no room for them. Ray would wait for ever for nodes that may never come.
    """
    what, each = ("GPU", 1) if gpu else ("CPU", threads)
    free = sum(int(node["Resources"].get(what, 0.0)) // each for node in ray.nodes() if node["Alive"])
    if free < (asked or 1):
        raise ConfigError(
            f"the Ray cluster has room for {free} engines at a time ({each} {what} of one node each), and "
            f"{asked or 1} is asked for; give fewer --workers or --threads, or start more nodes first",
            code="E-ray-room",
        )
    return asked or free


def needs_of(threads: int, gpu: bool) -> dict[str, Any]:
    """What an engine asks of the cluster."""
    return {"num_gpus": 1} if gpu else {"num_cpus": threads}


def check_bundle(bundle: Path, found: str, wanted: str) -> None:
    """Compare what a worker's bundle is with what it is where the command was given.

    Raises:
        ConfigError: another one.
    """
    if found != wanted:
        raise ConfigError(
            f"the bundle {bundle} of this worker is another one than where the command was given; put the same files "
            "there",
            code="E-ray-bundle",
        )


def _fault(error: BaseException) -> EdgepureError:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, EdgepureError):
        cause = getattr(cause, "cause", None) or cause.__cause__
    if cause is not None:
        return cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return EdgepureError(
        f"the Ray cluster cannot do it ({lines[-1][:300]}); see `ray status` and the logs of its workers",
        code="E-ray-cluster",
    )

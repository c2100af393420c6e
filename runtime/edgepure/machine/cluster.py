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
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        if own:
            where = None if address == "local" else address
            ray.init(address=where, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        with redirect_stdout(sys.stderr):  # what Ray says of a worker that it lost belongs there
            yield ray
    except EdgepureError:
        raise
    except (OSError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as error:
        raise _fault(error) from None
    finally:
        if own and ray.is_initialized():
            ray.shutdown()


def room(ray: Any, threads: int, gpu: bool) -> int:
    """Engines that the cluster has room for, each on a GPU of its own or on so many cores."""
    found = ray.cluster_resources()
    return max(1, int(found.get("GPU", 0.0)) if gpu else int(found.get("CPU", 0.0)) // threads)


def needs_of(threads: int, gpu: bool) -> dict[str, int]:
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

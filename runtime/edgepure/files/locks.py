"""Locks between processes, on files and folders themselves: nothing is left behind, and a killed process holds none.

Where the system or the file system has no locks, everything goes on without them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EdgepureError


@contextmanager
def locked(
    path: Path, *, shared: bool = False, busy: str | None = None, make: Callable[[], object] | None = None
) -> Iterator[None]:
    """Hold the lock on the file or folder that lies at ``path``. Threads of one process exclude each other, too.

    Args:
        shared: others may hold it too, if they share it.
        busy: what to say if somebody else holds it; None: wait for them.
        make: makes what lies at ``path`` if it is not there; called again if it is removed meanwhile.

    Raises:
        EdgepureError: with the words of ``busy``.
        FileNotFoundError: there is nothing, and no ``make``.
    """
    try:
        handle = _take(path, shared, busy is None, make)
    except BlockingIOError:
        raise EdgepureError(busy or f"{path} is in use", code="E-in-use") from None
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _take(path: Path, shared: bool, wait: bool, make: Callable[[], object] | None) -> int | None:
    """A handle that holds the lock until it is closed; None where there are no locks."""
    while True:
        if make is not None:
            make()
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            if make is None:
                raise
            continue
        except OSError:  # Windows opens no folders
            return None
        try:
            import fcntl

            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            if _lies_at(path, handle):
                return handle
        except (ImportError, OSError) as error:
            os.close(handle)
            if isinstance(error, BlockingIOError):
                raise
            return None
        except BaseException:  # Ctrl-C while it waited
            os.close(handle)
            raise
        os.close(handle)  # what was waited for has been replaced or removed


def _lies_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False

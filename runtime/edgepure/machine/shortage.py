"""What the machine has too little of, in the words of whatever noticed it. No bundle and no option is at fault then.

Engines raise many unrelated classes, and say in English what the system said to them. So causes are told apart by the
number of the error where there is one, and otherwise by its words.
"""

from __future__ import annotations

import errno
import re

from ..errors import EdgepureError

_MEMORY = r"cannot allocate|bad_?alloc|allocat\w* memory|out of memory|failed to map segment"
_THREADS = (
    r"resource temporarily unavailable|pthread_create|can't start new thread|thread (creation|constructor) failed"
)
_FILES = r"too many open files"
_DISK = r"no space left|disk quota exceeded"


def shortage(error: BaseException) -> EdgepureError | None:
    """The error of our own for one that says what the machine lacks; None: it says something else."""
    said = " ".join(str(error).split())
    words = f" ({said[-160:]})" if said else ""

    def is_about(pattern: str, *numbers: int) -> bool:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno in numbers
        return re.search(pattern, said, re.IGNORECASE) is not None

    if isinstance(error, MemoryError) or is_about(_MEMORY, errno.ENOMEM):
        return EdgepureError(
            f"not enough memory{words}; use fewer slots, smaller batches or fewer threads, or end other programs",
            code="E-memory",
        )
    if is_about(_THREADS, errno.EAGAIN):  # after memory: a thread may lack that for its stack
        return EdgepureError(
            f"the system starts no more threads{words}; use fewer (threads=, --threads), end other programs, or raise "
            "the limit (ulimit -u, the pids of a container)",
            code="E-threads",
        )
    if is_about(_FILES, errno.EMFILE, errno.ENFILE):
        return EdgepureError(
            f"too many files are open{words}; close what is no longer used, or raise the limit (ulimit -n)",
            code="E-open-files",
        )
    if is_about(_DISK, errno.ENOSPC, errno.EDQUOT):
        return EdgepureError(f"a disk is full{words}; free some space", code="E-disk-full")
    return None

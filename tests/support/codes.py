"""Errors are told apart by their codes, not by their sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgepure.errors import EdgepureError


@contextmanager
def raises_code(code: str) -> Iterator[pytest.ExceptionInfo[EdgepureError]]:
    """The block must raise an edgepure error with this code; gives pytest's exception info."""
    with pytest.raises(EdgepureError) as caught:
        yield caught
    assert caught.value.code == code, f"{caught.value.code}: {caught.value}"

"""The exceptions of the runtime, one class for each thing a user can put right.

Every message says what was wrong, where, what was expected and what to do. Each class carries the exit code that the
command line returns for it, so that scripts can tell a bad image from a bad bundle; each error carries a short, stable
``code`` (``E-image-size``), so that programs and tests need not read sentences.
"""

from __future__ import annotations

#: Characters of a message at most; a longer one loses its middle.
LONGEST = 3000


class EdgepureError(Exception):
    """Base of everything that edgepure raises on purpose; its text is meant to be shown to a user as it is.

    Attributes:
        code: short and stable, such as ``E-image-size``; that of the class where the place that raises names no other.
    """

    exit_code = 1
    code = "E-edgepure"

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        if len(message) > LONGEST:  # somebody's value in it; what to do stands at the end
            message = f"{message[: LONGEST * 2 // 3]} ... {message[-LONGEST // 3 :]}"
        super().__init__(message)
        if code is not None:
            self.code = code


class PrecisionWarning(UserWarning):
    """A preset runs in another precision than the one that it was tuned in, so that its evidence does not hold."""


class NotFiniteError(EdgepureError):
    """A model gave NaN or infinite values (exit code 1)."""

    code = "E-not-finite"


class BusyError(EdgepureError):
    """A `Service` has as many images waiting as it was told to keep; try again later (exit code 1)."""

    code = "E-busy"


class OverdueError(EdgepureError):
    """The deadline of an image has passed, or cannot be met (exit code 1)."""

    code = "E-overdue"


class RequestError(EdgepureError, ValueError):
    """A client of `edgepure serve` sent what its protocol does not allow (exit code 2)."""

    exit_code = 2
    code = "E-request"


class ConfigError(EdgepureError, ValueError):
    """A parameter of a method, schedule or preset is out of range or contradicts another (exit code 2)."""

    exit_code = 2
    code = "E-config"


class BundleError(EdgepureError):
    """A bundle is missing, damaged, of a newer format, or tries to reach outside its own folder (exit code 3)."""

    exit_code = 3
    code = "E-bundle"


class ImageError(EdgepureError, ValueError):
    """An image has the wrong size, channels, dtype or range, or cannot be read (exit code 4)."""

    exit_code = 4
    code = "E-image"


class ProviderError(EdgepureError):
    """The inference engine that was asked for is not active on this machine (exit code 5)."""

    exit_code = 5
    code = "E-provider"


def import_fault(module: str, error: Exception) -> str:
    """``MODULE cannot be imported (...)``, for whatever a missing or broken installation raised."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    words = first if isinstance(error, ImportError) and first else f"{type(error).__name__}: {first}".rstrip(": ")
    return f"{module} cannot be imported ({words})"


class VerificationError(EdgepureError):
    """Measured outputs differ from the recorded ones by more than the tolerance (exit code 6)."""

    exit_code = 6
    code = "E-verification"


class ExportError(EdgepureError):
    """A model could not be turned into a bundle; nothing was written (exit code 7)."""

    exit_code = 7
    code = "E-export"


def words_of(error: BaseException) -> str:
    """What a foreign error says, for a sentence of ours: its first line, at most 300 characters; else its class."""
    lines = str(error).strip().splitlines()
    return lines[0].strip()[:300] if lines else type(error).__name__

"""Names in a bundle: the files that every bundle has, and the paths that may be listed."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from ..errors import ConfigError

#: The manifest's name in the bundle's directory.
MANIFEST_FILE = "bundle.json"
#: Recorded inputs and outputs.
SELFTEST_FILE = "selftest.npz"
#: What is built on a device lives here; it is not listed in ``files``.
ENGINES_FOLDER = "engines"

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


def check_relative_path(text: str) -> str:
    """Return ``text`` if it is a path that may be listed in a bundle.

    Parts are made of ASCII letters, digits, ``.``, ``_`` and ``-``, begin with a letter, a digit or ``_``, and are
    joined by ``/``: so there is no absolute path, no ``..``, no hidden file, and the same name on every system.

    Raises:
        ConfigError: it is not.
    """
    if text.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", text):
        raise ConfigError(
            "the path is absolute; a bundle may only name files inside its own folder", code="E-bundle-path-absolute"
        )
    parts = text.split("/")
    if ".." in parts:
        raise ConfigError(
            "the path escapes the bundle with '..'; a bundle may only name files inside its own folder",
            code="E-bundle-path-escape",
        )
    if len(text) > 200 or not all(_SAFE_NAME.fullmatch(part) for part in parts):
        raise ConfigError(
            "not a portable relative path: use letters, digits, '.', '_' and '-' in parts joined by '/', "
            "none beginning with '.', at most 200 characters",
            code="E-bundle-path-portable",
        )
    if text.lower() == MANIFEST_FILE or parts[0].lower() == ENGINES_FOLDER:
        raise ConfigError(
            f"{MANIFEST_FILE} and {ENGINES_FOLDER}/ are reserved and never listed; give the file another name",
            code="E-bundle-path-reserved",
        )
    return text


# The pattern is for the published schema; the validator gives better reasons.
_PATH_SCHEMA: dict[str, JsonValue] = {"pattern": f"^{_SAFE_NAME.pattern}(/{_SAFE_NAME.pattern})*$", "maxLength": 200}
RelativePath = Annotated[str, AfterValidator(check_relative_path), Field(json_schema_extra=_PATH_SCHEMA)]

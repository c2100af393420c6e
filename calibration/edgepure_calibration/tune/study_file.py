"""The file of a study: where it lies, and that only one run at a time works with it. Needs no Optuna."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from edgepure.errors import ConfigError
from edgepure.files.locks import locked


@contextmanager
def study_file(bundle: Path, study: str | PathLike[str] | None) -> Iterator[Path]:
    """The file, kept for this run alone. One that was empty before and after is removed.

    Args:
        bundle: its directory, as `edgepure.Bundle` knows it.
        study: the file; None: ``<bundle>.tuning.journal`` beside the bundle.

    Raises:
        ConfigError: no study can lie there.
        EdgepureError: another run works with it.
    """
    path = bundle.with_name(f"{bundle.name}.tuning.journal") if study is None else Path(study).resolve()
    if path.is_relative_to(bundle):
        raise ConfigError(f"the study {path} lies inside the bundle, which may only hold its own files; name another")
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(f"the study {path} cannot be written: name a file in a folder that exists (--study)")
    busy = f"another run is at work with the study {path}; wait until it has ended, or name another file (--study)"
    with locked(path, busy=busy, make=lambda: None if path.exists() else path.touch()):
        try:
            yield path
        finally:
            if path.exists() and path.stat().st_size == 0:
                path.unlink()

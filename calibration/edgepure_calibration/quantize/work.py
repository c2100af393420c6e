"""The work folder of a quantization: what an interrupted run has measured is there for the next one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.errors import ConfigError
from edgepure.files.atomic import write_npz, write_text
from edgepure.files.npz import ArrayError, read_all

from .recording import Samples

_KEY = "key.json"


class Work:
    """A folder of results, valid for one key: bundle, data and settings. Another key starts anew.

    Args:
        folder: empty, or with results of an earlier run, and held by `edgepure.files.locks.work_folder`. It is removed
            at the end.
        key: everything that the results depend on, as plain data.

    Raises:
        ConfigError: the folder holds something else.
    """

    def __init__(self, folder: Path, key: Mapping[str, Any]) -> None:
        self.folder = folder
        text = json.dumps(key, sort_keys=True, indent=2)
        place = folder / _KEY
        self.resumed = place.is_file() and place.read_bytes() == text.encode()
        if not self.resumed:
            former = [path for path in folder.iterdir() if path != place and not path.name.startswith(f".{_KEY}.")]
            if not _ours(place) and (former or place.exists()):  # nobody else's folder is emptied
                raise ConfigError(
                    f"the folder {folder} holds something else than the work of a quantization, and would be removed "
                    "at the end; name a new or an empty one (--work)"
                )
            for path in former:  # the folder itself stays: it is locked
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_text(place, text)

    def get(self, name: str) -> Any:
        """What was stored under ``name``; None if there is nothing, or nothing that can be read."""
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        except (OSError, ValueError, RecursionError):
            return None

    def put(self, name: str, value: Any) -> None:
        """Store plain data."""
        write_text(self.folder / f"{name}.json", json.dumps(value, indent=1) + "\n")

    def samples(self, graph: str) -> Samples | None:
        """Recorded calls of a step graph, if they were stored and can be read."""
        try:
            arrays = read_all(self.folder / f"samples_{graph}.npz")
            feeds = {key.removeprefix("in/"): array for key, array in arrays.items() if key.startswith("in/")}
            return Samples(feeds, arrays["after"], int(arrays["rows"]))
        except (ArrayError, KeyError, TypeError):
            return None

    def put_samples(self, graph: str, samples: Samples) -> None:
        """Store recorded calls."""
        arrays = {f"in/{name}": array for name, array in samples.feeds.items()}
        write_npz(
            self.folder / f"samples_{graph}.npz", {**arrays, "after": samples.after, "rows": np.array(samples.rows)}
        )

    def remove(self) -> None:
        """Take the folder away; the work is done."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _ours(place: Path) -> bool:
    """Whether a key of a quantization lies there, and not somebody else's file of this name."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"calibration", "request"} <= found.keys()


def digest(value: Any) -> str:
    """SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

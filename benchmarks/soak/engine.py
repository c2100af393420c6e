"""What the soak brings into the process of the server: an engine with faults, and noise that can be computed again.

It comes as any package's engine does, by an entry point: ``edgepure serve --provider soak``. The folder in
``EDGEPURE_SOAK`` rules it: while there is a file ``throw`` every third call raises, and while there is a file ``hang``
calls wait. The noise of an image is drawn from a seed that its pixels are, where a client's image would get secret
noise: so every answer can be computed elsewhere, and compared.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.engines.kinds import KINDS
from edgepure.engines.onnxruntime import OnnxRuntimeEngine
from edgepure.purify import service
from edgepure.purify.submissions import Submission
from edgepure.rows.noise import noise_source

_RULES = Path(os.environ.get("EDGEPURE_SOAK", "/nowhere"))
_calls = count()


def seed_of(image: np.ndarray) -> int:
    """The seed of an image ``[C, H, W]`` float32 whose values are whole 255ths."""
    return zlib.crc32(np.rint(255.0 * image).astype(np.uint8).tobytes())


class Faulty(OnnxRuntimeEngine):
    """ONNX Runtime, which fails while it is told to."""

    def prepare(
        self, inputs: Mapping[str, Any], outputs: Mapping[str, Any], full: bool = False
    ) -> Callable[[], object]:
        call = super().prepare(inputs, outputs, full)

        def ruled() -> None:
            while (_RULES / "hang").exists():
                time.sleep(0.05)
            if (_RULES / "throw").exists() and next(_calls) % 3 == 0:
                raise RuntimeError("the engine throws, as it was told to")
            call()

        return ruled


def _submission(image: Any, name: str, source: Any, **more: Any) -> Submission:
    return Submission(image, name, noise_source(seed_of(image)) if source is None else source, **more)


def _known_noise() -> None:
    service.noise_source = lambda noise: None if noise is None else noise_source(noise)  # type: ignore[assignment]
    service.Submission = _submission  # type: ignore[assignment, misc]


def _opened(opening: Any) -> Faulty:
    _known_noise()
    return Faulty(opening.path, "soak", opening.threads, precision=opening.precision)


KIND = replace(KINDS["cpu"], provider="soak", opens=_opened, probes=None)

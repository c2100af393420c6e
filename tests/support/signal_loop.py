"""A process whose calls of an engine are interrupted by signals: what its handler raises must come out of each.

python tests/support/signal_loop.py PROVIDER
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from types import FrameType

import numpy as np
from numpy.typing import NDArray

from edgepure.demo import demo_bundle
from edgepure.engines.base import Engine
from edgepure.engines.open import open_graph


class StopError(Exception):
    """Of the application."""


def stop(number: int, frame: FrameType | None) -> None:
    raise StopError


def run_until(seconds: float, engine: Engine, feeds: dict[str, NDArray[np.float32]]) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    while True:
        engine.run(feeds)


def main(provider: str) -> None:
    faulthandler.enable()
    signal.signal(signal.SIGALRM, stop)
    with open_graph(demo_bundle() / "classifier.onnx", provider, threads=1) as engine:
        ((name, spec),) = engine.inputs.items()
        image = np.zeros((8, *(int(n) for n in spec.shape[1:])), np.float32)
        for number in range(20):
            try:
                run_until(0.001 + 0.0007 * number, engine, {name: image})
            except StopError:
                print(number, flush=True)
        print(np.isfinite(engine.run({name: image})["logits"]).all())


if __name__ == "__main__":
    main(sys.argv[1])

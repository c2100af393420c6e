"""What a handler of a signal raises in the middle of a call comes out as it is."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from types import FrameType

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepure.demo import demo_bundle
from edgepure.engines.base import Engine
from edgepure.engines.kinds import KINDS
from edgepure.engines.open import open_graph


class StopError(Exception):
    """Of the application."""


def run_until(seconds: float, engine: Engine, feeds: dict[str, NDArray[np.float32]]) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)
    while True:
        engine.run(feeds)


@pytest.mark.parametrize(
    "provider", [name for name, kind in KINDS.items() if kind.device == "cpu" and find_spec(kind.module)]
)
def test_it_is_no_fault_of_the_engine(provider: str) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        raise StopError

    before = signal.signal(signal.SIGALRM, stop)
    try:
        with open_graph(demo_bundle() / "classifier.onnx", provider, threads=1) as engine:
            ((name, spec),) = engine.inputs.items()
            image = np.zeros((8, *(int(n) for n in spec.shape[1:])), np.float32)
            for number in range(20):
                with pytest.raises(StopError):
                    run_until(0.001 + 0.0007 * number, engine, {name: image})
            assert np.isfinite(engine.run({name: image})["logits"]).all()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)

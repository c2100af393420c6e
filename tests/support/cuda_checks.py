"""What must hold for `edgepure.engines.gpu.cuda` on the stand-in and on a real GPU alike."""

from __future__ import annotations

import numpy as np
import pytest

from edgepure.engines.gpu import cuda
from edgepure.errors import EdgepureError

#: What can go wrong while a graph is captured.
FAULTS = ("work", "allocation")


def check_failed_capture(stream: cuda.Stream, fault: str) -> None:
    """A graph that cannot be captured leaves the stream usable, and the next one can be captured."""
    buffer = cuda.DeviceBuffer(16, stream)

    def work() -> None:
        cuda.on_device(buffer.pointer + 8, buffer.pointer, 8, stream)
        if fault == "work":
            raise EdgepureError("no")
        cuda.DeviceBuffer(16, stream)  # allocating is not allowed while a stream is captured

    with pytest.raises(EdgepureError):
        cuda.Graph(stream, work)
    cuda.to_device(buffer.pointer, np.arange(4, dtype=np.float32), stream)  # the stream works as before
    stream.wait()
    graph = cuda.Graph(stream, lambda: cuda.on_device(buffer.pointer + 8, buffer.pointer, 8, stream))
    result = np.empty(4, np.float32)
    for expected in ([0, 1, 2, 3], [0, 1, 0, 1]):
        cuda.to_host(result, buffer.pointer, stream)
        stream.wait()
        assert np.array_equal(result, expected)  # nothing happens before the launch
        graph.launch()
    stream.wait()
    for part in (graph, buffer):
        part.close()

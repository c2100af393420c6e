"""A graph of one node, with which an engine is tried: ``y = x + x`` for float32 ``x [2]``."""

from __future__ import annotations

import numpy as np

from ..types import Float32

#: Opset 13, IR version 7, as an ONNX protobuf.
TINY_GRAPH = bytes.fromhex(
    "08073a350a0e0a01780a017812017922034164641201675a0f0a0178120a0a08080112040a020802620f0a0179120a0a08080112040a02"
    "080242040a00100d"
)
#: What is fed, and what has to come out.
FEED: dict[str, Float32] = {"x": np.ones(2, np.float32)}
EXPECTED: Float32 = np.full(2, 2.0, np.float32)

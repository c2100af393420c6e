"""The types that every room shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

#: Images, states and noises.
Float32 = NDArray[np.float32]
#: How far long work is: a share in [0, 1], and in words what it does at the moment.
Progress = Callable[[float, str], None]

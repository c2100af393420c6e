"""The counter-based noise as the GPU makes it, against its definition in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepure.methods import UniformSpec
from edgepure.rows.noise import SeededNoise
from edgepure.rows.philox import Stream, normals, philox4x32
from edgepure.rows.schedule import NoiseSchedule

from .context import CannotRunError

#: (seed, image, vote, row): small and large words, so that every part of the counter matters.
CASES = ((0, 0, 0, 0), (1, 0, 0, 3), (2**64 - 1, 2**31, 7, 9), (0x0123456789ABCDEF, 123_456, 1000, 1))
#: Not a multiple of four: the last thread makes only a part of its four elements.
SHAPE = (3, 33, 31)


def compare(device: str) -> Mapping[str, Any]:
    """Integers of the stream, which must be equal, and normals, which may differ by 1e-6."""
    if device != "cuda":
        raise CannotRunError("the noise kernel needs a GPU")
    words, values = on_device()
    wanted_words, wanted = expected_words(), expected_normals()
    wrong = int((words != wanted_words).sum())
    error = float(np.abs(values.astype(np.float64) - wanted).max())
    return {
        "ok": wrong == 0 and error <= 1e-6,
        "integers": int(words.size),
        "different_integers": wrong,
        "largest_error_of_normals": error,
    }


def expected_words() -> NDArray[np.uint32]:
    """``[cases, elements]``: element 4 k + i is word i of the block with counter (k, row, image, stream and vote)."""
    elements = int(np.prod(SHAPE))
    blocks = -(-elements // 4)
    found = np.empty((len(CASES), blocks * 4), np.uint32)
    for index, (seed, image, vote, row) in enumerate(CASES):
        counter = np.empty((4, blocks), np.uint64)
        counter[0] = np.arange(blocks)
        counter[1], counter[2], counter[3] = row, image & 0xFFFFFFFF, (int(Stream.ROW) << 24) | vote
        found[index] = philox4x32(counter, (seed & 0xFFFFFFFF, seed >> 32)).T.ravel()
    return found[:, :elements]


def expected_normals() -> NDArray[np.float32]:
    """``[cases, elements]``."""
    elements = int(np.prod(SHAPE))
    rows = [normals(seed, image, Stream.ROW, vote, (row,), elements) for seed, image, vote, row in CASES]
    return np.concatenate(rows)


def on_device() -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """The same two arrays, made by the kernel."""
    from edgepure.engines.gpu.cuda import DeviceBuffer, require_gpu, to_device, to_host
    from edgepure.engines.gpu.cuda import Stream as CudaStream
    from edgepure.engines.gpu.noise import DeviceNoise, counter_array

    elements = int(np.prod(SHAPE))
    gpu, stream = require_gpu("the noise kernel"), CudaStream()
    plan = UniformSpec(t_star=100, steps=10, sampler="ddim", eta=1.0).compile(NoiseSchedule.linear(), elements)
    counters = counter_array(len(CASES))
    for index, (seed, image, vote, row) in enumerate(CASES):
        counters[index] = DeviceNoise.counter(SeededNoise(seed).for_image(plan, image, vote, None, SHAPE), row)
    place = DeviceBuffer(counters.nbytes, stream)
    words, values = np.empty((len(CASES), elements), np.uint32), np.empty((len(CASES), elements), np.float32)
    target = DeviceBuffer(words.nbytes, stream)
    kernels = DeviceNoise(gpu)
    to_device(place.pointer, counters, stream)
    kernels.fill_words(target.pointer, place.pointer, len(CASES), elements, stream)
    to_host(words, target.pointer, stream)
    kernels.fill(target.pointer, place.pointer, len(CASES), elements, stream)
    to_host(values, target.pointer, stream)
    stream.wait()
    for owned in (kernels, target, place, stream):
        owned.close()
    return words, values

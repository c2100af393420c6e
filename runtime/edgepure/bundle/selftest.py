"""The recorded inputs and outputs of a bundle (``selftest.npz``), computed by the PyTorch reference at export.

The file is read without `numpy.load`: each array is checked against the manifest before its data is read, so nothing
is unpickled and a small file cannot ask for a large amount of memory.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from ..files.npz import read_header
from ..types import Float32
from .entries import GRAPH_NAMES
from .manifest import Manifest
from .names import SELFTEST_FILE

#: All arrays together may not be larger than this.
MAX_SELFTEST_BYTES = 512 << 20


@dataclass(frozen=True)
class GraphVectors:
    """One batch through one graph: arrays by the names of the graph's inputs and outputs, float32, batch >= 2."""

    inputs: Mapping[str, Float32]
    outputs: Mapping[str, Float32]


@dataclass(frozen=True)
class PipelineVectors:
    """One batch through one preset with seeded noise; image i of the batch is image i of the noise stream.

    Attributes:
        image: ``[B, C, H, W]`` float32 in [0, 1], the input.
        seed: of the noise.
        purified: ``[B, C, H, W]`` float32 in [0, 1].
        logits: ``[B, N]`` float32, of the purified image; N is 0 without a classifier.
        mask: ``[B, 1, H, W]`` float32 of 0 and 1; None for presets without a mask.
        frames: ``[F, C, H, W]`` float32 in [0, 1], of a task that takes frames: what is made of the first F of the
            frames that its graph was recorded with; None where they were not recorded.
        task: outputs of the task graph on the purified images, or frames, by name; none without.
        score_norms: ``[B]`` float32; None for presets without SSNI, and where they were not recorded.
        rows, states: indices of rows, rising from 0, and ``[B, rows, C, H, W]`` float32, the state in model range after
            each of them; None where they were not recorded.
    """

    image: Float32
    seed: int
    purified: Float32
    logits: Float32
    mask: Float32 | None
    task: Mapping[str, Float32] = field(default_factory=dict)
    frames: Float32 | None = None
    score_norms: Float32 | None = None
    rows: tuple[int, ...] | None = None
    states: Float32 | None = None


@dataclass(frozen=True)
class SelfTest:
    """All vectors of a bundle: of each graph, and of each preset that has some."""

    graphs: Mapping[str, GraphVectors]
    pipelines: Mapping[str, PipelineVectors]


def read_selftest(path: Path, manifest: Manifest) -> SelfTest:
    """Read and check ``selftest.npz``.

    Raises:
        BundleError: not an ``.npz``, too large, an array is missing, unknown, or of another shape or dtype than the
            manifest asks for, or holds NaN or infinities.
    """
    expected = _expected(manifest)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > MAX_SELFTEST_BYTES:
                raise _fault(
                    f"it unpacks to {total} bytes, at most {MAX_SELFTEST_BYTES} are allowed", code="E-selftest-size"
                )
            for info in archive.infolist():
                key = info.filename.removesuffix(".npy")
                if key not in expected or key in arrays or not info.filename.endswith(".npy"):
                    raise _fault(f"{info.filename!r} is unknown or there twice", code="E-selftest-unknown")
                with archive.open(info) as file:
                    arrays[key] = _read_array(file, key, expected[key], info.file_size)
    except BundleError:
        raise
    except Exception as error:  # zipfile, zlib and numpy.lib.format raise many unrelated classes on damaged files
        raise _fault(f"it cannot be read ({error})", code="E-selftest-read") from None
    return _assemble(arrays, manifest)


@dataclass(frozen=True)
class _Wanted:
    """What an array must be. "batch" in a shape is at least 2, other names at least 1; integers may have 1 element or
    []."""

    shape: tuple[str | int, ...]
    integer: bool = False

    def fits(self, shape: tuple[int, ...]) -> bool:
        if self.shape == (1,):
            return math.prod(shape) == 1
        return len(shape) == len(self.shape) and all(
            have >= (2 if want == "batch" else 1) if isinstance(want, str) else have == want
            for have, want in zip(shape, self.shape, strict=True)
        )


def _expected(manifest: Manifest) -> dict[str, _Wanted]:
    """Every key that may be there, with its shape."""
    keys: dict[str, _Wanted] = {}
    for graph, entry in manifest.graphs.items():
        keys.update({f"{graph}/in/{t.name}": _Wanted(t.shape) for t in entry.inputs})
        keys.update({f"{graph}/out/{t.name}": _Wanted(t.shape) for t in entry.outputs})
    c, h, w = manifest.image.shape
    wanted = {
        "image": _Wanted(("batch", c, h, w)),
        "seed": _Wanted((1,), integer=True),
        "purified": _Wanted(("batch", c, h, w)),
        "logits": _Wanted(("batch", len(manifest.classes))),
        "mask": _Wanted(("batch", 1, h, w)),
        "score_norms": _Wanted(("batch",)),
        "rows": _Wanted(("rows",), integer=True),
        "states": _Wanted(("batch", "rows", c, h, w)),
    }
    outputs = manifest.graphs["task"].outputs if manifest.task is not None else ()
    count = "frames" if manifest.framed else "batch"
    wanted.update({f"task/{t.name}": _Wanted((count, *t.fixed)) for t in outputs})
    if manifest.framed:
        wanted["frames"] = _Wanted((count, *manifest.task_image.shape))
    keys.update({f"pipeline/{preset}/{key}": want for preset in manifest.presets for key, want in wanted.items()})
    return keys


def _read_array(file: IO[bytes], key: str, expected: _Wanted, size: int) -> NDArray[Any]:
    shape, fortran, dtype = read_header(file)
    wanted = np.dtype(np.int64 if expected.integer else np.float32)
    if dtype != wanted or fortran or not expected.fits(shape):
        needed = [] if expected.shape == (1,) else list(expected.shape)
        raise _fault(
            f"{key!r} is {dtype} {list(shape)}, expected {wanted} {needed} in C order", code="E-selftest-array"
        )
    count = math.prod(shape) * dtype.itemsize
    if count != size - file.tell():
        raise _fault(
            f"{key!r} announces {count} bytes of data, but has {size - file.tell()}", code="E-selftest-cut-off"
        )
    array = np.frombuffer(file.read(count), dtype=dtype).reshape(shape)
    if not expected.integer and not np.isfinite(array).all():
        raise _fault(f"{key!r} holds NaN or infinities", code="E-selftest-not-finite")
    return array


def _assemble(arrays: dict[str, NDArray[Any]], manifest: Manifest) -> SelfTest:
    graphs: dict[str, GraphVectors] = {}
    for graph in GRAPH_NAMES:
        entry = manifest.graphs.get(graph)
        if entry is not None:
            vectors = GraphVectors(
                {t.name: _take(arrays, f"{graph}/in/{t.name}") for t in entry.inputs},
                {t.name: _take(arrays, f"{graph}/out/{t.name}") for t in entry.outputs},
            )
            _same_batch(f"{graph}/", [*vectors.inputs.values(), *vectors.outputs.values()])
            graphs[graph] = vectors
    pipelines: dict[str, PipelineVectors] = {}
    for name, preset in manifest.presets.items():
        prefix = f"pipeline/{name}/"
        if not any(key.startswith(prefix) for key in arrays):
            continue
        mask = _take(arrays, prefix + "mask") if preset.mask is not None else None
        rest = {key: _take(arrays, prefix + key) for key in ("image", "purified")}
        rest["logits"] = (
            _take(arrays, prefix + "logits") if manifest.classes else np.zeros((len(rest["image"]), 0), np.float32)
        )
        task, frames = {}, arrays.pop(prefix + "frames", None)
        if manifest.task is not None and manifest.framed == (frames is not None):
            names = [t.name for t in manifest.graphs["task"].outputs]
            task = {name: _take(arrays, f"{prefix}task/{name}") for name in names}
        _same_batch(
            prefix, [*rest.values(), *([] if mask is None else [mask]), *([] if frames is not None else task.values())]
        )
        if frames is not None:
            _same_batch(prefix, [frames, *task.values(), graphs["task"].inputs["image"][: len(frames)]])
            rest["frames"] = frames
        for key in rest.keys() - {"logits"}:
            if rest[key].min() < 0.0 or rest[key].max() > 1.0:
                raise _fault(f"{prefix + key!r} has values outside [0, 1]", code="E-selftest-range")
        if mask is not None and not np.isin(mask, (0.0, 1.0)).all():
            raise _fault(f"{prefix + 'mask'!r} has values other than 0 and 1", code="E-selftest-mask")
        norms = arrays.pop(prefix + "score_norms", None) if preset.ssni is not None else None
        if norms is not None:
            _same_batch(prefix, [rest["image"], norms])
        rows, states = _states(arrays, prefix, rest["image"])
        seed = int(_take(arrays, prefix + "seed").item())
        pipelines[name] = PipelineVectors(
            seed=seed, mask=mask, task=task, score_norms=norms, rows=rows, states=states, **rest
        )
    if arrays:
        raise _fault(f"{min(arrays)!r} does not belong to its preset", code="E-selftest-unknown")
    return SelfTest(graphs, pipelines)


def _states(
    arrays: dict[str, NDArray[Any]], prefix: str, image: Float32
) -> tuple[tuple[int, ...] | None, Float32 | None]:
    if not {prefix + "rows", prefix + "states"} & set(arrays):
        return None, None
    rows, states = _take(arrays, prefix + "rows"), _take(arrays, prefix + "states")
    if rows[0] < 0 or (np.diff(rows) <= 0).any() or states.shape[1] != len(rows):
        raise _fault(
            f"{prefix + 'rows'!r} must rise from 0 on and name one row for each of {prefix + 'states'!r}",
            code="E-selftest-rows",
        )
    _same_batch(prefix, [image, states])
    return tuple(map(int, rows)), states


def _take(arrays: dict[str, NDArray[Any]], key: str) -> NDArray[Any]:
    if key not in arrays:
        raise _fault(f"{key!r} is missing", code="E-selftest-missing")
    return arrays.pop(key)


def _same_batch(prefix: str, arrays: list[NDArray[Any]]) -> None:
    sizes = sorted({len(array) for array in arrays})
    if len(sizes) > 1:
        raise _fault(f"the arrays of {prefix!r} have different batch sizes {sizes}", code="E-selftest-batch")


def _fault(what: str, *, code: str) -> BundleError:
    return BundleError(f"{SELFTEST_FILE}: {what}; export the bundle again", code=code)

"""Partial results that cannot be read are measured again; they stop nothing, and run nothing."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgepure.errors import ConfigError
from edgepure.methods import EpsSpec
from edgepure_calibration.calibrate.norm_store import NormStore
from edgepure_calibration.evaluate.store import Store
from edgepure_calibration.quantize.recording import Samples
from edgepure_calibration.quantize.work import Work

KEY = {"calibration": 1, "request": 2}


def objects(data: bytes) -> bytes:
    """Arrays that only a pickle can hold."""
    file = io.BytesIO()
    np.savez(file, other=np.array([object()], dtype=object))
    return file.getvalue()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "something else": lambda data: b"\xff" + data[::-1],
    "objects": objects,
}


def damage(path: Path, kind: str) -> None:
    path.write_bytes(DAMAGES[kind](path.read_bytes()))


@pytest.mark.parametrize("kind", DAMAGES)
def test_quantization(tmp_path: Path, kind: str) -> None:
    samples = Samples({"x": np.ones((2, 3), np.float32)}, np.ones((2, 3), np.float32), 2)
    work = Work(tmp_path, KEY)
    work.put_samples("step", samples)
    work.put("sensitivity", {"a": 1.5})
    again = Work(tmp_path, KEY)
    assert again.resumed and again.get("sensitivity") == {"a": 1.5} and again.samples("step") is not None
    damage(tmp_path / "samples_step.npz", kind)
    damage(tmp_path / "sensitivity.json", kind)
    again = Work(tmp_path, KEY)
    assert again.samples("step") is None and again.get("sensitivity") is None
    (tmp_path / "key.json").write_bytes(b'{"calibration": 1, "request": "\xff"}')
    with pytest.raises(ConfigError, match="something else than the work"):
        Work(tmp_path, KEY)


@pytest.mark.parametrize("kind", DAMAGES)
def test_calibration(tmp_path: Path, kind: str) -> None:
    path, probe = tmp_path / "norms.npz", EpsSpec(probes=2)
    store = NormStore(path)
    store.norms("clean", probe, 3)[:] = 4.0
    store.save(now=True)
    assert NormStore(path).norms("clean", probe, 3).tolist() == [4.0] * 3
    damage(path, kind)
    assert np.isnan(NormStore(path).norms("clean", probe, 3)).all()


@pytest.mark.parametrize("kind", DAMAGES)
def test_evaluation(tmp_path: Path, kind: str) -> None:
    store, what = Store(tmp_path, {}), {"what": "draws"}
    store.part(what, lambda: {"images": np.zeros(3)})
    damage(next(tmp_path.iterdir()), kind)
    assert store.part(what, lambda: {"images": np.ones(3)})["images"].tolist() == [1.0] * 3

"""A self-test has to fail when it should."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli_process import run
from edgepure.atomic import write_npz
from edgepure.bundle import Bundle
from edgepure.errors import BundleError, ProviderError
from edgepure.verification import Check, Verification, verify
from tiny_bundle import FIXED_MAP, rehash, selftest_arrays


def record(bundle: Path, **changes: np.ndarray) -> None:
    """Record other vectors (keys with __ for /), and hash the files anew as one who means harm could."""
    arrays: dict[str, Any] = selftest_arrays()
    for key, value in changes.items():
        arrays[key.replace("__", "/")] = value
    write_npz(bundle / "selftest.npz", arrays)
    rehash(bundle)


def failing(found: Verification) -> set[tuple[str, str]]:
    return {(check.subject, check.quantity) for check in found.checks if not check}


def test_a_good_bundle_passes(tiny_bundle: Path) -> None:
    shares: list[float] = []
    found = verify(tiny_bundle, threads=1, on_progress=lambda subject, share: shares.append(share))
    assert found and failing(found) == set()
    assert "all 16 comparisons pass" in str(found)
    assert found.unrecorded == ("adaptive",)
    assert shares == sorted(shares) and len(shares) == 7
    assert json.loads(json.dumps(found.to_json()))["ok"] is True
    assert max(check.max_error / check.tolerance for check in found.checks if check.tolerance > 0) < 0.1


def test_graphs_alone(tiny_bundle: Path) -> None:
    found = verify(Bundle.open(tiny_bundle), threads=1, pipelines=False)
    assert found and all(check.subject.startswith("graph ") for check in found.checks)
    assert found.unrecorded == ()


def test_other_weights_with_the_right_hash_fail(own_bundle: Path) -> None:
    (own_bundle / "weights.bin").write_bytes((FIXED_MAP + np.float32(2.0)).tobytes())
    rehash(own_bundle)
    found = verify(own_bundle, threads=1)
    assert not found
    assert {("graph unet", "epsilon"), ("graph step", "x_next"), ("pipeline uniform", "purified")} <= failing(found)
    assert not any(subject in ("graph classifier", "graph mask") for subject, _ in failing(found))
    assert "comparisons fail" in str(found)


@pytest.mark.parametrize(("factor", "passes"), [(0.5, True), (1.5, False)])
def test_the_tolerance_is_where_it_is_said_to_be(factor: float, passes: bool, own_bundle: Path) -> None:
    epsilon = selftest_arrays()["unet/out/epsilon"]
    moved = epsilon.copy()
    moved[1, 0, 2, 3] += np.float32(factor * 2e-4 * max(1.0, float(np.abs(epsilon).max())))
    record(own_bundle, unet__out__epsilon=moved)
    assert bool(verify(own_bundle, threads=1, pipelines=False)) is passes


def test_a_label_that_flips_fails_even_if_numbers_are_close(own_bundle: Path) -> None:
    logits = selftest_arrays()["pipeline/uniform/logits"]
    flipped = np.where(np.arange(2) == logits.argmax(axis=1)[:, None], logits, logits.max(axis=1, keepdims=True) + 1e-3)
    record(own_bundle, pipeline__uniform__logits=flipped.astype(np.float32))
    assert ("pipeline uniform", "labels") in failing(verify(own_bundle, threads=1))


def test_masks_may_differ_in_few_pixels_only(own_bundle: Path) -> None:
    mask = selftest_arrays()["pipeline/heterogeneous/mask"]
    for pixels, passes in ((2, True), (4, False)):  # of 512; 0.5 % are 2.56
        other = mask.copy()
        other[0, 0, 0, :pixels] = 1.0 - other[0, 0, 0, :pixels]
        record(own_bundle, pipeline__heterogeneous__mask=other)
        assert (("pipeline heterogeneous", "mask") not in failing(verify(own_bundle, threads=1))) is passes


def test_damage_is_found_before_anything_runs(own_bundle: Path) -> None:
    opened = Bundle.open(own_bundle)
    os.truncate(own_bundle / "weights.bin", 1000)
    with pytest.raises(BundleError, match="cut off"):
        verify(opened, threads=1)
    with pytest.raises(ProviderError, match="unknown provider"):
        verify(_whole(own_bundle), "gpu")


def _whole(bundle: Path) -> Path:
    (bundle / "weights.bin").write_bytes(FIXED_MAP.tobytes())
    return bundle


def test_nothing_compared_is_no_success_and_nan_is_a_failure() -> None:
    assert not Verification("empty", "cpu", 0, 0, ())
    assert not Check("graph step", "x_next", float("nan"), 0.0, 1.0)
    assert Check("pipeline uniform", "labels", 0.0, 0.0, 0.0)


def test_the_command_exits_with_6_and_says_what_failed(own_bundle: Path) -> None:
    (own_bundle / "weights.bin").write_bytes((FIXED_MAP + np.float32(2.0)).tobytes())
    rehash(own_bundle)
    done = run("verify", own_bundle)
    done.fails(6, "comparisons fail", "do not use this bundle")
    assert "FAILED" in done.stdout and "ok" in done.stdout
    found = run("verify", own_bundle, "--json")
    assert found.code == 6 and found.json["ok"] is False

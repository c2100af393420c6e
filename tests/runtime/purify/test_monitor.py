"""The score-norm monitor: exact false-positive rates, what results say, and counters that can be exported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import minimal_bundle
import numpy as np
import pytest
from cli_process import run
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st
from tiny_bundle import images

import edgepure
from edgepure.bundle.bundle import update_manifest
from edgepure.bundle.calibration import Calibration, ProbeCalibration
from edgepure.purify.monitor import Monitor, Reference

PROBE = edgepure.EpsSpec(probes=2, label="index")  # that of the preset `adaptive`
NORMS = st.floats(0.0, 1e6, allow_nan=False)


def calibrated(bundle: Path, norms: np.ndarray, probe: edgepure.EpsSpec = PROBE) -> Path:
    """Give a bundle a calibration whose reference are these norms."""
    sample = tuple(sorted(float(n) for n in norms))
    entry = ProbeCalibration(probe=probe, clean=minimal_bundle.calibration().probes[0].clean, sample=sample)
    calibration = minimal_bundle.calibration(probes=(entry,), chosen=probe)
    update_manifest(bundle, lambda m: m.model_copy(update={"calibration": calibration}))
    return bundle


@pytest.fixture(scope="module")
def watched(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[edgepure.Purifier]:
    """The tiny bundle, calibrated on 99 of its images."""
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path_factory.mktemp("watched") / "tiny"))
    with edgepure.load(bundle, threads=1) as purifier:
        norms = purifier.score_norms(images(99, seed=1), PROBE, noise=1)
    with edgepure.load(calibrated(bundle, norms), threads=1) as purifier:
        yield purifier


# ---- p-values --------------------------------------------------------------------------------------------------------


@given(st.lists(NORMS, min_size=1, max_size=40), NORMS)
def test_p_value_is_the_definition(norms: list[float], score_norm: float) -> None:
    found = Reference(sorted(norms)).p_value(score_norm)
    at_least, at_most = sum(n >= score_norm for n in norms), sum(n <= score_norm for n in norms)
    assert found == pytest.approx(min(1.0, 2 * (min(at_least, at_most) + 1) / (len(norms) + 1)))


@given(st.lists(NORMS, min_size=2, max_size=60), st.floats(0.001, 0.999))
def test_of_exchangeable_images_at_most_that_share_is_flagged(norms: list[float], rate: float) -> None:
    # each image in turn is the new one, the others are the reference: the average is over all that could happen
    flagged = 0
    for i, own in enumerate(norms):
        reference = Reference(sorted(norms[:i] + norms[i + 1 :]))
        flagged += reference.p_value(own) <= rate
    assert flagged <= rate * len(norms) + 1e-9


def test_both_tails_are_off_distribution() -> None:
    reference = Reference([float(n) for n in range(1, 200)])
    assert reference.p_value(0.5) == reference.p_value(1000.0) == reference.smallest == 0.01
    assert reference.p_value(100.0) == 1.0


# ---- results ---------------------------------------------------------------------------------------------------------


def test_results_with_a_score_norm_have_a_p_value(watched: edgepure.Purifier) -> None:
    odd = np.full((1, 1, 16, 16), 0.9, np.float32)
    normal, unusual = watched.run(np.concatenate([images(1, seed=2), odd]), "adaptive", noise=3)
    assert normal.p_value is not None and normal.p_value > 0.05
    assert unusual.p_value == 0.02
    assert (unusual.flagged, unusual.to_dict()["p_value"]) == (None, 0.02)
    assert watched.run(images(1), "uniform")[0].p_value is None


def test_no_p_value_without_a_calibration_of_that_probe(watched: edgepure.Purifier, tiny_bundle: Path) -> None:
    with edgepure.load(tiny_bundle, threads=1) as bare:
        assert bare.run(images(1), "adaptive")[0].p_value is None
        with raises_code("E-calibration-missing"):
            bare.monitor()
    data = watched.preset("adaptive").model_dump()
    data["ssni"]["probe"]["probes"] = 3
    result = watched.run(images(1), data)[0]
    assert result.score_norm is not None and result.p_value is None
    with raises_code("E-monitor-calibration"):
        watched.run(images(1), data, monitor=watched.monitor(0.05))


def test_a_monitor_flags_and_counts(watched: edgepure.Purifier) -> None:
    monitor = watched.monitor(0.05)
    odd = np.full((2, 1, 16, 16), 0.9, np.float32)
    results = watched.classify(np.concatenate([odd, images(10, seed=5)]), "adaptive", noise=4, monitor=monitor)
    assert [r.flagged for r in results[:2]] == [True, True]
    found = monitor.to_dict()
    assert found["images"] == sum(found["p_value_counts"].values()) == 12
    assert found["flagged"] == sum(bool(r.flagged) for r in results)
    assert found["unet_calls"] == 0  # SSNI measures the norm anyway
    low, high = found["flagged_interval"]
    assert low < found["flagged"] / 12 < high


def test_presets_without_ssni_need_the_probe_and_pay_for_it(watched: edgepure.Purifier) -> None:
    with raises_code("E-monitor-ssni"):
        watched.classify(images(1), "uniform", monitor=watched.monitor(0.05))
    monitor = watched.monitor(0.05, probe=True)
    bare = watched.run(images(3), "voted", noise=6)
    seen = watched.run(images(3), "voted", noise=6, monitor=monitor)
    norms = watched.score_norms(images(3), PROBE, noise=6)
    for one, other, norm in zip(bare, seen, norms, strict=True):
        np.testing.assert_allclose(one.image, other.image, atol=2e-6)
        assert other.unet_calls == one.unet_calls + 2
        assert other.score_norm == pytest.approx(norm, rel=1e-5)
        assert other.flagged is not None and other.p_value is not None
    assert monitor.to_dict()["unet_calls"] == 6


def test_unusual_traffic_is_noticed(watched: edgepure.Purifier) -> None:
    monitor = watched.monitor(0.05)
    for _ in range(30):
        monitor.see(0.8)
    assert not monitor.to_dict()["unusual_traffic"]
    for _ in range(10):
        monitor.see(0.02)
    assert monitor.to_dict()["unusual_traffic"]


@pytest.mark.parametrize(
    ("rate", "code"), [(0.0, "E-config-flag-rate"), (1.0, "E-config-flag-rate"), (0.01, "E-monitor-flag-rate")]
)
def test_a_rate_that_cannot_be_kept_is_refused(watched: edgepure.Purifier, rate: float, code: str) -> None:
    with raises_code(code):
        watched.monitor(rate)


def test_prometheus_text_is_cumulative_and_complete() -> None:
    monitor = Monitor(minimal_bundle.calibration(), 0.2)
    for p_value in (0.05, 0.1, 0.95):
        monitor.see(p_value, unet_calls=2)
    values: dict[str, Any] = {}
    for line in monitor.prometheus().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            values[name] = float(value)
    assert values["edgepure_monitor_images_total"] == 3
    assert values["edgepure_monitor_flagged_total"] == 2
    assert values["edgepure_monitor_unet_calls_total"] == 6
    assert values["edgepure_monitor_flag_rate"] == 0.2
    buckets = [values[f'edgepure_monitor_p_value_bucket{{le="{b}"}}'] for b in ("0.1", "0.2", "0.9", "1", "+Inf")]
    assert buckets == [2, 2, 2, 3, 3]
    assert values["edgepure_monitor_p_value_count"] == 3
    assert values["edgepure_monitor_p_value_sum"] == pytest.approx(1.1)


def test_a_calibration_of_another_precision_is_not_used(watched: edgepure.Purifier, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(watched.bundle.path, tmp_path / "tiny"))
    old = watched.bundle.manifest.calibration
    assert isinstance(old, Calibration)
    update_manifest(
        bundle, lambda m: m.model_copy(update={"calibration": old.model_copy(update={"precision": "int8"})})
    )
    with edgepure.load(bundle, threads=1) as purifier:
        assert purifier.run(images(1), "adaptive")[0].p_value is None
        with raises_code("E-calibration-precision"):
            purifier.monitor(0.05)


# ---- the command line ------------------------------------------------------------------------------------------------


def test_classify_flags_rejects_and_writes_counters(watched: edgepure.Purifier, tmp_path: Path) -> None:
    odd = np.full((1, 1, 16, 16), 0.9, np.float32)
    np.save(tmp_path / "mixed.npy", np.concatenate([images(2, seed=2), odd]))
    common = [watched.bundle.path, tmp_path / "mixed.npy", "--preset", "adaptive", "--flag-rate", "0.05"]
    shown = run("classify", *common)
    assert shown.code == 0, shown.stderr
    assert "p value" in shown.stdout and "yes" in shown.stdout
    done = run("classify", *common, "--reject", "--metrics", tmp_path / "m.prom", "--json")
    done.fails(4, "rejected: its score norm", "off-distribution")
    assert [r["flagged"] for r in done.json["results"]] == [False, False]
    assert done.json["failures"][0]["name"].endswith("mixed.npy[2]")
    assert done.json["monitor"]["flagged"] == 1
    assert "edgepure_monitor_flagged_total 1" in (tmp_path / "m.prom").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--reject"], "--reject needs --flag-rate"),
        (["--flag-rate", "0.05"], "--probe"),
        (["--flag-rate", "0.05", "--metrics", "m.txt"], ".prom"),
        (["--flag-rate", "2"], "between 0 and 1"),
    ],
)
def test_wrong_options_are_one_sentence(
    watched: edgepure.Purifier, tmp_path: Path, options: list[str], says: str
) -> None:
    np.save(tmp_path / "image.npy", images(1))
    done = run("classify", watched.bundle.path, tmp_path / "image.npy", "--preset", "uniform", *options)
    done.fails(2, says)

"""From a bundle to a bundle with a variant, or to the same bundle and a reason. No test depends on how fast it ran."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.quantize import Limits, Outcome, QuantizeSettings, stages
from edgepure_calibration.quantize import quantize as quantize_with
from edgepure_calibration.quantize.kernels import KERNELS
from edgepure_calibration.quantize.report import write_report
from edgepure_calibration.quantize.speed import Speed

#: Where the stages are called from.
MODULE = stages
ONE = ProviderSettings(threads=1, slots=8)
#: What the images that are left to judge with can show.
LIMITS = Limits(flips=0.08, accuracy=0.1)  # 56 attacked images: one more that is lost moves the bound by 2 points


def settings(precision: Any, target: Any = "tensorrt", **more: Any) -> QuantizeSettings:
    return QuantizeSettings(precision, target, ("uniform",), redraws=3, **{"limits": LIMITS, **more})


def quantize(*arguments: Any, **options: Any) -> Outcome:
    return quantize_with(*arguments, provider=ONE, **options)


def timed(monkeypatch: pytest.MonkeyPatch, ratio: float) -> None:
    """Say how fast the variant is instead of timing it."""
    speeds = tuple(Speed(batch, 10.0, 10.0 / ratio, ratio) for batch in (1, 8))
    monkeypatch.setattr(MODULE, "compare_speed", lambda *args, **more: speeds)


@pytest.mark.parametrize(("precision", "target"), [("fp16", "tensorrt"), ("int8", "cpu"), ("fp8", "tensorrt")])
def test_an_accepted_variant_is_in_the_bundle_with_its_evidence(
    own_digits: Path,
    clean: LabelledImages,
    attacked: LabelledImages,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    target: str,
) -> None:
    timed(monkeypatch, 1.9)
    before = {p.name: p.read_bytes() for p in own_digits.iterdir() if p.is_file() and p.name != "bundle.json"}
    outcome = quantize(own_digits, settings(precision, target), clean, attacked)
    assert outcome and outcome.accepted and not outcome.reasons
    bundle = Bundle.open(own_digits)  # every hash
    entries = bundle.manifest.variants[precision]  # type: ignore[index]
    assert set(entries) == {"step", "unet"}
    assert {e.precision for e in entries.values()} == {precision}
    assert {e.target for e in entries.values()} == {None if precision == "fp16" else target}
    assert {p.name: p.read_bytes() for p in own_digits.iterdir() if p.is_file() and p.name != "bundle.json"} == before
    evidence = json.loads((own_digits / f"variants/{precision}/evidence.json").read_text())
    assert evidence["accepted"] and evidence["precision"] == precision and evidence["target"] == target
    gate = evidence["attempts"][-1]["gates"][0]
    assert gate["flips"]["clean"]["decisions"] == 3 * evidence["data"]["clean"]["images"]
    if precision == "fp16":
        assert "not measured" in evidence["speed"] and "twin" in evidence["measured_on"]
    else:
        assert evidence["graphs"]["step"]["qdq"]["quantize_nodes"] > 10
        assert set(evidence["sensitivity"]) >= {"unet.conv_in/Conv_0", "unet.time1/Gemm_0"}
    assert not list(own_digits.parent.glob(".*")), "the work folder is gone"
    assert (evidence["kernel"] is None) == (target != "cpu")
    if target == "cpu":
        assert evidence["kernel"]["convolutions"] in KERNELS
        assert set(evidence["kernel"]["matrix_product_times_faster"]) == {"1", "8"}
        with edgepure.load(own_digits, precision=precision, threads=1) as purifier:
            labels = [r.label for r in purifier.run(clean.images[:8], "uniform", noise=1)]
            norms = purifier.score_norms(clean.images[:4], "uniform-ssni", noise=1)
        with edgepure.load(own_digits, threads=1) as plain:
            assert [r.label for r in plain.run(clean.images[:8], "uniform", noise=1)] == labels
            exact = plain.score_norms(clean.images[:4], "uniform-ssni", noise=1)
        assert 0.0 < np.abs(norms - exact).max() < 0.2 * exact.max()  # it is another graph


def test_a_second_variant_of_a_precision_replaces_the_first(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 1.9)
    assert quantize(own_digits, settings("fp16"), clean)
    assert quantize(own_digits, settings("fp16", keep=("unet.attention",)), clean)
    manifest = Bundle.open(own_digits).manifest
    assert set(manifest.variants) == {"fp16"}
    evidence = json.loads((own_digits / "variants/fp16/evidence.json").read_text())
    assert len(evidence["kept"]) == 4 and all(name.startswith("unet.attention") for name in evidence["kept"])


def test_what_is_not_faster_is_refused_and_nothing_changes(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 0.97)
    before = Bundle.open(own_digits).content_hash
    outcome = quantize(own_digits, settings("fp16", "cpu"), clean)
    assert not outcome
    assert "not faster on this device (0.97 x" in outcome.reasons[0] and "--for" in outcome.reasons[0]
    assert Bundle.open(own_digits).content_hash == before
    assert not list(own_digits.parent.glob(".*"))


def test_a_variant_that_flips_decisions_keeps_ever_more_layers_and_is_refused_at_last(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed(monkeypatch, 1.9)
    real = MODULE.measure_ranges
    monkeypatch.setattr(
        MODULE, "measure_ranges", lambda *args, **more: {tap: (-2e4, 2e4) for tap in real(*args, **more)}
    )
    before = Bundle.open(own_digits).content_hash
    outcome = quantize(own_digits, settings("int8", "cpu"), clean)
    attempts = outcome.evidence["attempts"]
    assert [len(a["kept"]) for a in attempts] == [0, 1, 2, 4, 8]  # 15 layers in all
    assert attempts[0]["error"] > attempts[-1]["error"]
    assert not outcome and any("flips" in reason for reason in outcome.reasons)
    assert Bundle.open(own_digits).content_hash == before
    page = write_report(tmp_path / "report.html", "digits", outcome.evidence).read_text()
    assert "is refused" in page and "Error of each layer" in page and "Drift of the trajectories" in page


def test_layers_that_spoil_it_are_kept_until_the_gate_holds(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 1.9)
    real, bad = MODULE.measure_ranges, "unet.middle1.conv1/Conv_0"

    def measure(*args: Any, **more: Any) -> Any:
        return {**real(*args, **more), (bad, "output"): (-1e5, 1e5)}

    monkeypatch.setattr(MODULE, "measure_ranges", measure)
    outcome = quantize(own_digits, settings("int8", "cpu"), clean)
    assert outcome
    assert bad in outcome.evidence["kept"]
    assert next(iter(outcome.evidence["sensitivity"])) == bad
    assert len(outcome.evidence["attempts"]) > 1


def test_a_named_work_folder_is_kept_with_all_that_others_have_in_it(
    own_digits: Path, clean: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 1.9)
    folder = tmp_path / "theirs"
    (folder / "draft").mkdir(parents=True)
    (folder / "draft" / "notes").write_text("mine")
    assert quantize(own_digits, settings("fp16"), clean, work=folder)
    assert (folder / "draft" / "notes").read_text() == "mine"
    assert {path.suffix for path in folder.iterdir() if path.is_file()} == {".npz"}
    assert not list(folder.glob(".*")), "what only that run needed is gone"


def test_an_interrupted_run_goes_on_where_it_was(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 1.9)
    before = Bundle.open(own_digits).content_hash

    seen: list[float] = []

    def stop(share: float, what: str) -> None:
        seen.append(share)
        if what.startswith("measuring the sensitivity") and seen[-6] > seen[0] and len(set(seen[-6:])) > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(own_digits, settings("int8", "cpu"), clean, on_progress=stop)
    assert Bundle.open(own_digits).content_hash == before
    (work,) = own_digits.parent.glob(".digits.quantize-*")
    kept = [json.loads(path.read_text()) for path in work.glob("*.json")]
    (known,) = (found for found in kept if isinstance(found, dict) and "unet.conv_in/Conv_0" in found)
    assert 0 < len(known) < 15
    monkeypatch.setattr(MODULE, "record", None)  # nobody may record or measure ranges again
    monkeypatch.setattr(MODULE, "measure_ranges", None)
    outcome = quantize(own_digits, settings("int8", "cpu"), clean)
    assert outcome
    assert {name: outcome.evidence["sensitivity"][name] for name in known} == known
    assert not work.exists()


def test_other_settings_do_not_go_on_with_old_results(
    own_digits: Path, clean: LabelledImages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed(monkeypatch, 1.9)

    def stop(share: float, what: str) -> None:
        if what.startswith("measuring the sensitivity"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(own_digits, settings("int8", "cpu"), clean, work=tmp_path / "work", on_progress=stop)
    monkeypatch.setattr(MODULE, "measure_ranges", lambda *a, **k: pytest.skip("measured anew"))
    with pytest.raises(pytest.skip.Exception, match="measured anew"):
        quantize(own_digits, settings("int8", "cpu", seed=8), clean, work=tmp_path / "work")


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"keep": ("unet.convin",)}, "E-layer-name", "'unet.convin'"),
        ({"presets": ("none",)}, "E-preset-unknown", "'none'"),
        ({"limits": replace(LIMITS, flips=1e-4)}, "E-quantize-images", "--max-flips"),
        ({"limits": replace(LIMITS, accuracy=1e-4)}, "E-quantize-images", "--max-loss"),
        ({"redraws": 1}, "E-quantize-decisions", "at least 2"),
    ],
)
def test_wrong_requests_are_refused_before_anything_is_measured(
    own_digits: Path, clean: LabelledImages, change: dict[str, Any], code: str, words: str
) -> None:
    with raises_code(code) as caught:
        quantize(own_digits, replace(settings("int8"), **change), clean)
    assert words in str(caught.value)
    assert not list(own_digits.parent.glob(".*"))


def test_constant_images_are_refused(own_digits: Path, clean: LabelledImages) -> None:
    grey = LabelledImages(np.full_like(clean.images, 0.5), clean.labels, clean.names)
    with raises_code("E-data-constant"):
        quantize(own_digits, settings("int8"), grey)

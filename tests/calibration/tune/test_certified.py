"""Tuning for certificates: every candidate has one, and the certified presets are in the bundle with their numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_process import run
from codes import raises_code

import edgepure
from edgepure import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.tune import CertifiedSettings, CertifiedTuning, tune_certified
from edgepure_calibration.tune.certified import CERTIFIED_FILE
from edgepure_calibration.tune.certified_search import CertifiedSpace

ONE = ProviderSettings(threads=1)
SETTINGS = CertifiedSettings(
    radius=0.2, calls=3, trials=5, images=8, final_images=10, finalists=2, n=150, final_n=300, alpha=0.01, seed=1
)


class Drawn:
    """Suggests at random, as the sampler may."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def suggest_categorical(self, name: str, choices: object) -> object:
        return list(choices)[self._rng.integers(len(list(choices)))]  # type: ignore[call-overload]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(np.exp(self._rng.uniform(np.log(low), np.log(high))) if log else self._rng.uniform(low, high))

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return int(self._rng.integers(low, high + 1))


@pytest.mark.parametrize(
    ("radius", "calls", "masks"), [(0.25, 1, True), (0.25, 5, True), (2.0, 4, True), (0.05, 3, False)]
)
def test_every_candidate_has_a_certificate_and_keeps_to_the_budget(
    manifest: Manifest, radius: float, calls: int, masks: bool
) -> None:
    planner, counted = manifest.planner(), SETTINGS.counted(1000)
    space = CertifiedSpace(planner, masks, radius, calls, replace(counted, radius=radius))
    seen = set()
    for seed in range(60):
        preset = space.candidate(Drawn(seed)).preset
        seen.add(preset.method.method)
        sigma = planner.certified_sigma(preset)
        assert sigma == pytest.approx(preset.method.top_level, rel=1e-6)
        assert space.low <= sigma * 1.001 and sigma <= space.high * 1.001
        assert planner.plan(preset).unet_calls <= calls
    assert seen == ({"smooth", "split"} if masks and calls > 1 else {"smooth"})


def test_presets_and_their_numbers_are_in_the_bundle(bundle: Path, data: LabelledImages) -> None:
    found = tune_certified(bundle, data, SETTINGS, provider=ONE, eight_bits=True)
    after = Bundle.open(bundle)
    assert {"certified", "certified-fast"} <= set(after.manifest.presets)
    evidence = json.loads((bundle / CERTIFIED_FILE).read_text())
    assert evidence == found.to_dict() and len(evidence["trials"]) == 5 and evidence["images"]["finalists"] == 10
    best = evidence["chosen"]["certified"]
    assert best["certified"]["right"] == max(f["certified"]["right"] for f in evidence["finalists"])
    assert best["certified"]["right"] <= best["right"]["right"] and best["certified"]["right"] > 5
    assert evidence["chosen"]["certified-fast"]["unet_calls"] <= best["unet_calls"]
    images = (np.rint(data.images[:2].astype(np.float64) * 255.0) / 255.0).astype(np.float32)
    with edgepure.load(bundle, threads=1) as purifier:
        certified = purifier.certify(images, "certified", n=300, alpha=0.01, radius=0.2, noise=1)
    assert [c.label for c in certified] == [int(label) for label in data.labels[:2]]  # type: ignore[index]


def test_the_same_call_goes_on_and_gives_the_same(
    bundle: Path, data: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tuned(trials: int, work: Path | None) -> CertifiedTuning:
        return tune_certified(bundle, data, replace(SETTINGS, trials=trials), provider=ONE, work=work, write=False)

    whole = tuned(4, tmp_path / "one")
    tuned(2, tmp_path / "two")
    kept = {path.name for path in (tmp_path / "two").glob("*.json")}
    again = tuned(4, tmp_path / "two")
    assert [p.to_dict() for p in again.trials] == [p.to_dict() for p in whole.trials]
    assert again.to_dict()["finalists"] == whole.to_dict()["finalists"]
    assert kept <= {path.name for path in (tmp_path / "two").glob("*.json")}


def test_refusals(bundle: Path, data: LabelledImages) -> None:
    for wrong, code in (
        ({"radius": 0.0}, "E-certificate-radius"),
        ({"calls": 0}, "E-tune-count"),
        ({"alpha": 0.7}, "E-certificate-alpha"),
        ({"tolerance": 1.0}, "E-tune-tolerance"),
    ):
        with raises_code(code):
            replace(SETTINGS, **wrong)  # type: ignore[arg-type]
    before = Bundle.open(bundle).manifest
    for change in ({"radius": 99.0, "n": 10}, {"n": 5}, {"final_n": 5}):  # five answers prove nothing
        with raises_code("E-tune-certified-radius"):
            tune_certified(bundle, data, replace(SETTINGS, **change), provider=ONE)  # type: ignore[arg-type]
    assert data.labels is not None
    wrong_labels = replace(data, labels=(data.labels + 1) % 10)
    few = replace(SETTINGS, trials=1, finalists=1, final_images=8, n=60, final_n=60, radius=0.1)
    with raises_code("E-tune-certified-none"):
        tune_certified(bundle, wrong_labels, few, provider=ONE)
    assert Bundle.open(bundle).manifest == before
    with raises_code("E-data-labels"):
        tune_certified(bundle, replace(data, labels=None), SETTINGS, provider=ONE)


def test_the_command(bundle: Path, data: LabelledImages, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=data.images, labels=data.labels)
    asked = ("tune", bundle, "--data", tmp_path / "data.npz", "--threads", 1, "--trials", 2, "--images", 8)
    certified = (*asked, "--objective", "certified", "--radius", 0.2, "--n", 120, "--eight-bits")
    done = run(*certified, "--report", tmp_path / "r.html")
    assert done.code == 0, done.stderr
    assert "certified at r = 0.2" in done.stdout and "written into" in done.stdout
    assert "Certified accuracy by noise" in (tmp_path / "r.html").read_text()
    assert "certified" in Bundle.open(bundle).manifest.presets
    again = run(*certified, "--dry-run", "--json")
    assert again.json["objective"] == "certified" and again.json["written"] is False
    run(*asked, "--objective", "certified").fails(2, "--radius R")
    run(*asked, "--radius", 0.2).fails(2, "--objective certified")
    run(*certified, "--budget-ms", 5).fails(2, "--budget-ms")

"""Tuning with attacks through the defence, on the digits bundle and its twin."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from chromium import not_cut
from codes import raises_code

from edgepure import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure.images.dataset import LabelledImages
from edgepure.parity.verify import verify
from edgepure.purify.scores import Score
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.tune import TuneSettings, tune
from edgepure_calibration.tune.converged import Convergence
from edgepure_calibration.tune.evidence import EVIDENCE_FILE
from edgepure_calibration.tune.report import render
from edgepure_export.twin.twin import load_twin

SETTINGS = TuneSettings(
    calls=3,
    methods=("uniform", "gnsp"),
    references=("uniform",),
    trials=3,
    images=32,
    whitebox_images=8,
    final_images=32,
    final_whitebox_images=8,
    finalists=2,
    eps=0.1,
    search_steps=2,
    search_eot=1,
    final_steps=2,
    final_eot=2,
    seed=3,
    most_votes=2,
)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    images = demo_images()
    return LabelledImages(images.clean, images.labels, tuple(map(str, range(len(images)))))


@pytest.mark.slow
def test_search_and_finalists_are_attacked_in_different_ways(digits: LabelledImages, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(demo_bundle(), tmp_path / "digits"))
    twin = lru_cache(lambda precision: load_twin(bundle, precision=precision, checkpointing=False))
    found = tune(
        bundle,
        digits,
        SETTINGS,
        twin=twin,
        provider=ProviderSettings(threads=1),
    )
    evidence = json.loads((bundle / EVIDENCE_FILE).read_text())
    search, final = (evidence["protocols"][f"white-box of the {part}"] for part in ("search", "finalists"))
    assert search["attack"] != final["attack"]
    assert search["seed"] != final["seed"]
    assert search["attacker's noise"] != final["attacker's noise"]
    assert search["eps"] == final["eps"] == 0.1
    parts = [evidence["protocols"][f"images of the {part}"] for part in ("search", "finalists")]
    assert parts[0]["sha256"] != parts[1]["sha256"]
    assert parts[0]["noise seed"] != parts[1]["noise seed"]
    for point in found.finalists:
        assert point.whitebox is not None
        assert point.robust <= min(point.whitebox.fraction, 1.0)
    assert "white-box" in Bundle.open(bundle).manifest.presets["robust"].description
    for name, curve in found.converged.items():  # what is said of a preset is what the longest attack left
        assert curve.steps == (2, 4, 8)[: len(curve.steps)] and len(curve.steps) > 1
        assert found.chosen[name].whitebox == curve.lowest
        assert curve.settled or len(curve.steps) == 3
        assert evidence["converged"][name]["steps"] == list(curve.steps)
        assert f"{curve.steps[-1]} steps" in Bundle.open(bundle).manifest.presets[name].description
    assert set(found.converged) == {"fast", "balanced", "robust"}

    # with the twin at hand, the new presets get recorded purifications, and the deployed graphs repeat them
    assert found.unrecorded == ()
    assert {"fast", "balanced", "robust"} <= set(Bundle.open(bundle).selftest().pipelines)
    assert verify(bundle, threads=1)

    page = render(found)
    for name in ("fast", "balanced", "robust", *found.references):
        assert name in page
    assert "apgd-dlr" in page
    assert "with an attack of another kind" in page
    assert "after 4 steps" in page
    assert page.count('<svg class="plot"') == 2
    assert not_cut(page)
    assert "http" not in page.replace("http://www.w3.org", "")


def test_more_steps_until_no_more_is_found() -> None:
    def curve(*right: int) -> Convergence:
        scores = tuple(Score(200, n, 0, 0) for n in right)
        return Convergence(tuple(20 * 2**i for i in range(len(right))), scores)

    assert not curve(160).settled and "more steps may find more" in str(curve(160))
    assert curve(160, 158).settled and not curve(160, 157).settled
    assert curve(160, 150, 149).settled and curve(160, 150, 149).lowest.right == 149
    assert curve(160, 163).lowest.right == 160
    assert str(curve(160, 150, 149)) == "80.0 % after 20 steps, 75.0 % after 40 steps, 74.5 % after 80 steps: converged"
    assert Convergence.from_dict(json.loads(json.dumps(curve(160, 158).to_dict()))) == curve(160, 158)


def test_without_a_twin_there_is_no_white_box(digits: LabelledImages, tmp_path: Path) -> None:
    with raises_code("E-tune-twin"):
        tune(demo_bundle(), digits, TuneSettings(calls=3), work=tmp_path / "s", write=False)


def test_attacked_images_of_another_radius_are_still_attacks(digits: LabelledImages) -> None:
    """The packaged attacks fool the packaged classifier: what `make_parts` asks for."""
    twin = load_twin(demo_bundle(), checkpointing=False)
    import torch

    with torch.no_grad():
        answers = twin.logits(torch.from_numpy(demo_images().adversarial)).argmax(1).numpy()
    assert np.mean(answers == digits.labels) < 0.1

"""The robustness table of the digits: what it covers, and that its page says what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import robustness

import edgepure
from edgepure.demo import demo_bundle
from edgepure_calibration.evaluate import EvaluateSettings

pytestmark = pytest.mark.samples


def test_the_table_has_every_preset_and_every_attack_that_was_promised() -> None:
    todo = robustness.tasks(quick=False)
    table = [t for t in todo if t.group == "table"]
    with edgepure.load(demo_bundle(), threads=1) as purifier:
        assert {t.preset for t in table} == set(purifier.presets)
    for task in table:
        assert set(task.settings.attacks) == {"transfer", "pgd", "apgd", "low-frequency", "square"}
        assert (task.settings.votes, task.settings.worst, task.settings.images) == (5, 10, 64)
    strong = [t.settings for t in todo if t.group == "strong"]
    assert strong and all((s.steps, s.eot) == (100, 20) for s in strong)
    assert any(t.settings.mask_gradient == "soft" and t.preset == "heterogeneous" for t in todo)
    assert any(t.settings.noise_policy for t in todo)
    assert [t.title for t in robustness.tasks(quick=True)] == [t.title for t in todo]


def test_the_page_of_a_tiny_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = EvaluateSettings(eps=0.05, steps=1, eot=1, images=4, votes=2, worst=2, queries=3, attacks=("pgd",))
    todo = [
        robustness.Task("strong", "uniform", tiny),
        robustness.Task("closer", "heterogeneous", replace(tiny, mask_gradient="soft")),
        robustness.Task("noise", "uniform", replace(tiny, noise_policy=True)),
        robustness.Task("table", "uniform", tiny),
    ]
    groups = {t.group: robustness.merged([(t, robustness.work_on(t, demo_bundle(), tmp_path))]) for t in todo}
    page = robustness.markdown(groups, robustness.ablation(demo_bundle(), quick=True), 61.0, 2, quick=True)
    for text in (
        "A quick run",
        "1 min 1 s",
        "known seed",
        "pgd, mask gradient soft",
        "| multi | 44 | 40 |",
        "What was not tested",
        "`single (fused)` against `multi`: 91 % of all UNet calls saved",
        "[all]",
        " of 20 answers differ",
    ):
        assert text in page, text
    whole = robustness.everything(groups)
    assert [p.name for p in whole.presets] == ["uniform"]
    assert len(whole.presets[0].attacks) == 1  # the same protocol twice is one line
    assert "accuracy" in page and "[1]" in page

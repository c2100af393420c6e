"""A card keeps what earlier runs measured: a weaker run never replaces a stronger one unasked."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attack_protocols import PROTOCOL

from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle
from edgepure_calibration.evaluate import Accuracy, AttackResult, Evaluated, EvaluateSettings, PresetResult, Rule
from edgepure_calibration.evaluate.card import CARD, CARD_JSON, merged, write_card
from edgepure_calibration.work import bundle_key

#: As the evaluation of the digits words it.
BALL = "linf ball of radius 0.05 on images in [0, 1]"
RULES = (Rule("single"), Rule("worst", 3), Rule("majority", 3))
MORE = (Rule("single"), Rule("worst", 10), Rule("majority", 5))


def result(name: str, images: int, right: int, rules: tuple[Rule, ...] = RULES, **changes: Any) -> AttackResult:
    protocol = replace(PROTOCOL, attack=name, seeds=(0,), **changes)
    accuracies = tuple(Accuracy(protocol, rule, (right,), images) for rule in rules)
    return AttackResult(accuracies, (0.1,), 3.0, accuracies[0], right=tuple(np.arange(images) < right for _ in RULES))


def evaluated(bundle: Path, *attacks: AttackResult, preset: str = "uniform", images: int = 10) -> Evaluated:
    manifest = Bundle.open(bundle, verify=False).manifest
    clean = result("none", images, images, steps=None, eot=None, restarts=None)
    made = PresetResult(preset, manifest.presets[preset], 3, clean, attacks)
    return Evaluated(
        bundle="digits",
        bundle_sha256=bundle_key(manifest),
        presets=(made,),
        images=np.zeros((images, 1, 16, 16), np.float32),
        labels=np.zeros(images, np.int64),
        classes=("0", "1"),
        settings=EvaluateSettings(),
        facts={"date": "today", "edgepure": "0", "engine": "cpu, fp32", "device": "some"},
        all_presets=tuple(manifest.presets),
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(demo_bundle(), tmp_path / "digits"))


def on_card(bundle: Path) -> dict[tuple[str, str], int]:
    """(preset, attack) to the images that its number is of."""
    data = json.loads((bundle / CARD_JSON).read_text())
    return {(p["name"], a["attack"]): a["accuracies"][0]["images"] for p in data["presets"] for a in p["attacks"]}


def test_presets_and_attacks_that_were_not_measured_again_stay(bundle: Path) -> None:
    assert write_card(bundle, evaluated(bundle, result("pgd", 10, 5)), anew=True) == ()
    write_card(bundle, evaluated(bundle, result("square", 10, 7)))
    write_card(bundle, evaluated(bundle, result("pgd", 10, 3), preset="gdmp"))
    assert on_card(bundle) == {("uniform", "pgd"): 10, ("uniform", "square"): 10, ("gdmp", "pgd"): 10}
    text = (bundle / CARD).read_text()
    assert "uniform" in text and "gdmp" in text


def test_numbers_by_other_decision_rules_say_by_which(bundle: Path) -> None:
    """The heading of a column holds for all of it: ten answers leave an attacker more chances than three."""
    write_card(bundle, evaluated(bundle, result("pgd", 10, 5, MORE)), anew=True)
    write_card(bundle, evaluated(bundle, result("square", 10, 3), preset="gdmp"))
    heading, rows = _summary((bundle / CARD).read_text())
    assert heading[3:6] == ["single purification", "worst", "majority"]
    assert [cell.split("] ")[1] for cell in rows["uniform"][3:6]] == [
        "pgd",
        "worst of 10, pgd",
        "majority of 5, pgd",
    ]
    assert [cell.split("] ")[1] for cell in rows["gdmp"][3:6]] == [
        "square",
        "worst of 3, square",
        "majority of 3, square",
    ]


def test_one_decision_rule_is_named_in_the_heading(bundle: Path) -> None:
    write_card(bundle, evaluated(bundle, result("pgd", 10, 5)), anew=True)
    heading, rows = _summary((bundle / CARD).read_text())
    assert heading[3:] == ["single purification", "worst of 3", "majority of 3", "all attacks, majority of 3"]
    assert "worst of" not in " ".join(rows["uniform"])


def _summary(text: str) -> tuple[list[str], dict[str, list[str]]]:
    """Heading and rows, by preset, of the first table of a card."""
    table = [line.strip("| ").split(" | ") for line in text.split("\n## ")[1].splitlines() if line.startswith("|")]
    return table[0], {row[0]: row for row in table[2:]}


def test_the_card_that_the_digits_bring_survives_a_small_run(bundle: Path) -> None:
    """It is of an older format of the key."""
    before = on_card(bundle)
    write_card(bundle, evaluated(bundle, result("square", 10, 10, queries=20, steps=None, eot=None, bounded=BALL)))
    after = on_card(bundle)
    assert len(before) > 10 and after == before


@pytest.mark.parametrize("weaker", [{"steps": 20}, {"eot": 1}, {"images": 8}])
def test_a_weaker_run_is_told_and_does_not_replace(bundle: Path, weaker: dict[str, int]) -> None:
    images = weaker.pop("images", 10)
    write_card(bundle, evaluated(bundle, result("pgd", 10, 5)), anew=True)
    small = evaluated(bundle, result("pgd", images, 8, **weaker), images=images)
    assert write_card(bundle, small) == ("uniform, pgd",)
    assert on_card(bundle) == {("uniform", "pgd"): 10}
    write_card(bundle, small, anew=True)
    assert on_card(bundle) == {("uniform", "pgd"): images}


def test_as_strong_a_run_replaces_and_another_radius_stands_beside(bundle: Path) -> None:
    old = evaluated(bundle, result("pgd", 10, 5)).presets
    new, kept = merged(evaluated(bundle, result("pgd", 10, 4, steps=100), result("pgd", 10, 2, eps=0.1)), old)
    assert kept == ()
    assert sorted(a.by_rule("single").right[0] for a in new.presets[0].attacks) == [2, 4]


def test_a_preset_that_was_changed_begins_anew(bundle: Path) -> None:
    found = evaluated(bundle, result("pgd", 10, 5))
    votes = found.presets[0].preset.votes.model_copy(update={"count": 7})
    other = replace(found.presets[0], preset=found.presets[0].preset.model_copy(update={"votes": votes}))
    new, _ = merged(evaluated(bundle, result("square", 10, 6)), (other,))
    assert [a.protocol.attack for a in new.presets[0].attacks] == ["square"]

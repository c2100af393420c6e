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
from edgepure_calibration.evaluate.baselines import BaselineMethod, BaselinePreset
from edgepure_calibration.evaluate.card import CARD, CARD_JSON, write_card
from edgepure_calibration.evaluate.merging import Earlier, merged
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
    old = Earlier(evaluated(bundle, result("pgd", 10, 5)).presets)
    new, kept = merged(evaluated(bundle, result("pgd", 10, 4, steps=100), result("pgd", 10, 2, eps=0.1)), old)
    assert kept == ()
    assert sorted(a.by_rule("single").right[0] for a in new.presets[0].attacks) == [2, 4]


def test_a_preset_that_was_changed_begins_anew(bundle: Path) -> None:
    found = evaluated(bundle, result("pgd", 10, 5))
    votes = found.presets[0].preset.votes.model_copy(update={"count": 7})
    other = replace(found.presets[0], preset=found.presets[0].preset.model_copy(update={"votes": votes}))
    new, _ = merged(evaluated(bundle, result("square", 10, 6)), Earlier((other,)))
    assert [a.protocol.attack for a in new.presets[0].attacks] == ["square"]


def test_protocols_have_one_number_in_terminal_page_card_and_json(bundle: Path) -> None:
    """Those of this run keep theirs on the card, where those of earlier runs come after them."""
    write_card(bundle, evaluated(bundle, result("square", 10, 7, steps=None, eot=None)), anew=True)
    found = evaluated(bundle, result("pgd", 10, 5))
    write_card(bundle, found)
    shown = found.footnotes().lines()  # what the terminal and the page show
    data = json.loads((bundle / CARD_JSON).read_text())
    text = (bundle / CARD).read_text()
    numbers = {a["attack"]: {x["footnote"] for x in a["accuracies"]} for a in data["presets"][0]["attacks"]}
    assert numbers == {"pgd": {2}, "square": {3}}
    assert found.to_dict()["presets"][0]["attacks"][0]["accuracies"][0]["footnote"] == 2
    assert [line[:7] for line in shown[1:]] == ["[1] cle", "[2] pgd"]
    assert [line[:7] for line in data["footnotes"][1:]] == ["[1] cle", "[2] pgd", "[3] squ"]
    assert "[2] pgd |" in text and all(f"- {line}" in text for line in data["footnotes"])


def test_a_protocol_that_is_not_on_the_card_any_more_leaves_its_number_free(bundle: Path) -> None:
    write_card(bundle, evaluated(bundle, result("pgd", 10, 5)), anew=True)
    write_card(bundle, evaluated(bundle, result("pgd", 10, 8, steps=5), result("square", 10, 7)))
    data = json.loads((bundle / CARD_JSON).read_text())
    assert [line.split("]")[0] for line in data["footnotes"]] == ["[all", "[1", "[3", "[4"]
    assert "5 steps" not in "".join(data["footnotes"])


def not_tested(bundle: Path) -> str:
    return "\n".join(json.loads((bundle / CARD_JSON).read_text())["not_tested"])


def test_what_an_earlier_run_tested_was_tested(bundle: Path) -> None:
    soft = result("pgd", 300, 5, steps=100, eot=20, mask_gradient="soft", eps=0.1)
    write_card(bundle, evaluated(bundle, soft, preset="heterogeneous", images=300), anew=True)
    assert "linf of radius 0.1;" in not_tested(bundle) and "attention mask" not in not_tested(bundle)
    assert "critics ask" not in not_tested(bundle)
    write_card(bundle, evaluated(bundle, result("square", 10, 7, steps=None, eot=None, eps=0.05)))
    said = not_tested(bundle)
    assert "linf of radius 0.05 and linf of radius 0.1;" in said and "attention mask" not in said
    assert "more than 10 to 300 images" in said and "100 and 20" not in said
    (missing,) = (line for line in said.splitlines() if line.startswith("attacks that were not run"))
    assert {"pgd", "square"}.isdisjoint(missing.split(": ")[1].split(", "))
    (others,) = (line for line in said.splitlines() if line.startswith("presets that were not attacked"))
    assert {"heterogeneous", "uniform"}.isdisjoint(others.split(": ")[1].split(", "))


def test_baselines_and_crossed_attacks_stay_too(bundle: Path) -> None:
    first = evaluated(bundle, result("pgd", 10, 5))
    nothing = BaselinePreset(method=BaselineMethod(method="no-defence"))
    simple = PresetResult("no defence", nothing, 0, first.presets[0].clean, (result("pgd", 10, 0),))
    crossed = (("uniform", "gdmp", result("pgd", 10, 6)),)
    write_card(bundle, replace(first, baselines=(simple,), crossed=crossed), anew=True)
    write_card(bundle, evaluated(bundle, result("square", 10, 7)))
    data = json.loads((bundle / CARD_JSON).read_text())
    assert [b["name"] for b in data["baselines"]] == ["no defence"]
    assert [(c["attacked"], c["answers"]) for c in data["crossed"]] == [("uniform", "gdmp")]
    assert "--baseline" not in not_tested(bundle) and "--cross" not in not_tested(bundle)

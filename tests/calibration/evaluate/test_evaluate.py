"""A whole evaluation of the digits bundle, small: attacks, engine, store, card, report."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import not_cut
from codes import raises_code

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.demo import demo_bundle, demo_images
from edgepure.images.dataset import LabelledImages
from edgepure_calibration.attacks import Attack, AttackTarget
from edgepure_calibration.attacks.gradient import GradientAttack
from edgepure_calibration.attacks.square import SquareAttack
from edgepure_calibration.evaluate import Evaluated, EvaluateSettings, OnRay, evaluate, run
from edgepure_calibration.evaluate.card import CARD, CARD_JSON, card, write_card
from edgepure_calibration.evaluate.farm import Hand, Orders
from edgepure_calibration.evaluate.noise_experiment import noise_policy
from edgepure_calibration.evaluate.report import render
from edgepure_calibration.evaluate.runner import Job, Spread
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.work import Work
from edgepure_export.twin.reference import TorchReference
from edgepure_export.twin.twin import load_twin

SETTINGS = EvaluateSettings(
    attacks=("transfer", "pgd", "square"),
    eps=0.1,
    steps=3,
    eot=2,
    images=8,
    seeds=(0, 1),
    worst=3,
    votes=3,
    queries=4,
    selection=2,
    batch=4,
    noise_seed=5,
)


ONE = ProviderSettings(threads=1)


@pytest.fixture(scope="module")
def twin() -> TorchReference:
    return load_twin(demo_bundle(), checkpointing=False)


@pytest.fixture(scope="module")
def digits() -> LabelledImages:
    found = demo_images()
    return LabelledImages(found.clean, found.labels, tuple(map(str, range(len(found)))))


@pytest.fixture(scope="module")
def small(twin: TorchReference, digits: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    work = tmp_path_factory.mktemp("work")
    return evaluate(demo_bundle(), digits, ["uniform"], SETTINGS, twin=twin, provider=ONE, work=work)


def test_every_number_has_its_protocol(small: Evaluated, digits: LabelledImages) -> None:
    (preset,) = small.presets
    assert [a.protocol.attack for a in preset.attacks] == ["transfer", "pgd", "square"]
    for attack in (preset.clean, *preset.attacks):
        assert [a.rule.kind for a in attack.accuracies] == ["single", "worst", "majority"]
        assert [a.rule.count for a in attack.accuracies] == [1, 3, 3]
        for value in (*attack.accuracies, attack.plain):
            made = value.to_dict()["protocol"]
            assert made["data_sha256"] == digits.take(8, 0).sha256
            assert made["bundle_sha256"] == small.bundle_sha256
            assert value.images == 8
        assert len(attack.resubmission) == 3
        assert list(attack.resubmission) == sorted(attack.resubmission)
        assert attack.unet_calls == 3
    transfer, pgd, square = (a.protocol for a in preset.attacks)
    assert (transfer.target, pgd.target) == ("the plain classifier", "the whole defence")
    assert (pgd.steps, pgd.eot, pgd.seeds, pgd.mask_gradient) == (3, 2, (0, 1), None)
    assert (square.queries, square.steps, square.twin) == (4, None, "nothing")
    assert preset.attacks[0].plain.fraction < preset.clean.plain.fraction  # it is an attack on the classifier
    assert [a.rule.kind for a in preset.union] == ["single", "worst", "majority"]
    for value in preset.union:
        assert value.fraction <= min(a.by_rule(value.rule.kind).fraction for a in (preset.clean, *preset.attacks))
        assert value.protocol.seeds == (0, 1) and "transfer, pgd, square" in str(value)


def test_attacks_stay_in_their_ball_and_twin_and_engine_agree(small: Evaluated) -> None:
    for attack in small.presets[0].attacks:
        assert np.abs(attack.images - small.images).max() <= 0.1 + 1e-6
        assert attack.images.min() >= 0.0 and attack.images.max() <= 1.0
        assert attack.agreement is not None
        assert attack.agreement.images == 8
        assert attack.agreement.flips == 0
        assert attack.agreement.difference < 1e-4


def test_memory_is_counted_only_for_attacks_that_differentiate_rows(
    small: Evaluated, twin: TorchReference, digits: LabelledImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting takes more memory than a transferred attack does, so there it would decide what fits."""
    assert small.facts["memory of an attack, derived"]["uniform"]["rows"] == 3

    def never(target: Any) -> Any:
        raise AssertionError("nothing differentiates a row")

    monkeypatch.setattr(run, "attack_memory", never)
    few = replace(SETTINGS, attacks=("transfer",), images=2, seeds=(0,), steps=1)
    assert (
        "memory of an attack, derived"
        not in evaluate(demo_bundle(), digits, ["uniform"], few, twin=twin, provider=ONE).facts
    )


def test_resuming_an_interrupted_run_gives_what_an_uninterrupted_one_gives(
    small: Evaluated, twin: TorchReference, digits: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    honest = {kind: kind.run for kind in (GradientAttack, SquareAttack)}

    def limit(left: int) -> None:
        for kind, real in honest.items():

            def limited(self: Attack, *args: Any, real: Callable[..., Any] = real) -> Any:
                if len(made) == left:
                    raise KeyboardInterrupt
                made.append(self.name)
                return real(self, *args)

            monkeypatch.setattr(kind, "run", limited)

    def again() -> Evaluated:
        return evaluate(demo_bundle(), digits, ["uniform"], SETTINGS, twin=twin, provider=ONE, work=tmp_path)

    limit(5)
    with pytest.raises(KeyboardInterrupt):
        again()
    before = len(made)
    limit(99)
    resumed = again()
    assert before == 5 and len(made) == 12  # three attacks, two seeds, two batches: none was made twice
    for mine, theirs in zip(resumed.presets[0].attacks, small.presets[0].attacks, strict=True):
        np.testing.assert_array_equal(mine.images, theirs.images)
        assert mine.to_dict() == theirs.to_dict()
    for file in tmp_path.glob("*.npz"):  # a damaged checkpoint is made anew, not believed
        file.write_bytes(b"PK")
    made.clear()
    limit(99)
    assert again().presets[0].to_dict() == small.presets[0].to_dict()
    assert len(made) == 12


def test_other_settings_do_not_reuse_a_checkpoint(twin: TorchReference, digits: LabelledImages, tmp_path: Path) -> None:
    def attacked(**changes: Any) -> Any:
        settings = replace(SETTINGS, attacks=("pgd",), seeds=(0,), images=6, worst=1, votes=1, **changes)
        return evaluate(demo_bundle(), digits, ["uniform"], settings, twin=twin, provider=ONE, work=tmp_path)

    first = attacked().presets[0].attacks[0].images
    assert np.array_equal(first, attacked().presets[0].attacks[0].images)
    assert not np.array_equal(first, attacked(eps=0.05).presets[0].attacks[0].images)
    assert not np.array_equal(first, attacked(steps=2).presets[0].attacks[0].images)


def test_restarts_and_the_l2_ball(twin: TorchReference, digits: LabelledImages) -> None:
    settings = EvaluateSettings(
        attacks=("transfer", "pgd"),
        norm="l2",
        eps=1.5,
        steps=2,
        eot=1,
        restarts=2,
        images=4,
        worst=1,
        votes=1,
        selection=1,
        noise_seed=1,
    )
    found = evaluate(demo_bundle(), digits, ["uniform"], settings, twin=twin, provider=ONE)
    for attack in found.presets[0].attacks:
        change = (attack.images - found.images).reshape(4, -1)
        assert np.linalg.norm(change, axis=1).max() <= 1.5 + 1e-4
        assert np.linalg.norm(change, axis=1).min() > 0.0
        assert attack.protocol.restarts == 2 and "worst of the candidates" in attack.protocol.selection
        assert (attack.protocol.norm, attack.protocol.eps) == ("l2", 1.5)


def test_mask_gradients_and_the_norm_penalty_are_there_where_they_apply(
    twin: TorchReference, digits: LabelledImages
) -> None:
    attacks = ("surrogate", "bpda", "pgd", "pgd-small-norm", "apgd", "low-frequency")
    settings = replace(SETTINGS, attacks=attacks, steps=1, eot=1, seeds=(0,), images=2, worst=2, votes=2)
    names = ["heterogeneous", "uniform-ssni"]
    found = evaluate(
        demo_bundle(),
        digits,
        names,
        replace(settings, mask_gradient="soft", noise_policy=True),
        twin=twin,
        provider=ONE,
    )
    masked, adaptive = found.presets
    titles = [a.protocol.title for a in masked.attacks]
    assert "surrogate (surrogate gradient)" in titles
    assert "pgd, mask gradient soft" in titles and "pgd-small-norm" not in titles
    assert [pair[0].protocol.attack for pair in masked.mask_gains()] == ["pgd", "apgd", "low-frequency"]
    assert "detached" in masked.attacks[titles.index("pgd")].protocol.gradient
    small_norm = next(a for a in adaptive.attacks if a.protocol.attack == "pgd-small-norm")
    assert small_norm.protocol.norm_penalty == 1.0
    low = next(a for a in adaptive.attacks if a.protocol.attack == "low-frequency").protocol
    assert low.norm is None and "0.3" in low.bounded  # three times eps, in words
    policies = found.experiments["noise_policy"]["uniform-ssni"]
    assert [(p.policy, p.protocol.eot) for p in policies] == [("secret", 1), ("process seed", 1), ("known seed", 2)]
    for policy in policies[1:]:  # answers that repeat: asking again changes nothing
        assert len(set(policy.resubmission)) == 1
        assert policy.accuracies[0].right == policy.accuracies[1].right
    page = render(found)
    assert not_cut(page)
    for text in ("Where the noise comes from", "What was not tested", "pgd, mask gradient soft", "[1]"):
        assert text in page
    assert "http" not in page.replace("http://www.w3.org", "")
    card(found)


def test_known_noise_is_worse_than_secret_noise(twin: TorchReference, digits: LabelledImages) -> None:
    settings = EvaluateSettings(attacks=("transfer",), eps=0.1, steps=10, eot=2, worst=1, votes=1, noise_seed=3)
    with edgepure.load(demo_bundle(), threads=1) as purifier:
        target = AttackTarget("uniform", purifier.preset("uniform"), purifier, twin)
        common = dict.fromkeys(("twin", "judge", "noise", "preset", "preset_sha256", "images", "data_sha256"), "x")
        common |= {"bundle_sha256": "b", "seeds": (0,)}
        found = noise_policy(target, digits.take(12), settings, Work(None, {}), common, (1, 2))
    by_policy = {r.policy: r.accuracies[0].right[0] for r in found}
    assert by_policy["known seed"] < by_policy["secret"]


# ---- the card --------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    place: Path = shutil.copytree(demo_bundle(), tmp_path / "bundle")
    return place


def test_the_card_goes_into_the_bundle_and_says_what_was_not_tested(small: Evaluated, copy: Path) -> None:
    write_card(copy, small, anew=True)  # not what was measured before: of that test_card_merging
    opened = Bundle.open(copy)
    assert {CARD, CARD_JSON} <= set(opened.manifest.files)
    text = (copy / CARD).read_text()
    for part in ("What was not tested", "apgd", "low-frequency", "[1]", "worst of 3", "more than 8 images"):
        assert part in text
    data = json.loads((copy / CARD_JSON).read_text())
    for attack in data["presets"][0]["attacks"]:
        assert all(data["protocols"][a["protocol"]]["data_sha256"] and a["interval95"] for a in attack["accuracies"])
    assert any("8 images" in line for line in data["not_tested"])
    assert not any("noise seed" in line for line in data["not_tested"])
    write_card(copy, small)  # again: replaced, not refused
    with edgepure.load(copy, threads=1) as purifier:
        assert purifier.presets


def test_no_card_without_attacks_and_none_for_another_bundle(small: Evaluated, copy: Path) -> None:
    before = Bundle.open(copy).content_hash
    nothing = replace(small, presets=tuple(replace(p, attacks=()) for p in small.presets))
    with raises_code("E-card-empty"):
        write_card(copy, nothing)
    with raises_code("E-card-bundle"):
        write_card(copy, replace(small, bundle_sha256="0" * 64))
    assert Bundle.open(copy).content_hash == before


# ---- bad input -------------------------------------------------------------------------------------------------------


def test_unfit_data_are_refused(twin: TorchReference, digits: LabelledImages, tmp_path: Path) -> None:
    np.savez(tmp_path / "unlabelled.npz", images=digits.images)
    constant = replace(digits, images=np.zeros_like(digits.images))
    one_class = digits.pick(np.flatnonzero(digits.labels == 1))
    for data, code in (
        (tmp_path / "unlabelled.npz", "E-data-labels"),
        (tmp_path / "missing.npz", "E-data-missing"),
        (constant, "E-data-constant"),
        (one_class, "E-data-one-class"),
    ):
        with raises_code(code):
            evaluate(demo_bundle(), data, settings=replace(SETTINGS, images=2), twin=twin, provider=ONE)
    with raises_code("E-config-count"):
        evaluate(demo_bundle(), digits, settings=replace(SETTINGS, images=65), twin=twin, provider=ONE)
    with raises_code("E-preset-unknown"):
        evaluate(demo_bundle(), digits, ["x"], SETTINGS, twin=twin, provider=ONE)
    with raises_code("E-provider-torch"):
        evaluate(demo_bundle(), digits, settings=SETTINGS, device="nonsense")
    assert run.USUAL_IMAGES == 256


SPREAD = replace(SETTINGS, attacks=("transfer", "pgd"), seeds=(0,), baselines=("no-defence",))


def same_attacks(found: Evaluated, wanted: Evaluated) -> None:
    """The same images and the same numbers, whoever computed them."""
    for one, other in zip((*found.presets, *found.baselines), (*wanted.presets, *wanted.baselines), strict=True):
        assert one.attacks and len(one.attacks) == len(other.attacks)
        for attack, expected in zip(one.attacks, other.attacks, strict=True):
            np.testing.assert_allclose(attack.images, expected.images, atol=1e-6)
            assert attack.accuracies == expected.accuracies


def test_workers_attack_as_one_machine_does(
    digits: LabelledImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker in this process, to which everything travels, and whose answers come in another order."""
    asked: list[Job] = []

    @contextmanager
    def near(cluster: OnRay, orders: Orders) -> Iterator[Spread]:
        hand = Hand(pickle.loads(pickle.dumps(orders)))

        def spread(jobs: Any) -> Iterator[Any]:
            for number in reversed(range(len(jobs))):
                asked.append(jobs[number][1])
                place, images = hand.attack(number, jobs[number][1])
                yield jobs[place][0], images

        yield spread

    wanted = evaluate(demo_bundle(), digits, ["uniform"], SPREAD, provider=ONE)
    monkeypatch.setattr(run, "farm", near)
    arguments: dict[str, Any] = {"provider": ONE, "ray": OnRay("local"), "work": tmp_path}
    same_attacks(evaluate(demo_bundle(), digits, ["uniform"], SPREAD, **arguments), wanted)
    assert len(asked) == len(set(asked)) and {job.target for job in asked} == {"uniform", "no-defence"}
    count = len(asked)
    evaluate(demo_bundle(), digits, ["uniform"], SPREAD, **arguments)
    assert len(asked) == count, "what is kept is not attacked again"


def test_a_worker_with_another_bundle_refuses(digits: LabelledImages) -> None:
    orders = Orders(Path(demo_bundle()), "another", digits, digits.images[:0], None, SPREAD, ONE, "cpu", True)
    with raises_code("E-ray-bundle"):
        Hand(orders)


@pytest.mark.slow
@pytest.mark.needs("ray")
def test_a_cluster_attacks_as_one_machine_does(digits: LabelledImages) -> None:
    wanted = evaluate(demo_bundle(), digits, ["uniform"], SPREAD, provider=ONE)
    ray = OnRay("local", workers=2)
    same_attacks(evaluate(demo_bundle(), digits, ["uniform"], SPREAD, provider=ONE, ray=ray), wanted)

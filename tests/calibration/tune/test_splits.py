"""Search and finalists share no image, and data that cannot serve are refused in one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from codes import raises_code
from tiny_bundle import logits

from edgepure.images.dataset import LabelledImages
from edgepure_calibration.tune.settings import TuneSettings
from edgepure_calibration.tune.splits import Split, make_splits

SETTINGS = TuneSettings(images=16, final_images=100, whitebox_images=10, final_whitebox_images=12)


def parts(
    data: LabelledImages, attacked: LabelledImages | None, test: LabelledImages | None = None, **options: Any
) -> tuple[Split, Split]:
    return make_splits(data, attacked, test, replace(SETTINGS, **options), logits, None)


def names(data: LabelledImages) -> set[str]:
    return set(data.names)


def test_parts_are_disjoint_and_paired(data: LabelledImages, attacked: LabelledImages) -> None:
    search, final = parts(data, attacked)
    assert len(search.clean) == 16
    assert len(final.clean) == 24
    assert not names(search.clean) & names(final.clean)
    assert names(search.attacked) == names(search.clean)  # of paired images no part holds the other's clean ones
    assert names(final.attacked) == names(final.clean)
    assert names(search.whitebox) < names(search.clean)
    assert len(final.whitebox) == 12


def test_the_search_takes_at_most_half(data: LabelledImages, attacked: LabelledImages) -> None:
    search, final = parts(data, attacked, images=1000)
    assert len(search.clean) == len(final.clean) == 20


def test_test_images_are_for_the_finalists_alone(data: LabelledImages, attacked: LabelledImages) -> None:
    test = replace(data, images=data.images[::-1].copy(), names=tuple(f"test {n}" for n in data.names))
    assert test.labels is not None
    test = replace(test, labels=test.labels[::-1].copy())
    search, final = parts(data, attacked, test, images=30)
    assert len(search.clean) == 30
    assert all(name.startswith("test ") for name in final.clean.names)
    assert not names(search.attacked) & names(final.attacked)


def test_attacks_are_made_with_another_seed_for_each_part(data: LabelledImages, attacked: LabelledImages) -> None:
    seeds: list[int] = []
    by_name = dict(zip(attacked.names, attacked.images, strict=True))

    def transfer(some: LabelledImages, seed: int) -> LabelledImages:
        seeds.append(seed)
        return replace(some, images=np.stack([by_name[name] for name in some.names]))

    make_splits(data, None, None, SETTINGS, logits, transfer)
    assert len(set(seeds)) == 2


def test_an_attack_that_does_no_harm(data: LabelledImages) -> None:
    with raises_code("E-attack-weak"):
        make_splits(data, None, None, SETTINGS, logits, lambda some, seed: some)


def test_attacked_images_take_the_labels_of_the_clean_ones(data: LabelledImages, attacked: LabelledImages) -> None:
    search, _ = parts(data, replace(attacked, labels=None))
    np.testing.assert_array_equal(search.attacked.labels, search.clean.labels)


def test_attacked_images_without_labels_or_partner(data: LabelledImages, attacked: LabelledImages) -> None:
    some = replace(attacked.pick(range(20)), labels=None)
    with raises_code("E-data-labels"):
        parts(data, some)


def test_nothing_to_attack_with(data: LabelledImages) -> None:
    with raises_code("E-data-attacked"):
        parts(data, None)


def test_unlabelled(data: LabelledImages, attacked: LabelledImages) -> None:
    with raises_code("E-data-labels"):
        parts(replace(data, labels=None), attacked)


def test_one_class_only(data: LabelledImages, attacked: LabelledImages) -> None:
    with raises_code("E-data-one-class"):
        parts(data.pick(range(0, 40, 2)), attacked)


def test_too_few(data: LabelledImages, attacked: LabelledImages) -> None:
    with raises_code("E-data-few"):
        parts(data.pick(range(10)), attacked)


def test_constant_and_equal_images(data: LabelledImages, attacked: LabelledImages) -> None:
    with raises_code("E-data-constant"):
        parts(replace(data, images=np.full_like(data.images, 0.3)), attacked)
    with raises_code("E-data-same"):
        parts(replace(data, images=np.repeat(data.images[:1], 40, axis=0)), attacked)


def test_attacked_images_that_are_no_attacks(data: LabelledImages) -> None:
    with raises_code("E-attacked-weak"):
        parts(data, data)

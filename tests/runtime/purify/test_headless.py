"""Bundles without a classifier: they purify, and say what else they cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from headless_bundle import make_headless_bundle
from in_process import invoke, refused
from tiny_bundle import attention, images, make_tiny_bundle

import edgepure
from edgepure.images.save import save_image


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_headless_bundle(tmp_path_factory.mktemp("headless") / "bundle")


@pytest.fixture(scope="module")
def purifier(bundle: Path) -> Iterator[edgepure.Purifier]:
    with edgepure.load(bundle, threads=1, slots=4) as opened:
        yield opened


def test_it_purifies_as_the_same_bundle_with_a_classifier(purifier: edgepure.Purifier, tmp_path: Path) -> None:
    for preset in ("uniform", "heterogeneous", "adaptive"):
        found = purifier.purify(images(3), preset, noise=4)
        with edgepure.load(make_tiny_bundle(tmp_path / preset), threads=1) as whole:
            same = whole.purify(images(3), preset, noise=4)
        for mine, theirs in zip(found, same, strict=True):
            np.testing.assert_array_equal(mine.image, theirs.image)
            assert mine.unet_calls == theirs.unet_calls
            assert type(mine) is edgepure.Purified
            assert isinstance(theirs, edgepure.Result)
            assert "label" not in mine.to_dict()


@pytest.mark.parametrize(
    "asks",
    [
        lambda p: p.classify(images(1)),
        lambda p: p.run(images(1)),
        lambda p: p.logits(images(1)),
        lambda p: p.certify(images(1), {"method": {"method": "smooth", "sigma": 0.25}}),
    ],
    ids=["classify", "run", "logits", "certify"],
)
def test_what_needs_a_classifier_says_so(purifier: edgepure.Purifier, asks: Callable[[Any], object]) -> None:
    with raises_code("E-no-classifier"):
        asks(purifier)


def test_a_stream_gives_purified_images_and_a_service_needs_an_answer(purifier: edgepure.Purifier) -> None:
    found = list(purifier.stream(images(2), "uniform", noise=4))
    for mine, theirs in zip(found, purifier.purify(images(2), "uniform", noise=4), strict=True):
        np.testing.assert_array_equal(mine.image, theirs.image)
    with raises_code("E-no-task"):
        edgepure.Service(purifier)


def test_verify_compares_all_but_decisions(bundle: Path) -> None:
    found = edgepure.verify(bundle, threads=1)
    assert found
    assert [level.status for level in found.levels] == ["passed", "passed", "passed", "not run"]


def test_verify_finds_another_image(bundle: Path, tmp_path: Path) -> None:
    from headless_bundle import make_headless_bundle
    from tiny_bundle import rehash, selftest_arrays

    changed = make_headless_bundle(tmp_path / "changed")
    manifest = edgepure.Bundle.open(changed).manifest
    arrays = {k: v for k, v in selftest_arrays().items() if "classifier" not in k and "logits" not in k}
    arrays["pipeline/uniform/purified"] = np.clip(arrays["pipeline/uniform/purified"] + 0.1, 0.0, 1.0)
    np.savez(changed / "selftest.npz", **arrays)
    rehash(changed, classes=(), graphs=manifest.graphs, presets=manifest.presets)
    assert not edgepure.verify(changed, threads=1)


# ---- the caller's mask ---------------------------------------------------------------------------------------------


def test_the_callers_mask_takes_the_place_of_attention(purifier: edgepure.Purifier) -> None:
    given = np.zeros((16, 16), bool)
    given[3:9, 2:12] = True
    attended = attention(images(1), 0.5)[0]
    found = purifier.purify(images(1), "heterogeneous", noise=4, mask=given)[0]
    assert found.mask is not None
    np.testing.assert_array_equal(found.mask, given)
    own = purifier.purify(images(1), "heterogeneous", noise=4)[0]
    again = purifier.purify(images(1), "heterogeneous", noise=4, mask=attended)[0]
    np.testing.assert_array_equal(own.image, again.image)
    assert np.abs(own.image - found.image).max() > 1e-3


def test_one_mask_for_all_is_one_for_each(purifier: edgepure.Purifier) -> None:
    given = (np.arange(256).reshape(16, 16) % 3 == 0).astype(np.float32)
    for shape in ((16, 16), (2, 16, 16), (2, 1, 16, 16)):
        found = purifier.purify(images(2), "given", noise=1, mask=np.broadcast_to(given, shape))
        assert [result.mask is not None and (result.mask == (given > 0.5)).all() for result in found] == [True, True]


def test_masks_stay_with_their_images_when_others_fail(purifier: edgepure.Purifier) -> None:
    masks = np.zeros((3, 16, 16), bool)
    for i in range(3):
        masks[i, i] = True
    some = [images(1)[0], np.zeros((1, 4, 4), np.float32), images(1)[0]]
    found = purifier.purify(some, "given", noise=1, mask=masks, on_error="collect")
    assert [np.flatnonzero(r.mask.any(axis=1)).tolist() for r in found if r.mask is not None] == [[0], [2]]


@pytest.mark.parametrize(
    ("mask", "code"),
    [
        (np.zeros((8, 16)), "E-mask-shape"),
        (np.zeros((3, 16, 16)), "E-mask-shape"),
        (np.full((16, 16), "1"), "E-mask-shape"),
        (np.full((16, 16), 0.5), "E-mask-values"),
        (np.full((16, 16), np.nan), "E-mask-values"),
        (np.full((16, 16), 255, np.uint8), "E-mask-values"),
        (None, "E-mask-missing"),
    ],
)
def test_a_mask_that_is_none_is_refused(purifier: edgepure.Purifier, mask: Any, code: str) -> None:
    with raises_code(code):
        purifier.purify(images(2), "given", mask=mask)


def test_a_mask_of_no_use_is_refused(purifier: edgepure.Purifier) -> None:
    with raises_code("E-mask-unused"):
        purifier.purify(images(1), "uniform", mask=np.ones((16, 16)))


def test_the_callers_mask_needs_no_mask_graph(purifier: edgepure.Purifier, tmp_path: Path) -> None:
    from headless_bundle import GIVEN
    from tiny_bundle import PRESETS, rehash, selftest_arrays

    from edgepure.methods.presets import Preset

    alone = make_headless_bundle(tmp_path / "alone")
    (alone / "mask.onnx").unlink()
    kept = {
        k: v for k, v in selftest_arrays().items() if k.split("/")[0] in ("step", "unet") or "pipeline/uniform" in k
    }
    np.savez(alone / "selftest.npz", **{k: v for k, v in kept.items() if "logits" not in k})
    entries = {k: v for k, v in purifier.bundle.manifest.graphs.items() if k in ("step", "unet")}
    presets = {"uniform": Preset.parse(PRESETS["uniform"]), "given": Preset.parse(GIVEN)}
    rehash(alone, classes=(), graphs=entries, attention=None, presets=presets)
    mask = np.ones((16, 16))
    with edgepure.load(alone, threads=1) as opened:
        mine = opened.purify(images(1), "given", noise=2, mask=mask)[0]
        with raises_code("E-config-graph"):
            opened.purify(images(1), {"method": {"method": "heterogeneous"}, "mask": {"area": 0.1}})
    np.testing.assert_array_equal(mine.image, purifier.purify(images(1), "given", noise=2, mask=mask)[0].image)


# ---- on the command line -------------------------------------------------------------------------------------------


def test_purify_takes_masks_from_files(bundle: Path, purifier: edgepure.Purifier, tmp_path: Path) -> None:
    for name, image in zip("ab", images(2), strict=True):
        save_image(image, tmp_path / f"{name}.png")
    (tmp_path / "masks").mkdir()
    given = np.zeros((2, 16, 16), bool)
    given[0, :4], given[1, 8:] = True, True
    for name, mask in zip("ab", given, strict=True):
        save_image(mask, tmp_path / "masks" / f"{name}.png")
    np.save(tmp_path / "one.npy", given[0])
    inputs = [tmp_path / "a.png", tmp_path / "b.png"]
    common = ("--preset", "given", "--seed", "3", "--threads", "1")
    done = invoke(
        "purify", bundle, *inputs, "-o", tmp_path / "out", *common, "--mask", tmp_path / "masks",
        "--mask-out", tmp_path / "used", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)["results"]
    assert [r["mask_area"] for r in results] == pytest.approx([0.25, 0.5])
    assert "label" not in results[0]
    assert (tmp_path / "used" / "b.png").read_bytes() == (tmp_path / "masks" / "b.png").read_bytes()
    shown = invoke("purify", bundle, *inputs, "-o", tmp_path / "two", *common, "--mask", tmp_path / "one.npy")
    assert shown.exit_code == 0, shown.output
    assert "label" not in shown.stdout


def test_masks_on_the_command_line_that_are_none(bundle: Path, tmp_path: Path) -> None:
    save_image(images(1)[0], tmp_path / "a.png")
    (tmp_path / "masks").mkdir()
    common = ("purify", bundle, tmp_path / "a.png", "-o", tmp_path / "out", "--preset")
    assert refused(*common, "given") == "E-mask-missing"
    assert refused(*common, "given", "--mask", tmp_path / "masks") == "E-mask-missing"
    assert refused(*common, "given", "--mask", tmp_path / "nothing.png") == "E-mask-missing"
    assert refused(*common, "given", "--mask", tmp_path / "a.png") == "E-mask-values"
    assert refused(*common, "uniform", "--mask", tmp_path / "a.png") == "E-mask-unused"
    assert refused("classify", bundle, tmp_path / "a.png") == "E-no-classifier"


def test_inspect_says_what_is_missing(bundle: Path) -> None:
    done = invoke("inspect", bundle)
    assert done.exit_code == 0, done.output
    assert "none" in next(line for line in done.stdout.splitlines() if line.startswith("classes"))

"""Purify and classify with the packaged digits bundle: what users hold."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_process import run
from codes import raises_code
from PIL import Image

import edgepure
from edgepure.errors import ConfigError, ImageError, PrecisionWarning, ProviderError
from edgepure.rows.noise import SecretNoise, SeededNoise

UNIFORM = {"method": {"method": "uniform", "t_star": 60, "steps": 3}}
HETEROGENEOUS = {
    "method": {"method": "heterogeneous", "t_l": 120, "t_s": 60, "stage1_steps": 2, "stage2_steps": 2, "U": 3},
    "mask": {"area": 0.25},
}
#: Norms of the probe at timestep 10 lie far from these bounds on both sides, so every image gets a plan of its own.
SSNI = {**UNIFORM, "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1000.0, "probe": {"levels": [10.0]}}}


@pytest.fixture(scope="module")
def purifier() -> Iterator[edgepure.Purifier]:
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=4) as opened:
        yield opened


@pytest.fixture(scope="module")
def images(purifier: edgepure.Purifier) -> np.ndarray:
    return np.load(edgepure.demo_bundle().parent / "digits_images.npz")["clean"][:7]


@pytest.mark.parametrize("preset", [UNIFORM, HETEROGENEOUS, SSNI], ids=["uniform", "heterogeneous", "ssni"])
def test_a_result_depends_on_seed_and_image_id_only(
    purifier: edgepure.Purifier, images: np.ndarray, preset: dict[str, object]
) -> None:
    together = purifier.run(images, preset, noise=5)
    with edgepure.load(edgepure.demo_bundle(), threads=1, slots=1) as single:
        alone = single.run(images, preset, noise=SeededNoise(5))
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=2e-5)
        assert (a.label, a.unet_calls, a.levels) == (b.label, b.unet_calls, b.levels)


def test_noise_is_secret_unless_asked_otherwise(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    first, second = purifier.run(images[:1], UNIFORM), purifier.run(images[:1], UNIFORM)
    assert np.abs(first[0].image - second[0].image).max() > 1e-3
    source = SecretNoise()
    again, audit = purifier.run(images[:1], UNIFORM, noise=source), purifier.run(images[:1], UNIFORM, noise=source.seed)
    np.testing.assert_array_equal(again[0].image, audit[0].image)


def test_votes_are_independent_purifications(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    results = purifier.classify(images, HETEROGENEOUS, votes=3, noise=1)
    plan = purifier.plan(HETEROGENEOUS)
    for result in results:
        assert len(result.vote_labels) == 3
        assert result.unet_calls == 3 * plan.unet_calls
        assert result.probabilities.sum() == pytest.approx(1.0, abs=1e-5)
        assert result.levels == {"t_l": 120.0, "t_s": 60.0}
    one = purifier.classify(images, HETEROGENEOUS, votes=1, noise=1)
    np.testing.assert_allclose(one[0].image, results[0].image, atol=2e-5)  # the first vote is the same


def test_the_mask_covers_the_asked_area(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    for result in purifier.purify(images, HETEROGENEOUS):
        assert result.mask is not None
        assert result.mask.sum() >= int(0.25 * result.mask.size)
        assert result.mask_area == pytest.approx(0.25, abs=0.1)
        assert result.plain_label is not None
    assert purifier.purify(images[:1], UNIFORM)[0].mask is None


def test_ssni_gives_each_image_its_own_level_and_counts_the_probe(
    purifier: edgepure.Purifier, images: np.ndarray
) -> None:
    norms = purifier.score_norms(images, SSNI, noise=3)
    spread = {**SSNI["ssni"], "xi_min": float(norms.min()) - 1e-3, "xi_max": float(norms.max())}  # type: ignore[dict-item]
    preset = {**UNIFORM, "method": {**UNIFORM["method"], "t_star": 90, "steps": 9}, "ssni": spread}
    results = purifier.classify(images, preset, noise=3)
    levels = [result.levels.get("t_star", 0.0) for result in results]
    assert np.argsort(norms).tolist()[-1] == int(np.argmax(levels))
    assert len(set(levels)) > 2
    for result, norm in zip(results, norms, strict=True):
        assert result.score_norm == pytest.approx(float(norm), rel=1e-5)
        assert result.unet_calls == 1 + purifier.plan(preset, result.score_norm).unet_calls
    assert min(r.unet_calls for r in results) < max(r.unet_calls for r in results)


def test_every_kind_of_input_gives_the_same_result(
    purifier: edgepure.Purifier, images: np.ndarray, tmp_path: Path
) -> None:
    pixels = np.round(images[0, 0] * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    exact = (pixels / np.float32(255)).astype(np.float32)[None]
    kinds = [
        exact, exact[None], pixels, pixels[..., None], Image.fromarray(pixels), tmp_path / "digit.png",
        str(tmp_path / "digit.png"), [tmp_path / "digit.png"],
    ]  # fmt: skip
    outputs = [purifier.purify(kind, UNIFORM, noise=9)[0].image for kind in kinds]
    for output in outputs[1:]:
        np.testing.assert_array_equal(outputs[0], output)


def test_a_bad_image_among_good_ones_is_listed_and_the_others_are_done(
    purifier: edgepure.Purifier, images: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    inputs = [images[0], tmp_path / "broken.png", images[1]]
    results = purifier.classify(inputs, UNIFORM, on_error="collect")
    assert len(results) == 2
    assert [failure.name for failure in results.failures] == [str(tmp_path / "broken.png")] or "broken.png" in str(
        results.failures[0].name
    )
    with raises_code("E-image-unreadable"):
        purifier.classify(inputs, UNIFORM)


def test_progress_reaches_the_end(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    seen: list[tuple[int, int]] = []
    purifier.classify(images, UNIFORM, on_progress=lambda share, words: seen.append((share, words)))
    assert seen[-1] == (1.0, "7 of 7 images")
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_threads_take_turns(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    expected = purifier.run(images, UNIFORM, noise=2)
    found: dict[int, edgepure.Results] = {}

    def work(number: int) -> None:
        found[number] = purifier.run(images, UNIFORM, noise=2)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for results in found.values():
        for a, b in zip(results, expected, strict=True):
            np.testing.assert_array_equal(a.image, b.image)


def test_slots_that_images_share_do_less_calls_than_rows(purifier: edgepure.Purifier, images: np.ndarray) -> None:
    purifier.run(images, UNIFORM)
    counters = purifier.counters
    assert counters.rows == 3 * len(images)
    assert counters.ticks < counters.rows
    assert counters.jobs == len(images)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda p, x: p.classify(x, "no such preset"), ConfigError, "it has"),
        (lambda p, x: p.classify(x, votes=0), ConfigError, "votes is 0"),
        (lambda p, x: p.classify(x, noise=-1), ConfigError, "seed"),
        (lambda p, x: p.classify(x[:0]), ImageError, "empty"),
        (lambda p, x: p.classify(x * 255.0), ImageError, "range"),
        (lambda p, x: p.classify(x[:, :, :8]), ImageError, "16"),
        (lambda p, x: p.classify(np.full_like(x, np.nan)), ImageError, "NaN"),
        (lambda p, x: p.score_norms(x, UNIFORM), ConfigError, "no SSNI"),
        (lambda p, x: edgepure.load(edgepure.demo_bundle(), provider="gpu"), ProviderError, "unknown provider 'gpu'"),
        (lambda p, x: edgepure.load(edgepure.demo_bundle(), slots=0), ConfigError, "slots is 0"),
    ],
)
def test_a_wrong_request_is_one_clear_sentence(
    purifier: edgepure.Purifier, images: np.ndarray, call: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as caught:
        call(purifier, images)  # type: ignore[operator]
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_learned_variance_is_refused_where_the_network_has_none(
    purifier: edgepure.Purifier, images: np.ndarray
) -> None:
    preset = {"method": {**UNIFORM["method"], "variance": "learned"}}
    with raises_code("E-config-graph"):
        purifier.classify(images, preset)


def test_a_provider_that_is_not_active_is_an_error_not_a_fallback(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with raises_code("E-provider-missing"):
        edgepure.load(edgepure.demo_bundle(), provider="cuda")


def test_a_preset_says_that_it_was_tuned_in_another_precision(purifier: edgepure.Purifier) -> None:
    tuned = {"method": {"method": "uniform", "t_star": 8, "steps": 1}, "precision": "int8"}
    x = np.full((1, 1, 16, 16), 0.5, np.float32)
    with pytest.warns(PrecisionWarning, match="tuned in int8 and runs in fp32"):
        purifier.run(x, tuned)
    with pytest.warns(PrecisionWarning, match="tuned in int8"), edgepure.Service(purifier, tuned):
        pass
    with pytest.warns(PrecisionWarning, match="tuned in int8"):
        purifier.purify_frame(x[0], tuned)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for precision in ("fp32", None):
            purifier.run(x, {**tuned, "precision": precision})


def test_the_command_says_so_in_one_line(tiny_bundle: Path, tmp_path: Path) -> None:
    preset = tmp_path / "preset.json"
    preset.write_text('{"method": {"method": "uniform", "t_star": 8, "steps": 1}, "precision": "int8"}')
    np.save(tmp_path / "x.npy", np.full((1, 1, 16, 16), 0.5, np.float32))
    done = run("classify", tiny_bundle, tmp_path / "x.npy", "--preset", preset)
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert done.code == 0 and len(notes) == 1 and "tuned in int8" in notes[0], done.stderr

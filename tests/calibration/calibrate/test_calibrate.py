"""`edgepure calibrate`: what it writes, what it refuses, and that an interruption loses nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import not_cut
from cli_process import run
from codes import raises_code
from tiny_bundle import images, logits, make_tiny_bundle

import edgepure
from edgepure.bundle.bundle import Bundle, update_manifest
from edgepure.demo import demo_images
from edgepure.images.dataset import LabelledImages
from edgepure.parity.verify import verify
from edgepure_calibration.calibrate import Calibrated, CalibrateSettings, calibrate
from edgepure_calibration.calibrate.calibrate import beside
from edgepure_calibration.calibrate.masks import covered
from edgepure_calibration.calibrate.probes import candidates, describe, parse_levels
from edgepure_calibration.provider import ProviderSettings

#: Few and cheap probes: what is tested is not how good they are.
QUICK: dict[str, Any] = {"levels": ((5.0,), (50.0,), (5.0, 20.0)), "full_probe": 4, "search": 40, "limit": 100}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared: read it, do not change it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def own(tiny: Path, tmp_path: Path) -> Path:
    """A bundle that may be changed."""
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def labelled(pixels: np.ndarray, labels: np.ndarray | None) -> LabelledImages:
    return LabelledImages(pixels, labels, tuple(f"image {i}" for i in range(len(pixels))))


def clean_data(count: int = 80, seed: int = 1) -> LabelledImages:
    pixels = images(count, seed)
    return labelled(pixels, logits(pixels).argmax(axis=1).astype(np.int64))


def attacked_data(clean: LabelledImages) -> LabelledImages:
    """Brightness decides the class: moved across the border, and roughened."""
    assert clean.labels is not None
    sign = np.where(clean.labels == 0, 1.0, -1.0)[:, None, None, None]
    rough = 0.1 * np.random.default_rng(3).standard_normal(clean.images.shape)
    return labelled(np.clip(clean.images + 0.45 * sign + rough, 0, 1).astype(np.float32), clean.labels)


def quick(bundle: Path, data: LabelledImages, **options: Any) -> Calibrated:
    settings = CalibrateSettings(**{**QUICK, **options.pop("settings", {})})
    provider = ProviderSettings(options.pop("provider", "cpu"), threads=1, slots=16)
    return calibrate(bundle, data, settings=settings, provider=provider, **options)


# ---- what it writes --------------------------------------------------------------------------------------------------


def test_calibration_and_presets_are_in_the_bundle_and_the_monitor_works(own: Path) -> None:
    clean = clean_data()
    found = quick(own, clean, attacked=attacked_data(clean))
    opened = Bundle.open(own)
    assert opened.manifest.calibration == found.calibration
    made = found.calibration
    assert made.clean.images == 80 and made.clean.accuracy == 1.0
    assert made.attacked is not None and made.attacked.accuracy is not None and made.attacked.accuracy < 0.3
    # 3 probes with and without noise, the papers' probe, and that of the preset
    assert len(made.probes) == 8
    assert {p.separation.against for p in made.probes if p.separation} == {"attacked"}
    with_sample = [p.probe for p in made.probes if p.sample]
    assert made.chosen in with_sample and len(with_sample) <= 2
    assert made.first_call is not None and made.first_call.preset == "uniform"
    adaptive = opened.manifest.presets["adaptive"].ssni
    assert adaptive is not None
    assert (adaptive.probe, adaptive.reweighting, adaptive.xi_max) == (made.chosen, "linear", made.linear.xi_max)
    with edgepure.load(own, threads=1) as purifier:
        monitor = purifier.monitor(0.1)
        results = purifier.run(images(200, seed=9), "adaptive", noise=8, monitor=monitor)
        assert all(r.p_value is not None for r in results)
        # at most 10 % on average; binomial noise of 200 images and of a reference of 80
        assert monitor.to_dict()["flagged"] <= 45


def test_the_self_test_keeps_what_did_not_change_and_nothing_stale(own: Path) -> None:
    before = set(Bundle.open(own).selftest().pipelines)
    quick(own, clean_data(), settings={"presets": ("uniform",), "mask_area": 0.3})
    after = set(Bundle.open(own).selftest().pipelines)
    assert before - after == {"heterogeneous"}  # its threshold changed
    found = verify(own, threads=1)
    assert found, str(found)
    assert set(found.unrecorded) == {"adaptive", "heterogeneous", "uniform-ssni"}


def test_a_limit_is_kept_and_the_record_counts_what_was_measured(own: Path) -> None:
    clean = clean_data(64)
    made = quick(own, clean, attacked=attacked_data(clean), settings={"limit": 50, "search": 40}).calibration
    assert made.attacked is not None
    assert made.clean.images == made.attacked.images == 50
    assert all(probe.clean.images <= 50 for probe in made.probes)


def test_clean_images_alone_are_enough_and_the_stand_in_is_named(own: Path) -> None:
    found = quick(own, clean_data(), settings={"presets": ("uniform", "adaptive"), "reweighting": "sigmoid"})
    made = found.calibration
    assert made.attacked is None
    assert {p.separation.against for p in made.probes if p.separation} == {"random signs"}
    assert sorted(found.presets) == ["adaptive", "uniform-ssni"]
    added = Bundle.open(own).manifest.presets["uniform-ssni"]
    assert added.ssni is not None and added.ssni.mu == made.sigmoid.mu and added.ssni.minimum == 0.4
    with edgepure.load(own, threads=1) as purifier:
        assert purifier.run(images(2), "uniform-ssni", noise=1)[0].p_value is not None


def test_without_apply_the_bundle_stays_as_it_is(own: Path) -> None:
    before = (own / "bundle.json").read_bytes()
    found = quick(own, clean_data(), apply=False)
    assert not found.applied and found.presets
    assert (own / "bundle.json").read_bytes() == before


def test_mask_thresholds_cover_their_areas(own: Path) -> None:
    found = quick(own, clean_data(), settings={"mask_area": 0.35})
    by_rule = {m.rule: m for m in found.calibration.masks}
    assert set(by_rule) == {"minmax", "softmax"}
    areas = by_rule["minmax"].areas
    assert [a.threshold for a in areas] == sorted((a.threshold for a in areas), reverse=True)
    preset = Bundle.open(own).manifest.presets["heterogeneous"]
    assert preset.mask is not None and preset.mask.area is None
    with edgepure.load(own, threads=1) as purifier:
        results = purifier.run(clean_data().images, "heterogeneous", noise=1)
    assert np.mean([r.mask_area for r in results]) == pytest.approx(0.35, abs=0.02)


def test_every_precision_that_was_calibrated_has_its_norms(own: Path) -> None:
    """A second precision is added on the same images, and measures the probe that the first one chose."""
    first = quick(own, clean_data()).calibration
    again = quick(own, clean_data(), settings={"levels": ((50.0,),), "full_probe": 0}).calibration
    assert again.find(first.chosen) is not None and first.find(first.chosen).sample  # type: ignore[union-attr]
    in_int8 = again.model_copy(update={"precision": "int8"})
    both = beside(first, in_int8)
    assert (both.precision, both.chosen, both.linear) == (first.precision, first.chosen, first.linear)
    assert both.precisions == ("fp32", "int8")
    for precision, source in (("fp32", first), ("int8", again)):
        kept, right = both.find(first.chosen, precision), source.find(first.chosen)
        assert kept is not None and right is not None and kept.sample == right.sample
        edgepure.Monitor(both, 0.1, precision=precision)
    update_manifest(own, lambda m: m.model_copy(update={"calibration": both}))
    assert Bundle.open(own).manifest.calibration == both
    assert quick(own, clean_data()).calibration.precisions == ("fp32", "int8"), "the same precision once more"
    other = clean_data(seed=9)
    assert quick(own, other).calibration.precisions == ("fp32",), "norms of other images are another reference"


def test_covered_counts_as_the_mask_graph_does() -> None:
    maps = np.array([[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]], np.float32)
    assert covered(maps, "minmax", 0.5).area == pytest.approx((maps >= np.quantile(maps, 0.5)).mean())
    assert covered(maps, "softmax", 0.125).area <= 0.25


def test_probe_candidates_are_unique_and_fit_the_schedule() -> None:
    own = edgepure.EpsSpec(levels=(10.0,), probes=3)
    found = candidates([own, own], ((10.0,), (2000.0,)), "both", 0, 1000)
    assert [describe(p) for p in found] == ["t 10, noise, 1 call", "t 10, no noise, 1 call"]
    with raises_code("E-probe-range"):
        candidates([], ((2000.0,),), "both", 0, 1000)
    assert parse_levels("1,5+10") == ((1.0,), (5.0, 10.0))
    for text in ("", "0.5", "a", "1,,2"):
        with raises_code("E-probe-text"):
            parse_levels(text)


def test_the_digits_are_separated_by_one_unet_call(tmp_path: Path) -> None:
    data = edgepure.demo_bundle().parent / "digits_images.npz"
    bundle = Path(shutil.copytree(edgepure.demo_bundle(), tmp_path / "digits"))
    found = calibrate(
        bundle,
        f"{data}:clean",
        attacked=f"{data}:adversarial",
        settings=CalibrateSettings(levels=((10.0,), (200.0,)), full_probe=0),
    )
    made = found.calibration
    chosen = made.find(made.chosen)
    assert chosen is not None and chosen.separation is not None
    assert made.chosen.unet_calls == 1
    assert chosen.separation.auroc >= 0.99
    assert sorted(found.presets) == ["heterogeneous-ssni", "uniform-ssni"]
    with edgepure.load(bundle, threads=1) as purifier:
        attacked = purifier.classify(demo_images().adversarial[:8], "uniform-ssni", votes=1, noise=2)
    for result in attacked:
        assert result.levels["t_star"] == 120  # all of it
        assert result.unet_calls == 1 + 3
        assert result.p_value == pytest.approx(2 / 65)


# ---- an interruption -------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_and_ends_as_one_without_interruption(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean, before = clean_data(), (own / "bundle.json").read_bytes()
    calls = 0
    real = edgepure.Purifier.score_norms

    def counted(self: edgepure.Purifier, batch: Any, *rest: Any, **options: Any) -> Any:
        nonlocal calls
        calls += len(batch)
        return real(self, batch, *rest, **options)

    monkeypatch.setattr(edgepure.Purifier, "score_norms", counted)
    straight = quick(own, clean, apply=False)
    whole, calls = calls, 0

    def stop(share: float, what: str) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick(own, clean, work=tmp_path / "work", on_progress=stop)
    assert (own / "bundle.json").read_bytes() == before
    first, calls = calls, 0
    shares: list[float] = []
    resumed = quick(own, clean, work=tmp_path / "work", on_progress=lambda share, what: shares.append(share))
    assert first + calls == whole
    assert 0 < calls < whole
    assert resumed.calibration == straight.calibration
    assert shares == sorted(shares) and shares[-1] == 1.0
    for data, provider in ((clean_data(seed=2), "cpu"), (clean, "openvino")):
        made = []
        for work in (tmp_path / "work", tmp_path / provider):  # nothing of other images, or of another engine, is used
            calls = 0
            quick(own, data, provider=provider, work=work, apply=False)
            made.append(calls)
        assert made[0] == made[1] > 0


def test_a_damaged_work_file_is_begun_anew(own: Path, tmp_path: Path) -> None:
    quick(own, clean_data(), work=tmp_path / "work", apply=False)
    for file in (tmp_path / "work").iterdir():
        file.write_bytes(file.read_bytes()[:50])
    assert quick(own, clean_data(), work=tmp_path / "work").applied


def test_a_bundle_that_changed_meanwhile_is_left_alone(own: Path) -> None:
    def interfere(share: float, what: str) -> None:
        if what == "writing the bundle":
            (own / "weights.bin").write_bytes(b"\0" * (own / "weights.bin").stat().st_size)
            files = edgepure.bundle.bundle.hash_files(own)
            edgepure.bundle.bundle.update_manifest(own, lambda m: m.model_copy(update={"files": files}))

    with raises_code("E-bundle-busy"):
        quick(own, clean_data(), on_progress=interfere)
    assert Bundle.open(own).manifest.calibration is None


# ---- refusals --------------------------------------------------------------------------------------------------------


def constant(data: LabelledImages) -> LabelledImages:
    pixels = data.images.copy()
    pixels[3] = 0.25
    return labelled(pixels, data.labels)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda d: (d.pick(range(30)), None), "E-data-few"),
        (lambda d: (constant(d), None), "E-data-constant"),
        (lambda d: (labelled(np.repeat(d.images[:1], 80, 0), None), None), "E-data-same"),
        (lambda d: (labelled(d.images[:, :, :8], d.labels), None), "E-data-size"),
        (
            lambda d: (d.pick(np.flatnonzero(np.tile(d.labels == 0, 1))).pick([*range(40)] * 2), None),
            "E-data-one-class",
        ),
        (lambda d: (d, d), "E-attacked-clean"),
        (lambda d: (d, attacked_data(d).pick(range(10))), "E-data-few"),
        (lambda d: (d, labelled(np.clip(d.images + 0.001, 0, 1), d.labels)), "E-attacked-weak"),
        (lambda d: (d, labelled(np.clip(d.images + 0.001, 0, 1), None)), "E-attacked-weak"),
        (lambda d: (d, labelled(attacked_data(d).images[:30], None)), "E-attacked-unproven"),
    ],
)
def test_unfit_images_are_refused_in_a_sentence(own: Path, make: Any, code: str) -> None:
    clean, attacked = make(clean_data())
    before = (own / "bundle.json").read_bytes()
    with raises_code(code):
        quick(own, clean, attacked=attacked)
    assert (own / "bundle.json").read_bytes() == before


def test_unlabelled_attacks_on_the_same_images_are_taken(own: Path) -> None:
    clean = clean_data()
    found = quick(own, labelled(clean.images, None), attacked=labelled(attacked_data(clean).images, None))
    assert found.calibration.clean.accuracy is None
    assert found.calibration.attacked is not None


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"presets": ("gone",)}, "E-preset-unknown"),
        ({"search": 200, "limit": 100}, "E-calibrate-search"),
        ({"noise": "some"}, "E-calibrate-noise"),
        ({"reweighting": "cubic"}, "E-calibrate-reweighting"),
        ({"minimum": 1.5}, "E-calibrate-minimum"),
        ({"mask_area": 1.0}, "E-calibrate-mask-area"),
        ({"levels": ((5000.0,),), "full_probe": 0}, None),
    ],
)
def test_settings_out_of_range_are_refused(own: Path, settings: dict[str, Any], code: str | None) -> None:
    if code is None:  # the probe of the bundle's own preset is left
        assert quick(own, clean_data(), settings=settings).calibration.chosen.probes == 2
    else:
        with raises_code(code):
            quick(own, clean_data(), settings=settings)


# ---- the command line ------------------------------------------------------------------------------------------------


def command(bundle: Path, data: Path, *options: object) -> Any:
    words = ["--probe-t", "5,5+20", "--full-probe", "0", "--search", "40", "--threads", "1"]
    return run("calibrate", bundle, "--data", data, *words, *options)


def test_command_writes_the_bundle_and_a_report(own: Path, tmp_path: Path) -> None:
    clean = clean_data()
    for name, data in (("clean", clean), ("attacked", attacked_data(clean))):
        np.savez(tmp_path / f"{name}.npz", images=data.images, labels=data.labels)
    report = tmp_path / "report.html"
    done = command(own, tmp_path / "clean.npz", "--attacked", tmp_path / "attacked.npz", "--report", report, "--json")
    assert done.code == 0, done.stderr
    manifest = Bundle.open(own).manifest
    assert manifest.calibration is not None
    assert done.json["calibration"] == manifest.calibration.model_dump(mode="json")
    assert done.json["applied"] is True
    page = report.read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 5
    assert not_cut(page)
    assert manifest.calibration.reason[:20] in page
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]  # no partial results are left
    shown = run("inspect", own)
    assert "chosen probe" in shown.stdout


def test_command_refuses_in_one_sentence_and_says_what_it_did(own: Path, tmp_path: Path) -> None:
    clean = clean_data()
    np.savez(tmp_path / "few.npz", images=clean.images[:9])
    command(own, tmp_path / "few.npz").fails(4, "9 images are too few")
    command(own, tmp_path / "gone.npz").fails(4, "does not exist")
    np.savez(tmp_path / "clean.npz", images=clean.images)
    done = command(own, tmp_path / "clean.npz", "--no-apply", "--search", "5000", "--limit", "2000")
    assert done.code == 0, done.stderr
    assert "not written (--no-apply): adaptive" in done.stdout
    assert "which is no attack" in done.stdout
    assert Bundle.open(own).manifest.calibration is None

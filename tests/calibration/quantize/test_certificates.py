"""Certificates of fp32 that are carried to a variant while it is made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import cli_process
import numpy as np
import pytest
from codes import raises_code

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.images.dataset import LabelledImages
from edgepure.intervals import lower_bound
from edgepure.purify.certificate import Certificate, CertifySettings, carried
from edgepure_calibration.certify import CertifyRequest, certify_data
from edgepure_calibration.certify.files import write_results
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.quantize import Limits, QuantizeSettings, quantize, stages
from edgepure_calibration.quantize.certificates import read_certificates
from edgepure_calibration.quantize.report import write_report
from edgepure_calibration.quantize.speed import Speed
from edgepure_calibration.work import bundle_key

ONE = ProviderSettings(threads=1, slots=16)
SMOOTH = {"smooth-0.25": edgepure.Preset.parse({"method": {"method": "smooth", "sigma": 0.25}})}
SPLIT = {"method": {"method": "split", "sigma": 0.25}, "mask": {"area": 0.5}}  # it sees its input twice
QUICK: dict[str, Any] = {"presets": ("uniform",), "redraws": 2, "limits": Limits(flips=0.1, accuracy=0.1), "pairs": 60}


@pytest.fixture(scope="module")
def certificates(clean: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of three images, rounded to 8 bits."""
    folder = tmp_path_factory.mktemp("certificates")
    np.savez(folder / "data.npz", images=clean.images[:3], labels=clean.labels[:3])
    request = CertifyRequest(SMOOTH, CertifySettings(n=120, n0=10, alpha=0.01), seed=1, eight_bits=True)
    write_results(folder, certify_data(edgepure.demo_bundle(), folder / "data.npz", request, on=ONE))
    return folder / "certificates.json"


def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = tuple(Speed(batch, 10.0, 5.0, 2.0) for batch in (1, 8))
    monkeypatch.setattr(stages, "compare_speed", lambda *args, **more: speeds)


def test_int8_keeps_the_certificates_less_what_few_pairs_leave_open(
    own_digits: Path, clean: LabelledImages, certificates: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fast(monkeypatch)
    asked = QuantizeSettings("int8", "cpu", certificates=str(certificates), **QUICK)
    outcome = quantize(own_digits, asked, clean, provider=ONE)
    assert outcome, outcome.reasons
    stored = json.loads((own_digits / "variants/int8/evidence.json").read_text())["certificates"]
    assert stored == outcome.evidence["certificates"]
    (found,) = stored["presets"]
    counted = json.loads(certificates.read_text())["presets"][0]["images"]
    assert [row["name"] for row in found["images"]] == [entry["name"] for entry in counted]
    with edgepure.load(own_digits, precision="int8", threads=1) as variant:
        for row, entry in zip(found["images"], counted, strict=True):
            bound = entry["probability"] - (1.0 - lower_bound(60 - row["differing"], 60, 0.01))
            assert row["probability"] == pytest.approx(bound) and row["radius_fp32"] == entry["radius"]
            assert row["radius"] == pytest.approx(0.25 * NormalDist().inv_cdf(bound))
            assert row["lost"] == pytest.approx(entry["radius"] - row["radius"]) and row["lost"] > 0.0
        image = (np.rint(clean.images[:1].astype(np.float64) * 255.0) / 255.0).astype(np.float32)
        (own,) = variant.certify(image, SMOOTH["smooth-0.25"], n=120, n0=10, alpha=0.01, noise=9)
        assert own.label == found["images"][0]["label"]
        mixed = np.concatenate(
            [image, clean.images[1:2]]
        )  # the second has not 8 bits: said before the first is counted
        for images, preset in ((mixed, SMOOTH["smooth-0.25"]), (image, SPLIT)):
            with raises_code("E-certificate-precision"):
                variant.certify(images, preset, n=120, n0=10, on_certificate=pytest.fail)
    assert found["wrong_at_most"] == 0.02 and found["median_lost"] <= found["most_lost"]
    page = write_report(tmp_path / "page.html", "digits", outcome.evidence).read_text()
    assert "Certificates carried" in page and "radius in int8" in page


def test_what_cannot_be_carried_says_why(own_digits: Path, clean: LabelledImages, certificates: Path) -> None:
    def asks(path: Path, target: str = "cpu") -> QuantizeSettings:
        return QuantizeSettings("int8", target, certificates=str(path), **QUICK)  # type: ignore[arg-type]

    with raises_code("E-carry-target"):
        quantize(own_digits, asks(certificates, "tensorrt"), clean, provider=ONE)
    with raises_code("E-carry-pairs"):
        QuantizeSettings("int8", pairs=3)
    manifest, data = Bundle.open(own_digits).manifest, json.loads(certificates.read_text())
    here = (manifest.planner(), bundle_key(manifest), ONE.key(manifest)["provider"])
    with raises_code("E-carry-bundle"):
        read_certificates(certificates, clean.images, here[0], "another", here[2])
    with raises_code("E-carry-engine"):
        read_certificates(certificates, clean.images, *here[:2], "another")
    with raises_code("E-carry-images"):
        read_certificates(certificates, clean.images[3:], *here)
    other = certificates.with_name("other.json")
    for name, value in (
        ("probability", 0.999),
        ("probability", math.nan),
        ("radius", 2.0),
        ("radius", math.nan),
        ("count", 121),
        ("samples", 10_000),
        ("sigma", 1.0),
        ("name", None),
    ):
        edited = json.loads(certificates.read_text())
        edited["presets"][0]["images"][1][name] = value
        if name == "name":
            edited["presets"][0] = "smooth"
        other.write_text(json.dumps(edited))
        with raises_code("E-carry-file"):
            read_certificates(other, clean.images, *here)
    edited = json.loads(certificates.read_text())
    edited["alpha"] = 0.4  # then the bounds that are there would be too careful, but not the other way round
    edited["presets"] *= 2
    edited["presets"][1] = {**edited["presets"][1], "preset": "carried", "carried_to": "fp16"}
    other.write_text(json.dumps(edited))
    assert [found.name for found in read_certificates(other, clean.images, *here)] == ["smooth-0.25"]
    edited["alpha"] = 1e-6
    other.write_text(json.dumps(edited))
    with raises_code("E-carry-file"):
        read_certificates(other, clean.images, *here)
    edited = json.loads(certificates.read_text())
    edited["presets"][0]["settings"] |= {
        "cascade": {"then": [{"method": "smooth", "sigma": 0.1}]},
        "votes": {"sequential": {"max": 20}},
    }
    other.write_text(json.dumps(edited))
    with raises_code("E-certificate-cascade"):
        read_certificates(other, clean.images, *here)
    data["presets"][0]["images"][1]["exact"] = False
    for text, code in ((json.dumps(data), "E-carry-exact"), ("{}", "E-carry-file"), ("[", "E-carry-file")):
        other.write_text(text)
        with raises_code(code):
            read_certificates(other, clean.images, *here)
    data["presets"][0]["images"][1]["label"] = None  # an abstention is not carried, so it does not matter either
    other.write_text(json.dumps(data))
    (found,) = read_certificates(other, clean.images, *here)
    assert len(found.images) == 2 and found.name == "smooth-0.25"
    np.savez(own_digits.with_name("all.npz"), images=clean.images, labels=clean.labels)
    asked = ("--precision", "int8", "--for", "tensorrt", "--data", own_digits.with_name("all.npz"))
    cli_process.run("quantize", own_digits, *asked, "--certificates", other).fails(2, "about graphs that run")


def test_carried_certificates_are_wrong_as_rarely_as_they_say() -> None:
    """10,000 images: a class with share p in fp32 that the variant takes away from d of the answers. The carried bound
    may lie above p - d with probability twice alpha."""
    rng, alpha, n, pairs, trials = np.random.default_rng(0), 0.05, 500, 100, 10_000
    lower = [lower_bound(k, n, alpha) for k in range(n + 1)]
    for p, d in ((0.9, 0.05), (0.97, 0.01), (0.8, 0.2)):
        wrong, counts, differing = 0, rng.binomial(n, p, trials), rng.binomial(pairs, d, trials)
        known: dict[tuple[int, int], float] = {}
        for count, other in zip(counts.tolist(), differing.tolist(), strict=True):
            if (count, other) not in known:
                before = Certificate("x", 0, "a", 0.1, 1.0, lower[count], count, n, n + 1, True, 0.0)
                known[count, other] = carried(before, other, pairs, alpha).probability
            wrong += known[count, other] > p - d
        assert wrong / trials <= 2.0 * alpha + 3.0 * math.sqrt(2.0 * alpha / trials)

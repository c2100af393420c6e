"""`edgepure certify`: its files, its card, and that it goes on where it was."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_process import run
from codes import raises_code
from tiny_bundle import make_tiny_bundle

from edgepure import Preset
from edgepure.bundle.bundle import Bundle
from edgepure.intervals import lower_bound
from edgepure.purify.certify import Certificate, CertifySettings, carried
from edgepure_calibration.attacks.attack import AttackTarget
from edgepure_calibration.certify.files import markdown
from edgepure_calibration.certify.results import Certified, Curve, Entry
from edgepure_calibration.certify.run import CertifyRequest, certify_data

SMOOTH = {"smooth-0.5": Preset.parse({"method": {"method": "smooth", "sigma": 0.5}})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and labelled 8-bit images: dark ones, bright ones, and some between."""
    place = tmp_path_factory.mktemp("certify")
    make_tiny_bundle(place / "tiny")
    levels = np.array([0, 255, 120, 130, 0, 255]).repeat(256).reshape(6, 16, 16, 1).astype(np.uint8)
    classes = Bundle.open(place / "tiny").manifest.classes
    labels = [classes.index("dark"), 1 - classes.index("dark"), 0, 1, 1 - classes.index("dark"), classes.index("dark")]
    np.savez(place / "data.npz", images=levels, labels=np.array(labels))
    return place


def test_the_verb(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tiny", tmp_path / "tiny")
    done = run(
        "certify",
        tmp_path / "tiny",
        "--data",
        folder / "data.npz",
        "--sigma",
        "0.25",
        "--sigma",
        "0.5",
        "--n",
        "60",
        "--n0",
        "10",
        "--every",
        "2",
        "--seed",
        "1",
        "-o",
        tmp_path / "out",
        "--threads",
        "1",
        "--json",
    )
    assert done.code == 0, done.stderr
    assert [p["preset"] for p in done.json["presets"]] == ["smooth-0.25", "smooth-0.5"]
    assert "does not" in " ".join(done.json["not_covered"]) or "nothing beyond" in done.json["not_covered"][0]
    first = done.json["presets"][0]
    assert [i["index"] for i in first["images"]] == [0, 2, 4] and first["exact"] is True
    assert first["images"][0]["label"] == first["images"][0]["truth"] and first["images"][0]["radius"] > 0.25
    wrong = first["images"][2]  # a dark one with another label
    assert wrong["radius"] > 0.25 and wrong["label"] != wrong["truth"]
    assert first["table"][1]["certified"] == sum(i["radius"] >= 0.25 for i in first["images"]) - 1
    with (tmp_path / "out" / "smooth-0.25.tsv").open() as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    assert list(rows[0]) == ["idx", "label", "predict", "radius", "correct", "time"]
    assert float(rows[0]["radius"]) == pytest.approx(first["images"][0]["radius"], abs=1e-5)
    assert float(rows[0]["radius"]) <= first["images"][0]["radius"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<svg" in page and "L2 distance" in page
    card = Bundle.open(tmp_path / "tiny").path / "robustness" / "certificates.md"
    assert "says nothing beyond" in card.read_text().splitlines()[2]
    run("certify", folder / "tiny", "--data", folder / "data.npz", "--preset", "heterogeneous", "--threads", "1").fails(
        2, "mask"
    )


def test_an_interrupted_run_goes_on(folder: Path, tmp_path: Path) -> None:
    request = CertifyRequest(SMOOTH, CertifySettings(n=40, n0=5, alpha=0.01), seed=3)
    whole = certify_data(folder / "tiny", folder / "data.npz", request)
    seen: list[float] = []

    class StopError(Exception):
        pass

    def stop(share: float, words: str) -> None:
        seen.append(share)
        if len(seen) == 3:
            raise StopError

    with pytest.raises(StopError):
        certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work", on_progress=stop)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*.json")}
    assert kept
    again = certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work")
    assert again.curves == whole.curves
    assert all((tmp_path / "work" / name).stat().st_mtime_ns == time for name, time in kept.items())


def made(radius: float, label: int | None) -> Certificate:
    return Certificate("x", label, None, radius, 0.25, 0.9, 9, 10, 12, True, 1.5)


def test_the_table_counts_abstentions_and_wrong_answers_as_wrong() -> None:
    entries = (
        Entry(0, 1, made(0.3, 1)),
        Entry(1, 1, made(0.9, 0)),
        Entry(2, 1, made(0.0, None)),
        Entry(3, 1, made(0.1, 1)),
    )
    curve = Curve("one", 0.25, 1, entries)
    assert [curve.certified(r) for r in (0.0, 0.1, 0.25, 0.3, 0.31)] == [2, 2, 1, 1, 0]
    assert curve.abstained == 1
    assert curve.tsv().splitlines()[3].split("\t")[:5] == ["2", "1", "-1", "0.00000", "0"]
    whole = Certified(CertifySettings(), (curve,), (3, 32, 32), "0", {"bundle": "b"})
    assert "1.74" in whole.warnings()[0]
    assert markdown(whole).splitlines()[2].startswith("- A certificate says")
    assert json.loads(json.dumps(whole.to_dict()))["presets"][0]["table"][0]["certified"] == 2


def test_carried_to_the_same_graphs_only_the_bound_is_lost(folder: Path) -> None:
    settings = CertifySettings(n=300, n0=5, alpha=0.01)
    request = CertifyRequest(SMOOTH, settings, limit=2, seed=3, carry_to="fp32", pairs=100)
    own, there = certify_data(folder / "tiny", folder / "data.npz", request).curves
    assert (own.name, there.name) == ("smooth-0.5", "smooth-0.5-fp32")
    lost = 1.0 - lower_bound(100, 100, 0.01)
    for before, after in zip(own.entries, there.entries, strict=True):
        assert after.certificate.probability == pytest.approx(before.certificate.probability - lost)
        assert 0.0 < after.certificate.radius < before.certificate.radius
        assert after.certificate.label == before.certificate.label


def test_carried_with_many_differences_abstains() -> None:
    sure = Certificate("x", 1, "one", 0.3, 0.25, 0.9, 95, 100, 110, True, 1.0)
    assert carried(sure, 60, 100, 0.01).abstained
    assert carried(sure, 0, 100, 0.01).probability == pytest.approx(0.9 - (1.0 - 0.01**0.01))
    nobody = Certificate("x", None, None, 0.0, 0.25, 0.4, 5, 10, 12, True, 1.0)
    assert carried(nobody, 0, 10_000, 0.01).abstained


def test_cascades_and_masks_of_noised_copies_are_certified_as_other_presets_are(folder: Path, tmp_path: Path) -> None:
    """And only certificates of a single noise are carried, from exact noise."""
    cascade = {
        "method": {"method": "smooth", "sigma": 0.5},
        "cascade": {"then": [{"method": "smooth", "sigma": 0.2}]},
        "votes": {"sequential": {"max": 60}},
    }
    split = {"method": {"method": "split", "sigma": 0.3}, "mask": {"threshold": 0.5}}
    presets = {"cascade": Preset.parse(cascade), "split": Preset.parse(split)}
    request = CertifyRequest(presets, CertifySettings(n=60, n0=5, alpha=0.01), limit=2, seed=3)
    found = certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work")
    first, second = found.curves
    assert (first.sigma, second.sigma) == (pytest.approx(0.2), pytest.approx(0.3))
    assert (first.unet_calls, second.unet_calls) == (2, 2)
    assert first.settings["cascade"]["share"] == 0.6 and second.settings["mask"]["threshold"] == 0.5
    assert all(e.correct and e.certificate.exact for e in first.entries)
    assert not any(e.certificate.exact for e in second.entries)
    assert {len(e.sha256) for e in first.entries} == {64}
    again = certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work")
    assert again.curves == found.curves
    with raises_code("E-certificate-cascade"):
        certify_data(folder / "tiny", folder / "data.npz", replace(request, carry_to="fp32"))
    with raises_code("E-attack-cascade"):
        AttackTarget("cascade", presets["cascade"], None, None)  # type: ignore[arg-type]

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
from edgepure.bundle.edit import edit_bundle
from edgepure.intervals import lower_bound
from edgepure.purify.certificate import Certificate, CertifySettings, carried
from edgepure.purify.certify import Certifier
from edgepure_calibration.attacks.attack import AttackTarget
from edgepure_calibration.certify.files import CARD, CARD_JSON, markdown, write_card
from edgepure_calibration.certify.report import write_report
from edgepure_calibration.certify.results import Certified, Curve, Entry
from edgepure_calibration.certify.run import CertifyRequest, certify_data, presets_of

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
    assert markdown(whole.tables(), 3072).splitlines()[2].startswith("- A certificate says")
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


def test_carried_ones_say_twice_alpha_and_are_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CertifySettings(n=30, n0=5, alpha=0.01)
    request = CertifyRequest(SMOOTH, settings, limit=2, seed=0, carry_to="fp32", pairs=20)
    whole = certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work")
    assert [table["wrong_at_most"] for table in whole.to_dict()["presets"]] == [0.01, 0.02]
    assert "at most 0.01 (0.02 where it was carried)" in whole.warnings()[1]
    monkeypatch.setattr(Certifier, "answers", pytest.fail)
    assert certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work").curves == whole.curves


def test_what_cannot_be_certified_is_said_before_anything_is_counted(folder: Path, tmp_path: Path) -> None:
    """Also where it is the last of several presets, or where it would be carried to."""
    late = {**SMOOTH, "late": Preset.parse({"method": {"method": "heterogeneous"}, "mask": {"area": 0.5}})}
    far = {"far": SMOOTH["smooth-0.5"], "near": Preset.parse({"method": {"method": "smooth", "sigma": 0.1}})}
    some = CertifySettings(n=60, n0=5)
    for request, code in (
        (CertifyRequest(late, some), "E-certificate-mask"),
        (CertifyRequest(far, replace(some, radius=0.5)), "E-certificate-radius"),
        (CertifyRequest(SMOOTH, replace(some, n=4)), "E-certificate-count"),
        (CertifyRequest(SMOOTH, some, carry_to="int8"), "E-bundle-variant"),
        (CertifyRequest(SMOOTH, some, carry_to="fp32", pairs=3), "E-carry-pairs"),
    ):
        with raises_code(code):
            certify_data(folder / "tiny", folder / "data.npz", request, work=tmp_path / "work", on_progress=pytest.fail)
    assert not list(tmp_path.glob("work/*.json"))


def test_cards_of_several_runs_are_merged(folder: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(folder / "tiny", tmp_path / "tiny")

    def certified(sigma: float, n: int) -> Certified:
        request = CertifyRequest(presets_of([sigma], 1), CertifySettings(n=n, n0=5, alpha=0.01), limit=2, seed=3)
        return certify_data(bundle, folder / "data.npz", request)

    def card() -> list[tuple[str, int]]:
        data = json.loads((bundle / CARD_JSON).read_text())
        assert all(table["preset"] in (bundle / CARD).read_text() for table in data["presets"])
        return [(table["preset"], table["n"]) for table in data["presets"]]

    write_card(bundle, certified(0.25, 20), "fp32")
    write_card(bundle, certified(0.5, 30), "fp32")
    assert card() == [("smooth-0.5", 30), ("smooth-0.25", 20)]
    found = certified(0.25, 40)
    write_card(bundle, found, "fp32")
    assert card() == [("smooth-0.25", 40), ("smooth-0.5", 30)]
    write_card(bundle, certified(0.25, 30), "fp32")
    assert card() == [("smooth-0.25", 40), ("smooth-0.5", 30)]  # a weaker run replaces nothing
    assert "n 40" in (bundle / CARD).read_text() and "n 30" in (bundle / CARD).read_text()
    request = CertifyRequest(presets_of([0.5], 1), CertifySettings(n=60, alpha=0.01, radius=0.3), limit=2, seed=3)
    until = certify_data(bundle, folder / "data.npz", request)
    assert [entry["radius"] for entry in until.to_dict()["presets"][0]["table"]] == [0.3]  # of no other it says enough
    assert "<svg" not in write_report(tmp_path / "page.html", until).read_text()
    write_card(bundle, until, "fp32")
    assert card() == [("smooth-0.5", 60), ("smooth-0.25", 40), ("smooth-0.5", 30)]
    assert "| r = 0 | r = 0.25 | r = 0.3 | r = 0.5 |" in (bundle / CARD).read_text()
    with edit_bundle(bundle) as edit:
        edit.write(CARD_JSON, b"{}")
    write_card(bundle, certified(0.5, 30), "fp32")
    write_card(bundle, found, "fp32")
    kept = json.loads((bundle / CARD_JSON).read_text())
    other = {**kept["presets"][1], "bundle_sha256": "0"}  # of graphs that the bundle had before
    odd = {**kept["presets"][1], "preset": "a | b\n# c"}
    for data in ({**kept, "presets": [other]}, {**kept, "presets": [odd]}, {"presets": [{}]}, {"presets": 3}, []):
        with edit_bundle(bundle) as edit:
            edit.write(CARD_JSON, json.dumps(data).encode())
        write_card(bundle, found, "fp32")
        assert card() == [("smooth-0.25", 40)]
    with raises_code("E-card-bundle"):
        write_card(bundle, replace(found, bundle_sha256="0"), "fp32")


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

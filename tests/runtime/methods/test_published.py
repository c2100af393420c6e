"""Published presets: their settings compile, cost what their authors' scripts cost, and refuse missing statistics."""

from __future__ import annotations

import json

import cli_process
import pytest
from codes import raises_code

from edgepure.methods.planner import Planner
from edgepure.methods.published import PublishedPreset, choose, mask_input, published, published_preset
from edgepure.rows.schedule import NoiseSchedule

STATISTICS = {"mu": 40.0, "tau": 5.0, "xi_min": 10.0, "xi_max": 80.0}
ALL = list(published().values())


@pytest.mark.parametrize("preset", ALL, ids=lambda p: p.name)
def test_every_preset_compiles_and_costs_what_it_says(preset: PublishedPreset) -> None:
    built = preset.build({name: STATISTICS[name] for name in preset.needs})
    c, h, w = preset.image
    planner = Planner(NoiseSchedule.linear(), c * h * w)
    assert planner.unet_calls(built) == preset.cost.total
    assert preset.source
    assert preset.name.split("-")[0] in (*preset.datasets, "smooth", "split", "cascade")
    if preset.needs:
        # Any norm that a clean image may have gives a plan.
        for norm in (0.0, 40.0, 1e4):
            assert planner.plan(built, norm).unet_calls >= 0


@pytest.mark.parametrize(
    ("name", "rows", "votes"),
    [
        # The README of the goldens and the scripts count these.
        ("cifar10-diffpure-linf", 100, 1), ("cifar10-diffpure-l2", 75, 1), ("imagenet-diffpure", 150, 1),
        ("cifar10-gdmp", 144, 10), ("cifar10-gnsp", 470, 10), ("svhn-gnsp", 380, 10), ("imagenet-gnsp", 620, 10),
        ("cifar10-dhni-official", 100, 20), ("imagenet-dhni-official", 200, 20), ("imagenet-repaint", 2410, 1),
    ],
)  # fmt: skip
def test_calls_of_the_authors_scripts(name: str, rows: int, votes: int) -> None:
    assert (published_preset(name).cost.rows, published_preset(name).cost.votes) == (rows, votes)


def test_edge_presets_have_2_to_10_calls_and_are_marked() -> None:
    edge = [p for p in ALL if "-edge-" in p.name]
    assert {p.cost.total for p in edge} >= {2, 4, 10}
    for preset in edge:
        assert 2 <= preset.cost.total <= 10
        assert int(preset.name.rsplit("-", 1)[1]) == preset.cost.total
        assert not preset.measured
        assert "not measured" in preset.source


def test_both_papers_and_their_baselines_are_there() -> None:
    for dataset in ("cifar10", "imagenet"):
        for method in ("dhni-official", "dhni-paper", "gdmp", "gnsp", "gdmp-ssni-linear", "gnsp-ssni-sigmoid"):
            assert dataset in published_preset(f"{dataset}-{method}").datasets
    assert {"WRN-28-10", "WRN-70-16"} == set(published_preset("cifar10-dhni-official").classifiers)
    assert any("svhn" in p.datasets for p in ALL)


def test_ssni_refuses_until_its_statistics_are_given() -> None:
    preset = published_preset("cifar10-diffpure-ssni-sigmoid")
    with raises_code("E-ssni-statistics") as raised:
        preset.build()
    assert "\n" not in str(raised.value)
    with raises_code("E-ssni-statistics"):
        preset.build({"mu": 3.0})
    with raises_code("E-ssni-not-taken"):
        preset.build({"mu": 3.0, "tau": 1.0, "xi_min": 2.0})
    built = preset.build({"mu": 3.0, "tau": 1.0})
    assert built.ssni is not None and built.ssni.mu == 3.0
    assert "mu" not in preset.settings["ssni"], "a preset must not remember what was given"


def test_several_at_once() -> None:
    chosen = choose(["cifar10-edge-2", "cifar10-gnsp-ssni-linear"], {"xi_min": 1.0, "xi_max": 2.0})
    assert list(chosen) == ["cifar10-edge-2", "cifar10-gnsp-ssni-linear"]
    with raises_code("E-preset-twice"):
        choose(["cifar10-edge-2", "cifar10-edge-2"])
    with raises_code("E-ssni-not-taken"):
        choose(["cifar10-edge-2"], {"mu": 1.0})
    with raises_code("E-preset-unknown"):
        choose(["cifar10-edg-2"])


def test_mask_inputs_that_contradict_each_other() -> None:
    assert mask_input(["cifar10-dhni-official", "cifar10-diffpure-l2"]) == "official"
    assert mask_input(["cifar10-dhni-paper", "cifar10-gnsp"]) == "own"
    assert mask_input([]) == "own"
    with raises_code("E-mask-input-two"):
        mask_input(["cifar10-dhni-official", "cifar10-dhni-paper"])


def test_the_command_puts_the_calls_first() -> None:
    done = cli_process.run("presets", "--dataset", "svhn")
    lines = done.stdout.splitlines()
    assert done.code == 0
    assert lines[0].split("  ")[0].strip() == "calls x votes"
    row = next(line for line in lines if "svhn-gnsp" in line)
    assert row.split()[:4] == ["380", "x", "10", "3800"]
    assert not any("imagenet" in line for line in lines)


def test_the_command_as_json_and_its_errors() -> None:
    data = cli_process.run("presets", "--json").json
    assert [entry["name"] for entry in data] == [p.name for p in ALL]
    assert json.dumps(data)
    assert data[0]["unet_calls"] == ALL[0].cost.total
    cli_process.run("presets", "cifar10-dnhi-paper").fails(2, "cifar10-dhni-paper")
    cli_process.run("presets", "--dataset", "mnist").fails(2, "svhn")
    assert "needs mu and tau" in cli_process.run("presets", "cifar10-gnsp-ssni-sigmoid").stdout


def test_certified_presets_have_the_sigma_of_their_name() -> None:
    planner = Planner(NoiseSchedule.linear(), 3072)
    certified = [p for p in ALL if p.name.startswith("smooth-")]
    assert {p.name for p in certified} >= {"smooth-0.12", "smooth-0.25", "smooth-0.5", "smooth-1.0", "smooth-0.25-4"}
    for preset in certified:
        sigma, *steps = preset.name.removeprefix("smooth-").split("-")
        assert planner.certified_sigma(preset.build()) == pytest.approx(float(sigma), rel=1e-6)
        assert preset.cost.rows == int(steps[0] if steps else 1)
    for preset in (p for p in ALL if p.name.startswith(("split-", "cascade-"))):
        noises = [float(noise) for noise in preset.name.split("-")[1:]]
        assert planner.certified_sigma(preset.build()) == pytest.approx(min(noises), rel=1e-6)
        assert preset.cost.rows == (2 if preset.name.startswith("split") else len(noises))

"""Presets become plans, with SSNI one for each noise level."""

from __future__ import annotations

import pytest
from codes import raises_code

from edgepure.errors import ConfigError
from edgepure.methods.planner import UNTOUCHED, Planner
from edgepure.methods.presets import Preset
from edgepure.rows.schedule import NoiseSchedule

SSNI = {"reweighting": "linear", "xi_min": 10.0, "xi_max": 20.0, "probe": {"levels": [5.0]}}
UNIFORM = {"method": "uniform", "t_star": 100, "steps": 10}


@pytest.fixture
def planner() -> Planner:
    return Planner(NoiseSchedule.linear(), 768)


def test_ssni_images_of_one_level_share_a_plan(planner: Planner) -> None:
    preset = Preset.parse({"method": UNIFORM, "ssni": SSNI})
    assert planner.plan(preset, 15.0) is planner.plan(preset, 15.001)
    assert planner.plan(preset, 15.0).unet_calls == 5
    assert planner.plan(preset, 20.0).unet_calls == 10


def test_an_image_below_xi_min_passes_untouched_unless_a_minimum_is_set(planner: Planner) -> None:
    preset = Preset.parse({"method": UNIFORM, "ssni": SSNI})
    assert planner.plan(preset, 9.0) is UNTOUCHED
    bounded = Preset.parse({"method": UNIFORM, "ssni": {**SSNI, "minimum": 0.25}})
    assert planner.plan(bounded, 9.0).levels["t_star"] == 25


def test_unet_calls_count_the_probe_once_and_the_rows_per_vote(planner: Planner) -> None:
    preset = Preset.parse({"method": UNIFORM, "ssni": SSNI, "votes": {"count": 5}})
    assert planner.unet_calls(preset) == 1 + 5 * 10


@pytest.mark.parametrize(
    ("preset", "code", "words"),
    [
        ({"method": {"method": "uniform", "tstar": 10}}, "E-key-unknown", "method.tstar"),
        ({"method": {"method": "unifrom"}}, "E-preset", "unifrom"),
        (
            {"method": {"method": "heterogeneous", "t_l": 100, "t_s": 100}, "mask": {"area": 0.5}},
            "E-heterogeneous-levels",
            "t_s 100",
        ),
        ({"method": {"method": "heterogeneous"}}, "E-preset-mask", "`mask`"),
        ({"method": UNIFORM, "mask": {"threshold": 1.5}}, "E-preset", "mask.threshold"),
        ({"method": UNIFORM, "mask": {"threshold": 0.5, "area": 0.5}}, "E-mask-rule", "mask: "),
        ({"method": UNIFORM, "ssni": {"reweighting": "sigmoid"}}, "E-ssni-sigmoid", "ssni: "),
        ({"method": UNIFORM, "ssni": {**SSNI, "xi_min": 30.0}}, "E-ssni-order", "xi_min 30.0"),
        ({"method": UNIFORM, "votes": {"count": 0}}, "E-preset", "votes.count"),
        ({}, "E-key-missing", "the key method"),
    ],
)
def test_a_wrong_preset_is_one_sentence_that_names_the_key(preset: dict[str, object], code: str, words: str) -> None:
    with raises_code(code) as caught:
        Preset.parse(preset)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ({"method": "uniform", "t_star": 1001}, "1001"),
        ({"method": "heterogeneous", "t_l": 998, "t_s": 100, "U": 3, "stage1_steps": 2}, "998 + 3"),
        ({"method": "heterogeneous", "t_l": 1000, "t_s": 100}, "1000"),
        ({"method": "gnsp", "max_timesteps": [2000], "num_denoising_steps": [10]}, "1999"),
        ({"method": "gdmp", "purify_steps": 1000}, "1000"),
        ({"method": "gdmp", "guidance": "ssim"}, "SSIM"),
        ({"method": "repaint", "respacing": "50", "t_T": 60}, "60"),
        ({"method": "uniform", "timesteps": [10, 20]}, "descending"),
        ({"method": "uniform", "t_star": 10, "steps": 20}, "20"),
        ({"method": "uniform", "respacing": "dim10"}, "dim10"),
    ],
)
def test_levels_beyond_the_schedule_are_refused_with_the_number(
    planner: Planner, method: dict[str, object], words: str
) -> None:
    preset = Preset.parse({"method": method, "mask": {"area": 0.5}})
    with pytest.raises(ConfigError) as caught:
        planner.plan(preset)
    assert words in str(caught.value)

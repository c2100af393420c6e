"""Somebody else's method is one file: presets, plans, SSNI, classification, verification and tuning take it up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_process import run
from foreign_package import install

METHOD = '''
"""Two rounds of denoised smoothing: noise to t, one call, noise again, one call."""

from typing import Any, ClassVar, Literal

from edgepure import NoiseSchedule, Plan, Preset  # importing a preset here must not go round in circles
from edgepure.methods import Choices, MethodSpec, Room, Suggest, steps
from edgepure.rows import RowBuilder


class TwiceSpec(MethodSpec):
    method: Literal["twice"] = "twice"
    t: int = 100

    @property
    def top_level(self) -> float:
        return float(self.t)

    def scaled(self, factor: float, timesteps: int = 1000) -> "TwiceSpec | None":
        t = min(round(self.t * factor), timesteps)
        return self.model_copy(update={"t": t}) if t > 0 else None

    def compile(self, schedule: NoiseSchedule, elements: int) -> Plan:
        top = schedule.check(self.t - 1)
        noised = schedule.sqrt_alpha_bar(top), schedule.sigma(top), top
        call = steps.ddim(schedule.alpha_bar(top), 1.0, eta=0.0, clip=1.0, level=top)
        builder = RowBuilder("twice").diffuse_ref(*noised).call(top, stage="first", **call)
        return builder.jump(*noised).call(top, stage="second", **call).finish(levels={"t": float(self.t)})

    @classmethod
    def search_space(cls) -> Choices:
        return Choices(suggest, start=("twice.t", 0.1), readings={"": 2})


def suggest(trial: Suggest, room: Room, reading: str) -> dict[str, Any]:
    return {"method": "twice", "t": room.level(trial, "twice.t", 0.02, 0.5)}
'''


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process with the method installed."""
    folder = tmp_path_factory.mktemp("foreign")
    return install(folder, "twice_method", METHOD, "edgepure.methods", twice="twice_method:TwiceSpec")


def python(code: str, env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)


def test_python_plans_and_classifies_with_it(env: dict[str, str], tiny_bundle: Path) -> None:
    code = """
import json, sys, numpy as np, edgepure
preset = edgepure.Preset.parse({"method": {"method": "twice", "t": 50}, "votes": {"count": 3}})
ssni = {"reweighting": "linear", "xi_min": 0.0, "xi_max": 1e9, "minimum": 0.5, "probe": {"levels": [5.0]}}
with edgepure.load(sys.argv[1], threads=1) as purifier:
    plan = purifier.plan(preset)
    result, = purifier.classify(np.full((1, 1, 16, 16), 0.2, np.float32), preset, noise=1)
    adapted, = purifier.classify(np.full((1, 1, 16, 16), 0.2, np.float32), {**preset.model_dump(), "ssni": ssni})
stages = [row.stage for row in plan.rows]
print(json.dumps([stages, result.unet_calls, dict(result.levels), adapted.levels["t"], preset.model_dump(mode="json")]))
"""
    done = python(code, env, tiny_bundle)
    assert done.returncode == 0, done.stderr
    stages, calls, levels, adapted, data = json.loads(done.stdout)
    assert (stages, calls, levels, adapted) == (["first", "second"], 6, {"t": 50.0}, 25.0)
    assert data["method"] == {"method": "twice", "t": 50}


def test_the_command_line_plans_and_classifies_with_it(env: dict[str, str], tiny_bundle: Path, tmp_path: Path) -> None:
    planned = run("plan", "--method", "twice", "--set", "t=30", "--json", env=env).json
    assert planned["method"] == "twice" and [row["t"] for row in planned["rows"]] == [29.0, 29.0]
    (tmp_path / "own.json").write_text(json.dumps({"method": {"method": "twice", "t": 20}}))
    code = "import sys, numpy as np; np.save(sys.argv[1], np.full((1, 1, 16, 16), 0.2, np.float32))"
    assert python(code, env, tmp_path / "image.npy").returncode == 0
    done = run("classify", tiny_bundle, tmp_path / "image.npy", "--preset", tmp_path / "own.json", "--json", env=env)
    assert done.code == 0, done.stderr
    assert done.json["results"][0]["levels"] == {"t": 20.0}
    run("plan", "--method", "thrice", env=env).fails(2, "twice")


def test_tuning_searches_it(env: dict[str, str], tiny_bundle: Path) -> None:
    code = """
import sys
from edgepure import Bundle
from edgepure_calibration.tune.budget import CallBudget
from edgepure_calibration.tune.space import SearchSpace
space = SearchSpace(Bundle.open(sys.argv[1]).manifest, CallBudget(4), methods=["twice"])
print(space.methods, space.starts())
"""
    done = python(code, env, tiny_bundle)
    assert done.stdout == "('twice',) [{'method': 'twice', 'twice.t': 20}]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "name", "spec", "why"),
    [
        ("import no_such_module", "broken", "Spec", "cannot be imported"),
        ("Spec = 3", "broken", "Spec", "no subclass"),
        (METHOD, "other", "TwiceSpec", 'Literal["other"]'),
        (METHOD.replace("twice", "uniform"), "uniform", "TwiceSpec", "has a method of that name"),
    ],
)
def test_one_that_cannot_be_used_is_left_out_with_a_warning(
    tmp_path: Path, text: str, name: str, spec: str, why: str
) -> None:
    env = install(tmp_path, "broken_method", text, "edgepure.methods", **{name: f"broken_method:{spec}"})
    code = "from edgepure import Preset; print(Preset.parse({'method': {'method': 'uniform'}}).method.t_star)"
    done = python(code, env)
    assert done.stdout == "100\n" and why in done.stderr and "broken_method" in done.stderr

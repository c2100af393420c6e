"""One new file is enough for an attack: a package that edgepure does not know declares one, and it is run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cli_process import run
from codes import raises_code
from foreign_package import install

from edgepure.demo import demo_bundle, demo_images
from edgepure.machine import packages
from edgepure_calibration.attacks import known
from edgepure_calibration.evaluate import EvaluateSettings, evaluate
from edgepure_calibration.provider import ProviderSettings

#: All that an attack takes.
ATTACK = '''
from dataclasses import replace

import numpy as np

from edgepure_calibration.attacks import Attack


class Bars(Attack):
    """Every second column brighter by eps, the others darker."""

    name = "bars"
    words = "vertical bars; no gradient"
    norms = ("linf",)

    def cost(self, target, settings):
        return 0.0

    def protocol(self, target, settings, common):
        return replace(super().protocol(target, settings, common), bounded=f"bars of {settings.eps:g}")

    def run(self, target, settings, images, labels, seeds, on_share):
        bars = np.where(np.arange(images.shape[3]) % 2, settings.eps, -settings.eps).astype(np.float32)
        on_share(1.0)
        return np.clip(images + bars, 0.0, 1.0)
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    env = install(tmp_path / "site", "bars", ATTACK, "edgepure.attacks", bars="bars:Bars")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    _forget()
    yield env
    monkeypatch.undo()
    sys.modules.pop("bars", None)
    _forget()


def _forget() -> None:
    for cached in (packages.extensions, getattr(packages, "_declared", None), known.known_attacks):
        if cached is not None:
            cached.cache_clear()


def test_python(installed: dict[str, str]) -> None:
    digits = demo_images()
    assert list(known.known_attacks())[-1] == "bars"
    settings = EvaluateSettings(
        attacks=("bars", "transfer"), eps=0.2, steps=1, images=6, worst=1, votes=1, noise_seed=1
    )
    data = digits.labelled() if hasattr(digits, "labelled") else _labelled()
    found = evaluate(demo_bundle(), data, ["uniform"], settings, provider=ProviderSettings(threads=1))
    attacks = {attack.protocol.attack: attack for attack in found.presets[0].attacks}
    assert list(attacks) == ["transfer", "bars"]
    assert attacks["bars"].protocol.bounded == "bars of 0.2"
    np.testing.assert_allclose(np.abs(attacks["bars"].images - found.images).max(), 0.2, atol=1e-6)
    assert not any("bars" in line for line in found.not_tested())
    with raises_code("E-attack-norm"):
        EvaluateSettings(attacks=("bars",), norm="l2", eps=1.0)


def _labelled() -> object:
    from edgepure.images.dataset import LabelledImages

    digits = demo_images()
    return LabelledImages(digits.clean, digits.labels, tuple(map(str, range(len(digits)))))


def test_the_command(installed: dict[str, str], tmp_path: Path) -> None:
    digits = demo_images()
    np.savez(tmp_path / "data.npz", images=digits.clean[:6], labels=digits.labels[:6])
    help_text = run("evaluate", "--help", env=installed).stdout
    assert "bars" in help_text
    done = run(
        "evaluate",
        demo_bundle(),
        "--data",
        tmp_path / "data.npz",
        "--preset",
        "uniform",
        "--attack",
        "bars",
        "--eps",
        "0.2",
        "--worst",
        1,
        "--votes",
        1,
        "--no-card",
        "--work",
        tmp_path / "work",
        "--threads",
        1,
        env=installed,
    )
    assert done.code == 0, done.stderr
    assert "bars of 0.2" in done.stdout and "bars" in done.stdout
    assert run("evaluate", demo_bundle(), "--data", "x.npz", "--attack", "bar", env=installed).fails(2, "bars")


def test_what_is_no_attack_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "odd", "ATTACK = 7\n", "edgepure.attacks", odd="odd:ATTACK")
    monkeypatch.syspath_prepend(str(tmp_path))
    _forget()
    try:
        with raises_code("E-attack-extension") as caught:
            known.known_attacks()
        assert "odd:ATTACK" in str(caught.value)
    finally:
        monkeypatch.undo()
        sys.modules.pop("odd", None)
        _forget()

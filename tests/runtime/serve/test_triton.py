"""The model repository, and the Python backend on a strict stand-in of Triton. `tests/triton` has the real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cli_process
import numpy as np
import pytest
from codes import raises_code
from fake_triton import Request, TritonError, opened, plug_in

import edgepure
from edgepure.serve import ModelSettings, write_triton_repository

DIGITS = edgepure.demo_images()
BUNDLE = edgepure.demo_bundle()


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)


def settings(**more: Any) -> ModelSettings:
    return ModelSettings("digits", BUNDLE, **{"preset": "uniform", "votes": 1, "threads": 1, **more})


@pytest.mark.parametrize("streams", [False, True])
def test_images_become_answers(triton: None, tmp_path: Path, streams: bool) -> None:
    place = write_triton_repository(settings(), tmp_path, show=["purified", "probabilities"], streams=streams)
    model = opened(place)
    try:
        requests = [Request(image=DIGITS.clean[:3]), Request(image=DIGITS.clean[3:4])]
        responses = model.execute(requests)
        if streams:
            assert responses is None
            responses = [request.answered.result(60) for request in requests]
        assert responses is not None
        labels = np.concatenate([response.outputs["label"] for response in responses])
        assert labels.ravel().tolist() == DIGITS.labels[:4].tolist()
        assert responses[0].outputs["class_name"].shape == (3, 1)
        assert responses[0].outputs["purified"].shape == (3, 1, 16, 16)
        np.testing.assert_allclose(responses[1].outputs["probabilities"].sum(1), 1, rtol=1e-5)
    finally:
        model.finalize()


def test_faults_of_clients_are_theirs(triton: None, tmp_path: Path) -> None:
    model = opened(write_triton_repository(settings(), tmp_path))
    try:
        no_image = np.array([[b"no image"]], np.object_)
        large = np.zeros((1, 1, 9, 9), np.float32)
        requests = [Request(), Request(file=no_image), Request(image=large), Request(cancelled=True, image=large)]
        requests += [Request(image=DIGITS.clean[:1], timeout=1), Request(image=DIGITS.clean[:1])]
        responses = model.execute(requests)
        assert responses is not None
        codes = [response.error and response.error.code for response in responses]
        wrong, gone = TritonError.INVALID_ARG, TritonError.CANCELLED
        assert codes == [wrong, wrong, wrong, gone, gone, None]
        assert responses[1].error.message.startswith("E-image")
    finally:
        model.finalize()


def test_a_bundle_that_does_not_answer_as_recorded_is_not_loaded(triton: None, tmp_path: Path) -> None:
    place = write_triton_repository(settings(), tmp_path)
    (place / "1" / "bundle" / "weights.bin").write_bytes(b"")
    with raises_code("E-bundle-cut-off"):
        opened(place)


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with raises_code("E-triton-version"):
        write_triton_repository(settings(version="new"), tmp_path)
    with raises_code("E-triton-show"):
        write_triton_repository(settings(), tmp_path, show=["norms"])
    with raises_code("E-preset-unknown"):
        write_triton_repository(settings(preset="none"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    arguments = ("triton", f"seven:2={BUNDLE}", "--out", tmp_path / "models", "--json")
    done = cli_process.run(*arguments)
    assert done.code == 0, done.stderr
    place = Path(json.loads(done.stdout)["model"])
    assert place == tmp_path / "models" / "seven"
    assert edgepure.Bundle.open(place / "2" / "bundle").content_hash == edgepure.Bundle.open(BUNDLE).content_hash
    assert cli_process.run(*arguments).code != 0, "a model that is there is not replaced unasked"
    assert cli_process.run(*arguments, "--overwrite").code == 0

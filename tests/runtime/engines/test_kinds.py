"""The rows of the engines, and the checks that read them."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import onnxruntime
import pytest
from codes import raises_code

from edgepure.bundle.bundle import Bundle
from edgepure.bundle.manifest import Manifest
from edgepure.demo import demo_bundle
from edgepure.engines import kind as row
from edgepure.engines import kinds
from edgepure.engines.kind import Kind
from edgepure.engines.kinds import KINDS, check_kernels, check_variant, engine_words, kind_of, providers
from edgepure.engines.null import NullEngine
from edgepure.engines.open import open_graph


def test_a_row_is_found_by_its_provider() -> None:
    assert providers()[: len(KINDS)] == ("cpu", "openvino", "cuda", "tensorrt", "tensorrt-rtx")
    for name in KINDS:
        assert kind_of(name).provider == name
    with raises_code("E-provider-unknown") as caught:
        kind_of("vulkan")
    assert "'vulkan'" in str(caught.value) and "cpu, openvino" in str(caught.value)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_a_row_names_what_there_is(kind: Kind) -> None:
    for place in (kind.opens, kind.probes):
        module, _, name = str(place).partition(":")
        assert callable(getattr(import_module(module), name))
    assert kind.made_for in KINDS and kind.title and kind.packages and kind.module and kind.install.line


def test_an_engine_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine_words("cpu") == engine_words("cuda") == f"ONNX Runtime {onnxruntime.__version__}"
    monkeypatch.setattr(row, "package_version", lambda *names: None)
    assert engine_words("openvino") == "OpenVINO"


def test_every_provider_is_in_the_help() -> None:
    words = kinds.help_words()
    assert words.startswith("cpu (ONNX Runtime), openvino (on the CPU too), cuda, tensorrt, tensorrt-rtx, or one of")


@pytest.mark.parametrize(("provider", "precision"), [("cpu", "bf16"), ("cuda", "bf16"), ("openvino", "fp8")])
def test_a_precision_without_kernels_is_refused(provider: str, precision: str) -> None:
    with raises_code("E-provider-kernels") as caught:
        check_kernels(provider, precision)
    assert precision in str(caught.value)
    check_kernels(provider, "fp32")


def with_int8_for(provider: str | None) -> Manifest:
    """The digits' manifest, with an int8 variant made for a provider."""
    manifest = Bundle.open(demo_bundle(), verify=False).manifest
    entry = manifest.graphs["step"].model_copy(update={"precision": "int8", "target": provider})
    return manifest.model_copy(update={"variants": {"int8": {"step": entry}}})


@pytest.mark.parametrize(
    ("made_for", "runs_on"),
    [
        ("cpu", {"cpu"}),
        ("openvino", {"openvino"}),
        ("cuda", {"cpu", "cuda", "tensorrt", "tensorrt-rtx"}),
        ("tensorrt", {"cpu", "cuda", "tensorrt", "tensorrt-rtx"}),
        (None, set(KINDS)),
        ("somebody-elses", set()),
    ],
)
def test_which_engines_run_a_variant(made_for: str | None, runs_on: set[str]) -> None:
    manifest = with_int8_for(made_for)
    for provider in KINDS:
        if provider in runs_on:
            check_variant(manifest, "int8", provider)
        else:
            with raises_code("E-provider-variant") as caught:
                check_variant(manifest, "int8", provider)
            assert f"made for {KINDS[str(made_for)].title if made_for in KINDS else made_for}" in str(caught.value)


def test_a_file_is_nothing_for_an_engine_that_is_built() -> None:
    with raises_code("E-provider-built"):
        open_graph(demo_bundle() / "unet.onnx", "tensorrt")


def boom() -> Any:
    raise OSError("a library is missing")


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (boom, "a library is missing"),
        (lambda: "a text", "is not an `edgepure.engines.Kind`"),
        (lambda: KINDS["cpu"], "of that name"),
    ],
)
def test_an_extension_that_is_not_one(found: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Point(EntryPoint):
        def load(self) -> Any:
            return found()

    monkeypatch.setattr(kinds, "extensions", lambda group: {"odd": Point("odd", "odd_engine:KIND", group)})
    assert providers()[-1] == "odd"
    with raises_code("E-provider-extension") as caught:
        kind_of("odd")
    assert words in str(caught.value) and "odd_engine:KIND" in str(caught.value)


def test_an_engine_that_answers_zeros() -> None:
    """For the price of the loop alone; no provider of that name can be asked for."""
    with open_graph(demo_bundle() / "step.onnx", threads=1) as engine, NullEngine(engine) as null:
        stepper = null.stepper(2)
        stepper.admit(0, *(np.ones(stepper.image_shape, np.float32),) * 2, None)
        stepper.step(1)
        assert not stepper.state(0).any()
        x = {name: np.ones((3, *(int(n) for n in spec.shape[1:])), np.float32) for name, spec in null.inputs.items()}
        assert null.run(x)["x_next"].shape == (3, *stepper.image_shape)
    assert "null" not in providers()

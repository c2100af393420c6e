"""The manifest: what it takes, what it refuses, and in which words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minimal_bundle
import pydantic
import pytest
from codes import raises_code
from hypothesis import assume, given
from hypothesis import strategies as st

from edgepure.bundle.entries import GRAPH_NAMES, graph_signature
from edgepure.bundle.manifest import SCHEMA_VERSION, Manifest, schema_text
from edgepure.bundle.manifest_text import MAX_MANIFEST_BYTES
from edgepure.bundle.names import check_relative_path
from edgepure.errors import BundleError
from edgepure.rows.plan import COLUMNS, LEARNED_COLUMNS

DOCS = Path(__file__).parents[3] / "docs"
Data = dict[str, Any]


@pytest.fixture
def data() -> Data:
    return minimal_bundle.manifest_data()


def refusal(data: Any) -> str:
    """The message with which a manifest is refused."""
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(data if isinstance(data, str | bytes) else json.dumps(data))
    return str(caught.value)


def test_text_and_back_is_the_same(data: Data) -> None:
    manifest = Manifest.from_json(json.dumps(data))
    text = manifest.to_json()
    assert Manifest.from_json(text) == manifest
    assert Manifest.from_json(text).to_json() == text
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert text.endswith("}\n")


def test_names_may_be_in_any_language(data: Data) -> None:
    data["classes"] = ["café", "猫", "зебра"]
    assert '"猫"' in Manifest.from_json(json.dumps(data)).to_json()


@pytest.mark.skipif(
    tuple(int(n) for n in pydantic.VERSION.split(".")[:2]) < (2, 10), reason="older pydantic words the schema otherwise"
)
def test_published_schema_is_current() -> None:
    published = (DOCS / "bundle.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "run `python -m edgepure.bundle.manifest > docs/bundle.schema.json`"


def test_schema_forbids_unknown_keys_in_every_object() -> None:
    schema = json.loads(schema_text())
    objects = [schema, *schema["$defs"].values()]
    open_ones = [
        o["title"] for o in objects if o.get("type") == "object" and o.get("additionalProperties") is not False
    ]
    assert open_ones == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(shedule=d.pop("schedule")), "unknown key shedule: did you mean schedule?"),
        (lambda d: d["image"].update(heigth=4), "unknown key image.heigth: did you mean height?"),
        (
            lambda d: d["presets"]["uniform"]["method"].update(tstar=10),
            "unknown key presets.uniform.method.tstar: did you mean t_star?",
        ),
        (
            lambda d: d["presets"]["heterogeneous"]["mask"].update(quantile=1),
            "unknown key presets.heterogeneous.mask.quantile: the known keys are area, residual, rule, source",
        ),
        (
            lambda d: d["presets"]["uniform"]["method"].pop("method"),
            "presets.uniform.method.method is missing: expected one of gdmp, gnsp, heterogeneous,",
        ),
        (lambda d: d["image"].pop("width"), "the key image.width is missing"),
        (lambda d: d["image"].update(height="4"), 'image.height is "4": expected a valid integer'),
        (lambda d: d["image"].update(height=True), "image.height is true: expected a valid integer"),
        (lambda d: d["image"].update(height=4.0), "image.height is 4.0: expected a valid integer"),
        (lambda d: d["image"].update(channels=0), "image.channels is 0: expected greater than or equal to 1"),
        (lambda d: d.update(classes=["one"]), "`classes` names one class, expected at least 2, or none"),
        (lambda d: d.update(classes=[]), "graph 'classifier' is listed, but `classes` is empty"),
        (
            lambda d: d.update(task={"kind": "embedding"}),
            "graph 'task' is missing, but `task` is given",
        ),
        (lambda d: d["graphs"].update(steps={}), "unknown key graphs.steps: expected 'classifier', 'mask', 'step'"),
        (lambda d: d["graphs"]["step"].update(precision="fp31"), 'graphs.step.precision is "fp31": expected'),
        (
            lambda d: d["graphs"]["step"]["inputs"][0]["shape"].__setitem__(1, 3),
            "the inputs of graph 'step' are x[batch, 3, 4, 5], ref[batch, 1, 4, 5]",
        ),
        (
            lambda d: d["graphs"]["unet"]["inputs"].reverse(),
            "the inputs of graph 'unet' are t[batch], x[batch, 1, 4, 5], but the image size",
        ),
        (
            lambda d: d["graphs"]["step"]["inputs"][0]["shape"].__setitem__(0, "n"),
            'graphs.step.inputs[0].shape[0] is "n": expected',
        ),
        (lambda d: d["graphs"].pop("step"), "graph 'step' is missing, but every bundle needs it"),
        (lambda d: d.update(attention=None), "graph 'mask' is listed, but `attention` is null"),
        (lambda d: d.update(learned_variance=True), "graph 'step_learned' is missing, but `learned_variance` is true"),
        (
            lambda d: d.update(default_preset="x"),
            "default_preset 'x' is not among the presets (heterogeneous, uniform)",
        ),
        (lambda d: d["presets"].update({"a/b": d["presets"]["uniform"]}), 'presets["a/b"]: it must match'),
        (lambda d: d["files"].pop("step.onnx"), "graph 'step' is in the file 'step.onnx', which `files` does not list"),
        (lambda d: d["files"].pop("selftest.npz"), "`files` does not list selftest.npz"),
        (lambda d: d["files"].update({"Step.onnx": d["files"]["step.onnx"]}), "differ only in case"),
        (lambda d: d["files"]["step.onnx"].update(sha256="abc"), 'files["step.onnx"].sha256 is "abc": it must match'),
        (lambda d: d["files"]["step.onnx"].update(bytes=-1), 'files["step.onnx"].bytes is -1: expected greater'),
        (lambda d: d["schedule"].update(beta_start=0.5), "schedule: beta_start 0.5 is larger than beta_end 0.02"),
        (lambda d: d["provenance"].update(created="now"), 'provenance.created is "now": expected a valid date'),
    ],
)
def test_each_fault_has_its_sentence(data: Data, change: Callable[[Data], Any], says: str) -> None:
    change(data)
    message = refusal(data)
    assert message.startswith("bundle.json: ")
    assert says in message
    assert message.endswith("; correct it, or export the bundle again")


def test_preset_with_a_mask_needs_the_mask_graph(data: Data) -> None:
    data.update(attention=None)
    del data["graphs"]["mask"], data["files"]["mask.onnx"]
    assert "preset 'heterogeneous' has a mask, but the bundle has no mask graph" in refusal(data)
    del data["presets"]["heterogeneous"]
    data["default_preset"] = "uniform"
    assert Manifest.from_json(json.dumps(data)).attention is None


def test_newer_version_asks_for_an_upgrade_even_when_the_keys_are_unknown(data: Data) -> None:
    data.update(schema_version=SCHEMA_VERSION + 1, from_the_future=1)
    message = refusal(data)
    assert "made by a newer edgepure: its schema_version is 2 and this version reads up to 1" in message
    assert "upgrade" in message


@pytest.mark.parametrize("value", ["a" * 100_000, {"a": ["b" * 50_000]}])
def test_an_endless_value_does_not_make_an_endless_sentence(data: Data, value: Any) -> None:
    for name in ("schema_version", "default_preset"):
        message = refusal({**data, name: value})
        assert len(message) < 4000 and message.startswith("bundle.json")


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None])
def test_impossible_version_is_refused(data: Data, version: Any) -> None:
    data["schema_version"] = version
    assert f"schema_version is {json.dumps(version)}, expected 1" in refusal(data)


def test_missing_version_is_refused(data: Data) -> None:
    del data["schema_version"]
    assert "schema_version is missing, expected 1" in refusal(data)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        ("[1, 2]", "holds a JSON list, expected an object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "the key 'a' appears twice"),
        ('{"a": NaN}', "the number NaN is not finite"),
        ('{"a": -Infinity}', "the number -Infinity is not finite"),
        ('{"a": 1e999}', "the number 1e999 is not finite"),
        (b" " * (MAX_MANIFEST_BYTES + 1), "a manifest may have"),
    ],
)
def test_what_is_no_strict_json_is_refused(text: str | bytes, says: str) -> None:
    assert says in refusal(text)


@given(st.data())
def test_cut_off_text_is_refused(draw: st.DataObject) -> None:
    text = Manifest.from_data(minimal_bundle.manifest_data()).to_json()
    length = draw.draw(st.integers(0, len(text) - 3))
    assert "bundle.json" in refusal(text[:length])


def objects_in(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all objects whose keys are fixed."""
    if isinstance(value, list):
        return [p for i, v in enumerate(value) for p in objects_in(v, (*path, i))]
    if not isinstance(value, dict):
        return []
    open_ended = path in [("presets",), ("files",), ("provenance", "parity")]
    own = [] if open_ended else [path]
    return own + [p for k, v in value.items() for p in objects_in(v, (*path, k))]


@given(where=st.sampled_from(objects_in(minimal_bundle.manifest_data())), key=st.text(min_size=1, max_size=8))
def test_unknown_key_anywhere_is_refused_and_named(where: tuple[Any, ...], key: str) -> None:
    data = minimal_bundle.manifest_data()
    target: Any = data
    for part in where:
        target = target[part]
    assume(key not in target)
    full = json.loads(Manifest.from_data(data).to_json())
    for part in where:
        full = full[part]
    assume(key not in full)  # a key with a default
    target[key] = None
    message = refusal(data)
    assert "unknown key" in message
    plain = key.isascii() and key.replace("-", "_").isidentifier()
    assert (key if plain else json.dumps(key, ensure_ascii=False)) in message


def test_a_calibration_survives_the_file_and_none_may_be_an_empty_object(data: Data) -> None:
    calibration = minimal_bundle.calibration()
    data["calibration"] = json.loads(calibration.model_dump_json())
    parsed = Manifest.from_json(json.dumps(data))
    assert parsed.calibration == calibration
    assert Manifest.from_json(parsed.to_json()) == parsed
    for empty in ({}, None):
        data["calibration"] = empty
        assert Manifest.from_json(json.dumps(data)).calibration is None


def test_a_calibration_whose_probe_was_not_measured_is_refused(data: Data) -> None:
    data["calibration"] = json.loads(minimal_bundle.calibration().model_dump_json())
    data["calibration"]["chosen"]["levels"] = [11.0]
    assert "`chosen` is not among the probes" in refusal(data)
    data["calibration"]["probes"][0]["sample"].reverse()
    assert "ascending" in refusal(data)


@pytest.mark.parametrize("path", ["a", "step.onnx", "sub/dir/x-1_2.bin", "A.b.c"])
def test_portable_paths_are_taken(path: str) -> None:
    assert check_relative_path(path) == path


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/passwd", "E-bundle-path-absolute"),
        ("\\\\host\\share", "E-bundle-path-absolute"),
        ("C:/x", "E-bundle-path-absolute"),
        ("../x", "E-bundle-path-escape"),
        ("a/../../x", "E-bundle-path-escape"),
        ("", "E-bundle-path-portable"),
        (".", "E-bundle-path-portable"),
        ("./x", "E-bundle-path-portable"),
        ("a//b", "E-bundle-path-portable"),
        ("a/", "E-bundle-path-portable"),
        (".hidden", "E-bundle-path-portable"),
        ("a\\b", "E-bundle-path-portable"),
        ("a\0b", "E-bundle-path-portable"),
        ("a\nb", "E-bundle-path-portable"),
        ("é", "E-bundle-path-portable"),
        ("x" * 201, "E-bundle-path-portable"),
        ("bundle.json", "E-bundle-path-reserved"),
        ("Bundle.JSON", "E-bundle-path-reserved"),
        ("engines/x.plan", "E-bundle-path-reserved"),
    ],
)
def test_other_paths_are_refused_with_the_reason(data: Data, path: str, code: str) -> None:
    with raises_code(code):
        check_relative_path(path)
    data["files"][path] = {"sha256": "0" * 64, "bytes": 1}
    with raises_code(code):
        Manifest.from_data(data)
    data = minimal_bundle.manifest_data()
    data["graphs"]["step"]["file"] = path
    with raises_code(code):
        Manifest.from_data(data)


def test_graph_signatures_follow_the_image_and_the_columns() -> None:
    image, classes = minimal_bundle.IMAGE, 7
    shapes = {
        graph: {t.name: t.shape for side in graph_signature(graph, image, classes) for t in side}
        for graph in GRAPH_NAMES
    }
    assert shapes["classifier"] == {"image": ("batch", 1, 4, 5), "logits": ("batch", 7)}
    assert shapes["mask"]["mask"] == shapes["mask"]["attention"] == ("batch", 1, 4, 5)
    assert shapes["step"]["coeffs"] == ("batch", len(COLUMNS))
    assert shapes["step_learned"]["coeffs"] == ("batch", len(COLUMNS) + len(LEARNED_COLUMNS))
    assert list(shapes["step_learned"]) == ["x", "ref", "mask", "noise", "noise_out", "coeffs", "x_next"]


def test_python_values_are_checked_too(data: Data) -> None:
    manifest = Manifest.from_data(data)
    changed = dict(manifest) | {"default_preset": "gone"}
    with raises_code("E-bundle-default-preset"):
        Manifest.from_data(changed)
    assert Manifest.from_data(dict(manifest)) == manifest


def test_manifest_cannot_be_changed_in_place(data: Data) -> None:
    manifest = Manifest.from_data(copy.deepcopy(data))
    with pytest.raises(ValueError, match="frozen"):
        manifest.name = "other"  # type: ignore[misc]

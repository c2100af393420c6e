"""Variants of a bundle: what the manifest takes, what `load` picks, and what it says when it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cli_process
import numpy as np
import pytest
import tiny_bundle as tiny
from codes import raises_code
from numpy_stepper import NumpyStepper

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.errors import NotFiniteError
from edgepure.methods.planner import Planner
from edgepure.methods.presets import Preset
from edgepure.parity.verify import verify
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise


def add_variant(
    folder: Path, precision: str = "int8", fixed_map: np.ndarray = 3.0 * tiny.FIXED_MAP, **entry: Any
) -> Path:
    """A variant whose step graph has another weight, so that one can tell which graph ran."""
    place = f"variants/{precision}"
    with edit_bundle(folder) as edit:
        edit.write(f"{place}/step.onnx", tiny.step_model().SerializeToString(deterministic=True))
        edit.write(f"{place}/weights.bin", fixed_map.astype(np.float32).tobytes())
        changes = {"file": f"{place}/step.onnx", "precision": precision, **entry}
        step = edit.manifest.graphs["step"].model_copy(update=changes)
        edit.manifest = edit.manifest.model_copy(update={"variants": {precision: {"step": step}}})
    return folder


def test_the_variant_runs_where_it_has_a_graph_and_fp32_elsewhere(own_bundle: Path) -> None:
    add_variant(own_bundle)
    bundle = Bundle.open(own_bundle)
    assert bundle.graph_path("step", "int8") == bundle.path / "variants/int8/step.onnx"
    assert bundle.graph_path("classifier", "int8") == bundle.graph_path("classifier")
    images, noise = tiny.images(3), 7
    with edgepure.load(own_bundle) as plain, edgepure.load(own_bundle, precision="int8") as variant:
        assert "precision='int8'" in repr(variant)
        exact = np.stack([r.image for r in plain.run(images, "uniform", noise=noise)])
        other = np.stack([r.image for r in variant.run(images, "uniform", noise=noise)])
        np.testing.assert_array_equal(plain.logits(images), variant.logits(images))
    assert np.abs(exact - other).max() > 0.01


def test_a_missing_variant_says_what_there_is_and_how_to_make_it(own_bundle: Path) -> None:
    with raises_code("E-bundle-variant"):
        edgepure.load(own_bundle, precision="int8")
    add_variant(own_bundle, "fp16")
    with raises_code("E-bundle-variant"):
        edgepure.load(own_bundle, precision="int8")
    with raises_code("E-precision-unknown"):
        edgepure.load(own_bundle, precision="int4")


def test_engines_that_cannot_run_a_variant_say_so(own_bundle: Path) -> None:
    add_variant(own_bundle, "bf16")
    with raises_code("E-provider-kernels"):
        edgepure.load(own_bundle, precision="bf16")
    add_variant(own_bundle, "int8", target="cpu")
    with raises_code("E-provider-variant"):
        edgepure.load(own_bundle, "tensorrt-rtx", precision="int8")
    with raises_code("E-provider-variant"):
        edgepure.load(own_bundle, "openvino", precision="int8")
    add_variant(own_bundle, "int8", target="openvino")
    with raises_code("E-provider-variant"):
        edgepure.load(own_bundle, precision="int8")
    add_variant(own_bundle, "int8", target="tensorrt")
    with raises_code("E-provider-variant"):
        edgepure.load(own_bundle, "openvino", precision="int8")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"int8": {}}, "E-bundle-variant-empty"),
        ({"int8": {"step_learned": "step"}}, "E-bundle-variant-graph"),
        ({"fp16": {"step": "step"}}, "E-bundle-variant-precision"),
        ({"int8": {"unet": "step"}}, "E-bundle-graph-signature"),
        ({"int4": {"step": "step"}}, "E-bundle-manifest-value"),
    ],
)
def test_the_manifest_refuses_variants_that_do_not_fit(own_bundle: Path, change: dict[str, Any], code: str) -> None:
    manifest = Bundle.open(add_variant(own_bundle)).manifest
    entry = manifest.variants["int8"]["step"]
    variants = {name: dict.fromkeys(graphs, entry) for name, graphs in change.items()}
    with raises_code(code):
        type(manifest).from_data({**dict(manifest), "variants": variants})


def test_files_of_a_variant_are_checked_like_all_others(own_bundle: Path) -> None:
    add_variant(own_bundle)
    weights = own_bundle / "variants/int8/weights.bin"
    data = weights.read_bytes()
    weights.write_bytes(data[:-4] + b"\0\0\0\1")
    with raises_code("E-bundle-hash"):
        Bundle.open(own_bundle)
    weights.unlink()
    with raises_code("E-bundle-file-missing"):
        Bundle.open(own_bundle)
    with edit_bundle_without_weights(own_bundle, data), raises_code("E-bundle-tensor-file"):
        Bundle.open(own_bundle, verify=False)


def edit_bundle_without_weights(folder: Path, data: bytes) -> Any:
    """The manifest no longer lists the weights that the variant's graph refers to."""
    from contextlib import contextmanager

    from edgepure.bundle.bundle import write_manifest

    @contextmanager
    def edited() -> Any:
        (folder / "variants/int8/weights.bin").write_bytes(data)
        manifest = Bundle.open(folder).manifest
        (folder / "variants/int8/weights.bin").unlink()
        files = {name: entry for name, entry in manifest.files.items() if name != "variants/int8/weights.bin"}
        write_manifest(folder, manifest.model_copy(update={"files": files}))
        yield

    return edited()


def test_values_that_are_not_finite_name_the_preset_the_row_and_the_way_out(own_bundle: Path) -> None:
    add_variant(own_bundle, "fp16", np.full_like(tiny.FIXED_MAP, np.inf))
    with edgepure.load(own_bundle, precision="fp16") as purifier, pytest.raises(NotFiniteError) as caught:
        purifier.classify(list(tiny.images(2)), "uniform", votes=2)
    text = str(caught.value)
    assert text.startswith("preset uniform: ") and "first after row 0: " in text
    assert "fp16 variant: use precision fp32" in text and "--keep LAYER" in text


def test_the_first_bad_row_is_found_among_good_ones() -> None:
    preset = Preset.parse(tiny.PRESETS["uniform"])
    planner = Planner(edgepure.ScheduleSpec().build(), 256)
    plan = planner.plan(preset)
    bad = float(plan.rows[2].t)

    def epsilon(z: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.where((t <= bad)[:, None, None, None], np.float32(np.nan), z).astype(np.float32)

    images = 2.0 * tiny.images(3) - 1.0
    source = SeededNoise(1)
    jobs = [Job(plan, source.for_image(plan, i, 0, None, tiny.IMAGE.shape), ref) for i, ref in enumerate(images)]
    with (
        np.errstate(all="ignore"),
        raises_code("E-not-finite-network"),
    ):
        InFlight(NumpyStepper(epsilon, tiny.IMAGE.shape, 2)).run(jobs, lambda job, x: None)


def test_verify_compares_a_variant_within_its_own_tolerances(own_bundle: Path) -> None:
    add_variant(own_bundle, "int8", 1.05 * tiny.FIXED_MAP)
    found = verify(own_bundle, precision="int8", threads=1, pipelines=False)
    assert found and found.precision == "int8" and "(int8)" in str(found)
    plain = {(c.subject, c.quantity): c.tolerance for c in verify(own_bundle, threads=1, pipelines=False).checks}
    wider = {c.subject for c in found.checks if c.tolerance > plain[c.subject, c.quantity]}
    assert wider == {"graph step"}


def test_commands_take_a_precision(own_bundle: Path, tmp_path: Path) -> None:
    add_variant(own_bundle)
    np.save(tmp_path / "images.npy", tiny.images(2))
    done = cli_process.run("classify", own_bundle, tmp_path / "images.npy", "--precision", "int8", "--json")
    assert done.code == 0 and done.json["precision"] == "int8"
    cli_process.run("classify", own_bundle, tmp_path / "images.npy", "--precision", "fp8").fails(3, "no fp8 variant")
    listed = cli_process.run("inspect", own_bundle)
    assert "fp32, int8" in listed.stdout and "variants/int8/step.onnx" in listed.stdout

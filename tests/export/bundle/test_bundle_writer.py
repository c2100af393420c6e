"""A bundle appears whole and right, or not at all."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import minimal_bundle
import numpy as np
import onnx
import pytest
import tiny_models
import torch
from codes import raises_code
from torch import Tensor, nn

from edgepure.bundle.bundle import Bundle
from edgepure.errors import EdgepureError, ExportError
from edgepure.parity.verify import verify
from edgepure.purify.purifier import load
from edgepure_export.bundle import graph_files as bundle_graphs
from edgepure_export.bundle import writer as bundle_writer
from edgepure_export.bundle.writer import export_bundle
from edgepure_export.graphs.to_onnx import Graph

GRAPHS = ("classifier", "mask", "step", "step_learned", "unet")


def arguments(**changes: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "classifier": tiny_models.TinyClassifier(),
        "unet": tiny_models.TinyUNet(),
        "image_size": tiny_models.SIZE,
        "threads": 1,
    }
    return {**defaults, **changes}


def test_the_runtime_agrees_with_the_reference(tiny_bundle: Path) -> None:
    verification = verify(tiny_bundle, threads=1)
    assert verification, str(verification)
    pipelines = {check.subject for check in verification.checks if check.subject.startswith("pipeline")}
    assert pipelines == {f"pipeline {name}" for name in ("uniform", "heterogeneous", "paper_mask", "sde", "adaptive")}
    assert verification.unrecorded == ("long",)  # 60 calls, and 30 were allowed
    assert max(check.max_error for check in verification.checks if check.quantity != "mask") < 1e-4
    # the tiny network's map has two pixels of the same attention at a cut: either may lie inside
    assert sum(check.pixels or 0 for check in verification.checks if check.quantity == "mask") <= 1
    assert [level.status for level in verification.levels] == ["passed"] * 4
    recorded = Bundle.open(tiny_bundle).selftest().pipelines
    assert {name: v.rows for name, v in recorded.items() if v.rows is not None} == {"uniform": (0, 1, 2)}


def test_what_a_bundle_says_of_itself(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert set(manifest.graphs) == set(GRAPHS)
    assert manifest.learned_variance
    assert manifest.attention is not None
    assert manifest.attention.blocks == tiny_models.BLOCKS
    assert manifest.default_preset == "uniform"
    assert manifest.name == "tiny_bundle"
    assert manifest.classes == ("0", "1", "2", "3", "4")
    parity = manifest.provenance.parity
    assert set(parity) == set(GRAPHS)
    assert all(0.0 <= value < 1e-4 for value in parity.values())
    assert manifest.provenance.diffusion == "TinyUNet"


def test_weights_are_stored_once(tiny_bundle: Path) -> None:
    models = [tiny_models.TinyClassifier(), tiny_models.TinyUNet(learned=True)]
    large = [p.numel() * 4 for model in models for p in model.parameters() if p.numel() * 4 >= 1024]
    assert (tiny_bundle / "weights.bin").stat().st_size <= sum(large) + 64 * len(large)
    places: dict[str, set[tuple[tuple[str, str], ...]]] = {}
    for name in GRAPHS:
        graph = onnx.load(tiny_bundle / f"{name}.onnx", load_external_data=False).graph
        for tensor in graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                assert entries["location"] == "weights.bin"
                assert int(entries["offset"]) % 64 == 0
                places.setdefault(name, set()).add(tuple(sorted(entries.items())))
            else:
                assert len(tensor.raw_data) < 1024
    assert places["unet"] == places["step"] == places["step_learned"]
    assert places["classifier"] == places["mask"]


def test_nothing_tells_of_the_exporting_machine(tiny_bundle: Path) -> None:
    here = str(Path(tiny_models.__file__).parent).encode()
    for name in GRAPHS:
        assert here not in (tiny_bundle / f"{name}.onnx").read_bytes()


def test_the_caller_keeps_its_modules_as_they_were(tmp_path: Path) -> None:
    """No hooks, no changed training flags, also after a failure."""
    classifier, unet = tiny_models.TinyClassifier().train(), tiny_models.TinyUNet().train()
    classifier.stem.eval()
    flags = [m.training for m in classifier.modules()]
    with pytest.raises(ExportError):
        export_bundle(**arguments(classifier=classifier, unet=unet, out=tmp_path / "b", blocks=("head",)))
    assert [m.training for m in classifier.modules()] == flags
    assert unet.training
    assert not any(m._forward_hooks for m in classifier.modules())


class Failing(nn.Module):
    """A UNet with something wrong."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.change = change
        self.unused = nn.Linear(1, 1)

    def forward(self, x: Tensor, t: Tensor) -> Any:
        return self.change(x)


def _raise(x: Tensor) -> Tensor:
    raise ValueError("expected 4 channels")


WRONG_NETWORKS: list[tuple[Callable[[Tensor], Any], str]] = [
    (lambda x: (x, x), "E-network-output"),
    (lambda x: x[:, :, ::2], "E-network-shape"),
    (lambda x: x[:, :2], "E-network-channels"),
    (lambda x: x.flatten(1), "E-network-shape"),
    (lambda x: x * float("nan"), "E-network-finite"),
    (lambda x: 50.0 * x, "E-network-epsilon"),
    (lambda x: -x, "E-network-epsilon"),
    (lambda x: torch.zeros_like(x), "E-network-epsilon"),
    (_raise, "E-network-fails"),
]


@pytest.mark.parametrize(("change", "code"), WRONG_NETWORKS)
def test_not_an_epsilon_model(change: Callable[[Tensor], Any], code: str, tmp_path: Path) -> None:
    with raises_code(code) as caught:
        export_bundle(**arguments(unet=Failing(change), out=tmp_path / "b"))
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_untrained_networks_need_a_flag(tmp_path: Path) -> None:
    unet = tiny_models.TinyUNet(skip=0.0)
    with raises_code("E-network-epsilon"):
        export_bundle(**arguments(unet=unet, out=tmp_path / "b"))
    bundle = export_bundle(**arguments(unet=unet, out=tmp_path / "b", check_epsilon=False))
    manifest = Bundle.open(bundle).manifest
    assert manifest.attention is None
    assert set(manifest.graphs) == {"classifier", "step", "unet"}
    assert set(manifest.presets) == {"uniform"}


WRONG_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"blocks": ("body.7",)}, "E-taps-name"),
    ({"blocks": ("head",)}, "E-layout-maps"),
    ({"blocks": ()}, "E-taps-empty"),
    ({"classes": ("a", "b")}, "E-classes-count"),
    ({"presets": {}}, "E-presets-empty"),
    ({"presets": {"a": {"method": {"method": "uniform", "t_star": 5000}}}}, "E-uniform-start"),
    ({"presets": {"a": {"method": {"method": "uniform", "t": 10}}}}, "E-key-unknown"),
    ({"presets": {"a b": {"method": {"method": "uniform"}}}}, "E-preset-name"),
    ({"schedule": {"kind": "linar"}}, "E-export-settings"),
    ({"image_size": (8, 0)}, "E-export-settings"),
    ({"default_preset": "other"}, "E-preset-default-unknown"),
    ({"sample_images": np.ones((2, 3, 9, 9))}, "E-sample-images"),
    ({"sample_images": 255 * np.ones((2, 3, 8, 8))}, "E-sample-images"),
    ({"classifier": nn.Flatten(2)}, "E-classifier-output"),
    ({"classifier": tiny_models.TinyClassifier().double()}, "E-network-placement"),
    ({"learned_variance": True}, "E-learned-variance-channels"),
    (
        {"presets": {"a": {"method": {"method": "uniform", "t_star": 9, "variance": "learned"}}}},
        "E-learned-variance-preset",
    ),
]


@pytest.mark.parametrize(("changes", "code"), WRONG_ARGUMENTS)
def test_wrong_arguments(changes: dict[str, Any], code: str, tmp_path: Path) -> None:
    with raises_code(code):
        export_bundle(**arguments(**changes, out=tmp_path / "b"))
    assert not any(tmp_path.iterdir())


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "b"
    target.mkdir()
    (target / "notes.txt").write_text("mine")
    for overwrite, code in ((False, "E-output-exists"), (True, "E-output-foreign")):  # no bundle: it does not help
        with raises_code(code):
            export_bundle(**arguments(out=target, overwrite=overwrite))
    assert [p.name for p in tmp_path.iterdir()] == ["b"]
    assert (target / "notes.txt").read_text() == "mine"


@pytest.fixture
def quick_export(monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path) -> None:
    """Graphs from the tiny bundle in place of fresh ones: what follows the export is tested without its seconds."""
    import onnx_ir

    def from_bundle(name: str, module: nn.Module, inputs: Any, outputs: Any, *, opset: int, multiple: Any) -> Graph:
        manifest = Bundle.open(tiny_bundle, verify=False).manifest
        entry = manifest.graphs[name]  # type: ignore[index]
        model = onnx_ir.load(tiny_bundle / entry.file)
        onnx_ir.external_data.load_to_model(model)
        return Graph(name, model, entry.inputs, entry.outputs, opset)  # type: ignore[arg-type]

    monkeypatch.setattr(bundle_graphs, "export_graph", from_bundle)


def full(**changes: Any) -> dict[str, Any]:
    return arguments(unet=tiny_models.TinyUNet(learned=True), blocks=tiny_models.BLOCKS, **changes)


@pytest.mark.usefixtures("quick_export")
def test_parity_above_tolerance_writes_nothing(tmp_path: Path) -> None:
    """Another seed: the graphs are not those of the module."""
    unet = tiny_models.TinyUNet(learned=True, seed=1)
    with raises_code("E-export-parity") as caught:
        export_bundle(**{**full(out=tmp_path / "b"), "unet": unet})
    assert caught.value.exit_code != 0
    assert not any(tmp_path.iterdir())
    export_bundle(**{**full(out=tmp_path / "b", tolerance=1e3), "unet": unet})
    with raises_code("E-export-parity"):
        export_bundle(**{**full(out=tmp_path / "c", tolerance={"unet": 1e3}), "unet": unet})


@pytest.mark.usefixtures("quick_export")
def test_overwrite_replaces_a_bundle(tmp_path: Path) -> None:
    stages: list[tuple[float, str]] = []
    first = export_bundle(**full(out=tmp_path / "b", name="one", on_progress=lambda *s: stages.append(s)))
    assert [share for share, _ in stages] == sorted(share for share, _ in stages)
    assert stages[-1] == (1.0, "done")
    with raises_code("E-output-exists"):
        export_bundle(**full(out=first, name="two"))
    made = minimal_bundle.calibration()
    export_bundle(**full(out=first, name="two", overwrite=True, classes=list("vwxyz"), calibration=made))
    manifest = Bundle.open(first).manifest
    assert (manifest.name, manifest.classes, manifest.calibration) == ("two", tuple("vwxyz"), made)
    assert {p.name for p in tmp_path.iterdir()} == {"b"}
    with load(first, threads=1) as purifier:
        result = purifier.classify(tiny_models.images(1).numpy(), "heterogeneous", noise=1)[0]
        assert result.class_name in "vwxyz"
        assert result.mask is not None


@pytest.mark.usefixtures("quick_export")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(errno.ENOSPC, "No space left on device"), EdgepureError)],
)
@pytest.mark.parametrize("where", ["write_npz", "write_manifest"])
def test_interrupted_or_disk_full(
    fault: BaseException, expected: type[BaseException], where: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise fault

    monkeypatch.setattr(bundle_writer, where, fail)
    with pytest.raises(expected):
        export_bundle(**full(out=tmp_path / "new" / "b"))
    assert not any(tmp_path.iterdir())


def test_selftest_noise_is_the_runtimes(tiny_bundle: Path) -> None:
    recorded = Bundle.open(tiny_bundle).selftest()
    vectors = recorded.pipelines["sde"]
    with load(tiny_bundle, threads=1) as purifier:
        other = purifier.run(vectors.image, "sde", noise=vectors.seed + 1)
    assert np.abs(other[0].image - vectors.purified[0]).max() > 1e-2
    assert json.loads((tiny_bundle / "bundle.json").read_text())["schema_version"] == 1

"""Bundles with a task: exported, verified, run, with gradients; and what is said of networks that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_models
import torch
from codes import raises_code
from in_process import invoke, refused
from PIL import Image
from shape_graph import shape_graph
from tiny_tasks import PRESETS, TASKS, Detector, Segmenter, make
from torch import Tensor, nn

import edgepure
from edgepure.bundle.edit import edit_bundle
from edgepure.files.npz import Npz
from edgepure.images.save import save_image
from edgepure.methods.presets import Preset
from edgepure.parity.side_by_side import ImageSet
from edgepure.rows.noise import SeededNoise
from edgepure_export import Task, export_bundle, export_graph, verify_against_torch
from edgepure_export.graphs.weights_pool import WeightsPool
from edgepure_export.twin.twin import load_twin


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    tapped: dict[str, Any] = {"presets": PRESETS, "blocks": ("body",)}
    more = {"segmentation": tapped}
    return {kind: make(folder / kind, task, **more.get(kind, {})) for kind, task in TASKS.items()}


def plain(kind: str, images: np.ndarray) -> Any:
    with torch.no_grad():
        return TASKS[kind].network(torch.from_numpy(images))


@pytest.mark.parametrize("kind", list(TASKS))
def test_a_task_verifies_and_agrees_with_pytorch(bundles: dict[str, Path], kind: str) -> None:
    found = edgepure.verify(bundles[kind], threads=1)
    assert found, str(found)
    assert [level.status for level in found.levels] == ["passed"] * 4
    assert [level.checks[0].quantity for level in found.levels][3].startswith("1 - ")
    clean = ImageSet("clean", tiny_models.images(3, seed=2).numpy())
    beside = verify_against_torch(
        bundles[kind], diffusion=tiny_models.TinyUNet(), task=TASKS[kind].network, images=[clean], threads=1
    )
    assert beside, str(beside)
    json.dumps(beside.to_json(), allow_nan=False)


def test_a_verification_fails_in_the_tasks_terms(bundles: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    other = Path(shutil.copytree(bundles["segmentation"], tmp_path / "other"))
    with Npz(other / "selftest.npz") as npz:
        arrays = {name: npz[name] for name in npz.names}
    arrays["pipeline/uniform/task/logits"] = -arrays["pipeline/uniform/task/logits"]
    with edit_bundle(other) as edit:
        edit.write_npz("selftest.npz", arrays)
    found = edgepure.verify(other, threads=1)
    assert not found
    assert "mIoU" in str(found.levels[3])


def test_label_maps(bundles: dict[str, Path]) -> None:
    images = tiny_models.images(3).numpy()
    with edgepure.load(bundles["segmentation"], threads=1) as purifier:
        found = purifier.predict(images, noise=3)
        purified = np.stack([r.image for r in purifier.purify(images, noise=3)])
        unpurified = purifier.predict(images, purify=False)
        voted = purifier.predict(images, votes=3, noise=3)[0]
        attended = purifier.predict(images, "heterogeneous", noise=3)[0]
    assert isinstance(found[0], edgepure.Segmentation)
    for result, image in zip(found, purified, strict=True):
        np.testing.assert_array_equal(result.image, image)
    for results, seen in ((found, purified), (unpurified, images)):
        small = plain("segmentation", seen)["out"]
        large = nn.functional.interpolate(small, size=(8, 8), mode="bilinear", align_corners=False)
        np.testing.assert_array_equal(np.stack([r.label_map for r in results]), large.argmax(1).numpy())
    assert voted.unet_calls == 3 * found[0].unet_calls > 0 == unpurified[0].unet_calls
    assert sum(found[0].shares.values()) == pytest.approx(1.0)
    assert attended.mask is not None


def test_boxes(bundles: dict[str, Path]) -> None:
    images = tiny_models.images(4).numpy()
    with edgepure.load(bundles["detection"], threads=1) as purifier:
        found = purifier.predict(images, noise=3)
        again = purifier.predict(images, noise=3, votes=1)
        purified = np.stack([r.image for r in purifier.purify(images, noise=3)])
    _, scores = plain("detection", purified)
    assert sum(len(r.boxes) for r in found) > 0
    for result, same, all_scores in zip(found, again, scores.numpy(), strict=True):
        assert isinstance(result, edgepure.Detection)
        assert len(result.boxes) <= 5 and (result.scores >= 0.4).all()
        np.testing.assert_array_equal(result.boxes, same.boxes)
        if len(result.scores):
            assert result.scores[0] == pytest.approx(all_scores.max(), abs=1e-5)
        assert result.class_names == tuple(("cat", "dog")[n] for n in result.labels)


def test_vectors(bundles: dict[str, Path]) -> None:
    images = tiny_models.images(2).numpy()
    with edgepure.load(bundles["embedding"], threads=1) as purifier:
        vectors = [result.vector for result in purifier.predict(images, purify=False)]
    expected = nn.functional.normalize(plain("embedding", images).flatten(1), dim=1)
    np.testing.assert_allclose(np.stack(vectors), expected.numpy(), atol=1e-6)


def test_the_twin_has_gradients_through_purification_and_task(bundles: dict[str, Path]) -> None:
    twin, x = load_twin(bundles["detection"]), tiny_models.images(2).requires_grad_()
    found = twin.run_preset(x, Preset.parse(PRESETS["uniform"]), SeededNoise(3))
    assert set(found.task) == {"boxes", "scores"}
    found.task["scores"].sum().backward()
    assert x.grad is not None and float(x.grad.abs().max()) > 0.0


def test_what_a_task_cannot_do_is_said(bundles: dict[str, Path]) -> None:
    image = tiny_models.images(1).numpy()
    with edgepure.load(bundles["embedding"], threads=1) as purifier:
        with raises_code("E-no-classifier"):
            purifier.classify(image)
        with raises_code("E-task-votes"):
            purifier.predict(image, {**PRESETS["uniform"], "votes": {"sequential": {"max": 3}}})
    with edgepure.load(edgepure.demo_bundle(), threads=1) as purifier:
        digits = edgepure.demo_images().clean[:1]
        assert isinstance(purifier.predict(digits)[0], edgepure.Result)
        with raises_code("E-no-task"):
            purifier.graphs.task(digits)


def test_half_precision_is_given_as_single(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", Task("embedding", Wrong(lambda x: x.mean((2, 3)).half())))
    images = tiny_models.images(2).numpy()
    with edgepure.load(bundle, threads=1) as purifier:
        (one, _) = purifier.predict(images, purify=False)
    mean = images[0].mean((1, 2))
    np.testing.assert_allclose(one.vector, mean / np.linalg.norm(mean), atol=2e-3)


def test_a_detector_with_labels_and_a_mapping(tmp_path: Path) -> None:
    places = {"scores": 0, "boxes": 1, "labels": 2}
    bundle = make(tmp_path / "b", Task("detection", Detector(labelled=True), ("cat", "dog"), places))
    images = tiny_models.images(2).numpy()
    with edgepure.load(bundle, threads=1) as purifier:
        found = purifier.graphs.task(images)
    scores, boxes, labels = (v.detach().numpy() for v in Detector(labelled=True)(torch.from_numpy(images)))
    np.testing.assert_allclose(found["boxes"], boxes, atol=1e-5)
    np.testing.assert_allclose(found["scores"].max(-1), scores, atol=1e-6)
    np.testing.assert_array_equal(found["scores"].argmax(-1), labels)


def test_the_fields_of_a_named_tuple_are_names(tmp_path: Path) -> None:
    task = Task("detection", Named(), ("cat", "dog"), {"boxes": "corners"})
    images = tiny_models.images(2)
    with edgepure.load(make(tmp_path / "b", task), threads=1) as purifier:
        found = purifier.graphs.task(images.numpy())
    np.testing.assert_allclose(found["boxes"], Detector()(images)[0].detach().numpy(), atol=1e-5)


def test_the_only_output_needs_no_name(tmp_path: Path) -> None:
    bundle = make(tmp_path / "b", Task("segmentation", Wrong(lambda x: {"output0": x})))
    images = tiny_models.images(2).numpy()
    with edgepure.load(bundle, threads=1) as purifier:
        np.testing.assert_array_equal(purifier.graphs.task(images)["logits"], images)


class Found(NamedTuple):
    scores: Tensor
    corners: Tensor


class Named(Detector):
    def forward(self, image: Tensor) -> Any:
        boxes, scores = super().forward(image)
        return Found(scores, boxes)


class Wrong(nn.Module):
    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, image: Tensor) -> Any:
        return self.output(image)


def _centres(found: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Boxes as centres and sizes."""
    boxes, scores = found
    return torch.cat([(boxes[..., 2:] + boxes[..., :2]) / 2, boxes[..., 2:] - boxes[..., :2]], -1), scores


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (Task("tracking", Segmenter()), "E-task-kind"),  # type: ignore[arg-type]
        (Task("segmentation", Segmenter()), "E-task-output"),  # the dictionary has no `logits`
        (Task("segmentation", Segmenter(), outputs={"boxes": "out"}), "E-task-output"),
        (Task("segmentation", Segmenter(), ("one", "two"), {"logits": "out"}), "E-classes"),
        (Task("segmentation", Segmenter(), outputs={"logits": "out"}, settings={"score": 0.5}), "E-task-settings"),
        (Task("detection", Detector(relative=True)), "E-task-output"),
        (Task("detection", Wrong(lambda x: _centres(Detector()(x)))), "E-task-output"),
        (Task("detection", Detector(), settings={"overlap": 2.0}), "E-task-settings"),
        (Task("detection", Detector(labelled=True), outputs={"scores": 0, "boxes": 1, "labels": 2}), "E-classes"),
        (Task("detection", Wrong(lambda x: (x.flatten(2)[..., :4], x))), "E-task-output"),
        (Task("detection", Detector(labelled=True), ("cat",), {"scores": 0, "boxes": 1, "labels": 2}), "E-classes"),
        (Task("segmentation", Wrong(lambda x: x[:, :1])), "E-task-output"),
        (Task("segmentation", Wrong(lambda x: (9 * x).to(torch.int32))), "E-task-output"),
        (Task("segmentation", Wrong(lambda x: x.to(torch.complex64))), "E-task-output"),
        (Task("detection", Wrong(lambda x: (x.new_zeros(len(x), 0, 4), x.new_zeros(len(x), 0, 2)))), "E-task-output"),
        (Task("detection", Detector(), outputs={"boxes": "xyxy"}), "E-task-output"),  # a tuple has no names
        (Task("detection", Detector(), outputs={"boxes": -1}), "E-task-output"),
        (Task("detection", Detector(), settings={"most": float("nan")}), "E-task-settings"),
        (Task("detection", Detector(), settings={"most": 2.5}), "E-task-settings"),
        (Task("segmentation", Segmenter(), None, {"logits": "out"}, frame=9), "E-task-frame-size"),  # type: ignore[arg-type]
        (Task("segmentation", Segmenter(), None, {"logits": "out"}, frame=(99999, 99999)), "E-task-frame-size"),
        (Task("embedding", Wrong(lambda x: x.mean((2, 3)) / 0.0 * 0.0)), "E-network-finite"),
        (Task("embedding", Wrong(lambda x: x.mean((2, 3)) - x.mean())), "E-network-batch"),
        (Task("embedding", Wrong(lambda x: x[:, 9])), "E-network-fails"),
    ],
)  # fmt: skip
def test_a_network_that_does_not_fit_is_refused(tmp_path: Path, task: Task, code: str) -> None:
    with raises_code(code):
        make(tmp_path / "bundle", task)
    assert not (tmp_path / "bundle").exists()


def test_a_classifier_and_a_task_are_two_bundles(tmp_path: Path) -> None:
    with raises_code("E-export-networks"):
        export_bundle(
            tiny_models.TinyClassifier(), tiny_models.TinyUNet(), tmp_path / "b", task=TASKS["embedding"], image_size=8
        )


# ---- on the command line -------------------------------------------------------------------------------------------


def test_an_onnx_file_becomes_a_task(tmp_path: Path) -> None:
    graph = export_graph("net", Segmenter().eval(), {"image": tiny_models.images(2)}, ["aux", "out"])
    with WeightsPool(tmp_path) as pool:
        pool.save(graph.model, "net.onnx")
    (tmp_path / "networks.py").write_text("import tiny_models\nunet = tiny_models.TinyUNet\n")
    common = ("export", "--diffusion", f"python:{tmp_path}/networks.py:unet", "--image", "3x8x8", "--threads", 1)
    task = ("--task", "segmentation", tmp_path / "net.onnx")
    done = invoke(*common, *task, "--task-output", "logits=out", "--classes", "sky,road,car", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    manifest = edgepure.Bundle.open(tmp_path / "b").manifest
    assert manifest.task is not None and manifest.task.outputs == {"logits": "out"}
    assert str(manifest.provenance.task).startswith("onnx:net.onnx (sha256 ")
    assert refused(*common, *task, "--task-output", "logits", "--out", tmp_path / "c") == "E-option"
    assert refused(*common, "--task", "tracking", tmp_path / "net.onnx", "--out", tmp_path / "c") == "E-task-kind"
    assert refused(*common, "--task-output", "logits=out", "--out", tmp_path / "c") == "E-option"


def test_a_detector_of_another_exporter_and_what_is_said_of_one_that_does_not_fit(tmp_path: Path) -> None:
    onnx.save(shape_graph(), tmp_path / "net.onnx")
    (tmp_path / "networks.py").write_text("import tiny_models\nunet = tiny_models.TinyUNet\n")
    common = ("export", "--diffusion", f"python:{tmp_path}/networks.py:unet", "--image", "3x8x8", "--threads", 1)
    task = (*common, "--task", "detection", tmp_path / "net.onnx")
    done = invoke(*task, "--classes", "cat,dog", "--out", tmp_path / "b")
    assert done.exit_code == 0, done.output
    images = tiny_models.images(3).numpy()
    with edgepure.load(tmp_path / "b", threads=1) as purifier:
        found = purifier.graphs.task(images)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for name, expected in zip(("boxes", "scores"), session.run(["boxes", "scores"], {"image": images}), strict=True):
        np.testing.assert_allclose(found[name], expected, atol=1e-5)
    refusal = invoke(*task, "--task-output", "boxes=small", "--out", tmp_path / "c", "--json")
    said = json.loads(refusal.stdout)["error"]
    assert said["code"] == "E-task-output" and "'scores': [2, 64, 2]" in said["message"]


def test_predict_writes_what_the_task_gives(bundles: dict[str, Path], tmp_path: Path) -> None:
    for number, image in enumerate(tiny_models.images(2).numpy()):
        save_image(image, tmp_path / f"{number}.png")
    images = (tmp_path / "0.png", tmp_path / "1.png")
    common = ("--seed", 1, "--threads", 1)
    found = {}
    for kind, out in (("segmentation", "maps"), ("detection", "boxes.json"), ("embedding", "vectors.npz")):
        done = invoke("predict", bundles[kind], *images, "--out", tmp_path / out, *common, "--json")
        assert done.exit_code == 0, done.output
        found[kind] = json.loads(done.stdout)["results"]
        shown = invoke("predict", bundles[kind], *images, *common)
        assert shown.exit_code == 0 and kind in shown.stdout, shown.output
    label_map = np.array(Image.open(tmp_path / "maps" / "1.png"))
    assert label_map.shape == (8, 8)
    share = found["segmentation"][1]["shares"].get("road", 0.0)
    assert (label_map == 1).mean() == pytest.approx(share, abs=1e-6)
    assert json.loads((tmp_path / "boxes.json").read_text()) == [
        {**entry, "seconds": pytest.approx(entry["seconds"], abs=1e9)} for entry in found["detection"]
    ]
    with Npz(tmp_path / "vectors.npz") as npz:
        assert npz["vectors"].shape == (2, 10)
    assert refused("predict", bundles["embedding"], *images, "--out", tmp_path / "v.json") == "E-output-place"
    assert refused("predict", bundles["segmentation"], *images, "--out", tmp_path / "m.png") == "E-output-place"
    assert invoke("inspect", bundles["detection"]).exit_code == 0

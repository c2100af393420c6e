"""A task that takes frames larger than the diffusion model: purified by tiles, on the engine and with gradients."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from in_process import invoke, refused
from PIL import Image
from task_bundle import frames, make_task_bundle
from tiny_bundle import images
from tiny_tasks import Segmenter
from torch import Tensor

import edgepure
from edgepure.bundle.bundle import Bundle
from edgepure.bundle.edit import edit_bundle
from edgepure.files.npz import read_all
from edgepure.parity.side_by_side import ImageSet
from edgepure.rows.noise import SeededNoise
from edgepure.serve import ModelSettings
from edgepure.serve.models import Model
from edgepure_calibration.calibrate.data import read_images
from edgepure_calibration.evaluate_task import TaskAttack, evaluate_task
from edgepure_calibration.truth import load_truth
from edgepure_export import Task, export_bundle, verify_against_torch
from edgepure_export.twin.frames import purify_frames
from edgepure_export.twin.twin import load_twin

FRAME = (22, 36)
UNIFORM: dict[str, Any] = {"method": {"method": "uniform", "t_star": 40, "steps": 3, "sampler": "ddim"}}
MASKED: dict[str, Any] = {
    "method": {"method": "heterogeneous", "t_l": 60, "t_s": 30, "stage1_steps": 2, "stage2_steps": 1},
    "mask": {"threshold": 0.5},
}
PRESETS: dict[str, dict[str, Any]] = {
    "uniform": UNIFORM,
    "closing noise": {"method": {"method": "uniform", "t_star": 3, "sampler": "sde"}},
    "masks of tiles": MASKED,
    "mask of the frame": {**MASKED, "tiles": {"mask": "frame", "overlap": 0.5}},
    "mask of residuals": {**MASKED, "mask": {"source": "residual", "area": 0.2}},
    "levels of tiles": {
        **UNIFORM,
        "ssni": {"reweighting": "linear", "xi_min": 0.0, "xi_max": 60.0, "probe": {"probes": 2, "label": "index"}},
    },
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_bundle(tmp_path_factory.mktemp("framed") / "bundle", "segmentation", FRAME)


@pytest.fixture(scope="module")
def purifier(bundle: Path) -> Iterator[edgepure.Purifier]:
    with edgepure.load(bundle, threads=1) as opened:
        yield opened


def test_the_bundle_says_what_its_task_takes(bundle: Path, purifier: edgepure.Purifier) -> None:
    manifest = Bundle.open(bundle).manifest
    assert manifest.framed and manifest.task_image.shape == (1, *FRAME) and manifest.image.shape == (1, 16, 16)
    found = edgepure.verify(bundle, threads=1)
    assert found and found.levels[3].status == "not recorded" and "no frame" in found.levels[3].missing[0]
    with raises_code("E-task-frame"):
        next(purifier.stream(frames(1, FRAME), UNIFORM, monitor=object()))  # type: ignore[arg-type]
    smaller = json.loads((bundle / "bundle.json").read_text())
    smaller["task"]["frame"] = [12, 36]
    with raises_code("E-bundle-frame"):
        type(manifest).from_data(smaller)


@pytest.mark.parametrize("name", list(PRESETS))
def test_frames_are_purified_by_tiles_and_answered(purifier: edgepure.Purifier, name: str) -> None:
    data = frames(2, FRAME)
    for i, answer in enumerate(purifier.predict(data, PRESETS[name], noise=3)):
        frame = purifier.purify_frame(data[i], PRESETS[name], noise=3, number=i)
        np.testing.assert_array_equal(answer.image, frame.image)
        expected = purifier.predict(frame.image, purify=False)[0]
        np.testing.assert_array_equal(answer.label_map, expected.label_map)
        assert answer.label_map.shape == FRAME and answer.unet_calls == frame.unet_calls
        assert set(answer.shares) == {"dark", "bright"}


@pytest.mark.parametrize("name", list(PRESETS))
def test_served_frames_share_the_slots_and_are_answered_as_predicted(bundle: Path, name: str) -> None:
    data = frames(4, FRAME)
    with edgepure.load(bundle, threads=1, slots=4) as purifier:
        expected = [purifier.predict(frame, PRESETS[name], votes=2, noise=5)[0] for frame in data]
        with edgepure.Service(purifier, PRESETS[name], votes=2) as service:
            futures = [service.submit(frame, noise=5) for frame in data]
            assert futures[2].cancel()
            for future, answer in zip(futures, expected, strict=True):
                if not future.cancelled():
                    np.testing.assert_allclose(future.result(60).image, answer.image, atol=1e-5)
                    np.testing.assert_array_equal(future.result().label_map, answer.label_map)
                    assert future.result().unet_calls == answer.unet_calls
            if name == "uniform":  # 6 tiles: alone, a frame would leave a quarter of the slots empty
                assert service.counters.ticks < service.counters.rows / 4 + 4


def test_a_service_refuses_what_predict_refuses(purifier: edgepure.Purifier) -> None:
    sequential = {**UNIFORM, "votes": {"sequential": {"max": 3}}}
    for preset, code in ((sequential, "E-task-votes"), ({**MASKED, "mask": {"source": "caller"}}, "E-mask-missing")):
        with raises_code(code):
            purifier.predict(frames(1, FRAME), preset)
        with raises_code(code):
            edgepure.Service(purifier, preset)


def test_a_frame_that_fails_fails_alone(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = frames(3, FRAME)
    with edgepure.load(bundle, threads=1) as purifier, edgepure.Service(purifier, UNIFORM) as service:
        expected = service.submit(data[0], noise=1).result(60)
        read = purifier.graphs.task

        def poisoned(images: Any) -> Any:
            outputs = read(images)
            return {"logits": np.full_like(outputs["logits"], np.nan)} if images.mean() < 0.1 else outputs

        monkeypatch.setattr(purifier.graphs, "task", poisoned)
        futures = [service.submit(frame, noise=1) for frame in (data[0], np.zeros_like(data[1]), data[0])]
        with raises_code("E-not-finite-task"):
            futures[1].result(60)
        for future in (futures[0], futures[2]):
            np.testing.assert_allclose(future.result(60).image, expected.image, atol=1e-5)


def test_votes_of_a_frame_have_noises_of_their_own(purifier: edgepure.Purifier) -> None:
    one, three = (purifier.predict(frames(1, FRAME), UNIFORM, noise=3, votes=votes)[0] for votes in (1, 3))
    np.testing.assert_array_equal(one.image, three.image)
    assert three.unet_calls == 3 * one.unet_calls
    assert not np.array_equal(one.confidence, three.confidence)


def test_masks_sizes_and_streams(purifier: edgepure.Purifier) -> None:
    mask = np.zeros(FRAME, bool)
    mask[:4, 5:] = True
    answer = purifier.predict(frames(1, FRAME), MASKED, noise=1, mask=mask)[0]
    np.testing.assert_array_equal(answer.mask, mask)
    with raises_code("E-mask-shape"):
        purifier.predict(frames(1, FRAME), MASKED, mask=np.zeros((16, 16)))
    with raises_code("E-mask-unused"):
        purifier.predict(frames(1, FRAME), purify=False, mask=mask)
    with raises_code("E-image-shape"):
        purifier.predict(images(1))
    assert purifier.predict(images(1), UNIFORM, resize=True)[0].label_map.shape == FRAME
    assert purifier.purify(images(1), UNIFORM)[0].image.shape == (1, 16, 16)
    track, video = edgepure.Track(every=2), [frames(1, FRAME)[0]] * 3
    found = list(purifier.stream(video, PRESETS["levels of tiles"], noise=1, track=track))
    assert [answer.held for answer in found] == [False, True, False]
    assert found[1].unet_calls < found[0].unet_calls and not np.array_equal(found[0].image, found[1].image)


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_twin_purifies_frames_as_the_engine_does(bundle: Path, purifier: edgepure.Purifier, name: str) -> None:
    data, twin = frames(2, FRAME), load_twin(bundle)
    expected = np.stack([answer.image for answer in purifier.predict(data, PRESETS[name], noise=5)])
    x = torch.from_numpy(data).requires_grad_(True)
    found = purify_frames(twin, purifier.graphs, x, purifier.preset(PRESETS[name]), SeededNoise(5))
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-5)
    (gradient,) = torch.autograd.grad(twin.task_outputs(found)["logits"][:, 1].mean(), x)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.abs().max()) > 0.0


def test_the_gradient_is_that_of_the_tiles(bundle: Path, purifier: edgepure.Purifier) -> None:
    """Against differences of the purification itself, in a random direction."""
    twin = load_twin(bundle, dtype=torch.float64)
    image = torch.from_numpy(frames(1, FRAME)).double()
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def value(x: Tensor) -> Tensor:
        return purify_frames(twin, purifier.graphs, x, purifier.preset(UNIFORM), SeededNoise(2)).square().sum()

    x = image.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(value(x), x)
    with torch.no_grad():
        slope = (value(image + 1e-5 * direction) - value(image - 1e-5 * direction)) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4)


def test_a_framed_task_is_attacked_through_the_tiles(bundle: Path, purifier: edgepure.Purifier, tmp_path: Path) -> None:
    data = frames(4, FRAME)
    np.savez(tmp_path / "data.npz", images=data)
    truth = load_truth(tmp_path / "data.npz", purifier)
    assert truth.labels.shape == (4, *FRAME)
    found = evaluate_task(bundle, truth, ["uniform"], attack=TaskAttack(eps=0.2, steps=3), noise_seed=1)
    assert found.rows[0].attacked.value < 0.8 and found.rows[1].attacked.value < found.rows[1].clean.value
    assert found.rows[1].unet_calls == 4 * 2 * 3  # rows, tiles
    through, alone = found.images["uniform"], found.images["plain"]
    assert not np.array_equal(through, alone), "the same start, another gradient"
    moved = np.abs(found.images["uniform"] - data)
    assert moved.max() <= 0.2 + 1e-6 and np.median(moved) > 0.05, "every pixel is attacked"


def test_quantize_gates_on_answers_to_frames(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=frames(48, FRAME))
    done = invoke("quantize", bundle, "--precision", "fp16", "--for", "tensorrt", "--data", tmp_path / "data.npz",
                  "--redraws", 2, "--max-flips", "0.1", "--max-loss", "0.1", "--preset", "uniform", "--threads", 1,
                  "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    (gate,) = json.loads(done.stdout)["attempts"][-1]["gates"]
    assert gate["flips"]["clean"]["term"] == "mIoU" and gate["flips"]["clean"]["agreement"] > 0.95


def test_a_calibration_takes_frames_as_tiles(bundle: Path, tmp_path: Path) -> None:
    data = frames(5, FRAME)
    data[0] = 0.5  # a picture of nothing tells nothing
    np.savez(tmp_path / "frames.npz", images=data, labels=np.zeros((5, *FRAME), int))
    manifest = Bundle.open(bundle).manifest
    tiles = read_images(tmp_path / "frames.npz", manifest)
    assert tiles.images.shape == (4 * 6, 1, 16, 16) and tiles.labels is None
    np.testing.assert_array_equal(tiles.images[6], data[2][:, :16, :16])
    np.testing.assert_array_equal(tiles.images[11], data[2][:, 6:, 20:])
    np.savez(tmp_path / "tiles.npz", images=images(3))
    np.testing.assert_array_equal(read_images(tmp_path / "tiles.npz", manifest).images, images(3))
    assert refused("calibrate", bundle, "--data", tmp_path / "frames.npz") == "E-data-few"
    for verb in (["evaluate"], ["tune", "--budget-calls", 9], ["certify"]):
        assert refused(*verb, bundle, "--data", tmp_path / "frames.npz") == "E-no-classifier"


def test_predict_and_export_on_the_command_line(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "frames.npz", images=frames(2, FRAME))
    done = invoke("predict", bundle, tmp_path / "frames.npz", "--out", tmp_path / "maps", "--seed", 1, "--json")
    assert done.exit_code == 0, done.output
    assert [Image.open(r["file"]).size for r in json.loads(done.stdout)["results"]] == [FRAME[::-1]] * 2
    shown = invoke("inspect", bundle)
    assert shown.exit_code == 0 and "36 x 22" in shown.output
    planned = json.loads(invoke("plan", bundle, "--preset", "uniform", "--json").stdout)["frame"]
    assert (planned["width"], planned["height"], planned["across"] * planned["down"]) == (36, 22, 6)
    common = ("export", "--diffusion", "python:nowhere.py:unet", "--image", "3x8x8", "--out", tmp_path / "none")
    assert refused(*common, "--task-frame", "18x13") == "E-option"
    assert refused(*common, "--task", "segmentation", "python:a.py:b", "--task-frame", "18") == "E-frame-option"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    task = Task("segmentation", Segmenter(), ("sky", "road", "car"), {"logits": "out"}, frame=(13, 18))
    return export_bundle(
        None, tiny_models.TinyUNet(), tmp_path_factory.mktemp("exported") / "framed", task=task, image_size=8,
        threads=1, sample_images=scenes(), presets={"uniform": UNIFORM, "heterogeneous": MASKED}, blocks=["body"],
    )  # fmt: skip


def scenes() -> np.ndarray:
    found: np.ndarray = torch.nn.functional.interpolate(tiny_models.images(3), (13, 18)).numpy()
    return found


def test_a_network_that_takes_frames_is_exported(exported: Path, tmp_path: Path) -> None:
    with edgepure.load(exported, threads=1) as purifier:
        found = purifier.predict(scenes(), noise=1)
    assert [answer.label_map.shape for answer in found] == [(13, 18)] * 3
    small = Task("segmentation", Segmenter(), None, {"logits": "out"}, frame=(7, 18))
    with raises_code("E-task-frame-size"):
        export_bundle(None, tiny_models.TinyUNet(), tmp_path / "small", task=small, image_size=8)


def test_answers_to_frames_are_verified(exported: Path, tmp_path: Path) -> None:
    found = edgepure.verify(exported, threads=1)
    assert found, str(found)
    (decision,) = found.levels[3].parts
    assert decision.to_json()["term"] == "mIoU" and decision.to_json()["data"] == "self-test"
    assert "purified frames" in [check.quantity for check in found.levels[2].checks]
    model = Model(ModelSettings("m", exported, threads=1))
    assert model.proved and model.proof == "answered as recorded"
    model.close()
    damaged = tmp_path / "damaged"
    with edit_bundle(shutil.copytree(exported, damaged)) as edit:
        arrays = read_all(edit.root / "selftest.npz")
        arrays["pipeline/uniform/frames"] = 1.0 - arrays["pipeline/uniform/frames"]
        arrays["pipeline/uniform/task/logits"] = -arrays["pipeline/uniform/task/logits"]
        edit.write_npz("selftest.npz", arrays)
    wrong = edgepure.verify(damaged, threads=1)
    assert [level.status for level in wrong.levels] == ["passed", "passed", "failed", "failed"]
    with raises_code("E-serve-selftest"):
        Model(ModelSettings("m", damaged, threads=1))


def test_frames_are_compared_with_pytorch(exported: Path, tmp_path: Path) -> None:
    networks: dict[str, Any] = {"diffusion": tiny_models.TinyUNet(), "task": Segmenter(), "threads": 1}
    sets = [ImageSet("clean", scenes())]
    found = verify_against_torch(exported, images=sets, presets=["uniform", "heterogeneous"], **networks)
    assert found, str(found)
    parts = [part.to_json() for part in found.levels[3].parts]
    assert [(part["preset"], part["data"], part["images"]) for part in parts] == [
        ("uniform", "self-test", 1), ("uniform", "clean", 3), ("heterogeneous", "clean", 3),
    ]  # fmt: skip
    assert all(part["redraw"] <= 1.0 and part["agreement"] > 0.995 for part in parts)
    other = Segmenter()
    torch.nn.init.normal_(other.head.weight, generator=torch.Generator().manual_seed(5))
    assert verify_against_torch(exported, **{**networks, "task": other}).levels[3].status == "failed"
    np.savez(tmp_path / "frames.npz", images=scenes())
    done = invoke("verify", exported, "--provider", "cpu", "--data", tmp_path / "frames.npz", "--against", "torch",
                  "--task", "python:tiny_tasks:Segmenter", "--diffusion", "python:tiny_models:TinyUNet",
                  "--threads", 1, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert {part["data"] for part in json.loads(done.stdout)["levels"][3]["comparisons"]} == {"self-test", "clean"}

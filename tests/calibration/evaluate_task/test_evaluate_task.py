"""Attacks on tasks: metrics by hand, an attack that harms the task, and what is said of data and losses that do not
fit."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from codes import raises_code
from in_process import invoke, refused
from tiny_tasks import TASKS, make
from torch import Tensor

import edgepure
from edgepure.files.npz import Npz
from edgepure.purify.boxes import Boxes
from edgepure_calibration.evaluate_task import TaskAttack, evaluate_task, load_loss, write_card
from edgepure_calibration.evaluate_task.losses import detection_loss
from edgepure_calibration.truth import Truth, load_truth, mean_average_precision, mean_iou, recall_at_1
from edgepure_calibration.truth.data import check_something_counts

ATTACK = TaskAttack(eps=0.2, steps=3)
LOSS = """
import torch

def fewer(outputs, truth):
    assert truth["labels"].shape[0] == truth["boxes"].shape[0] == outputs["scores"].shape[0]
    return -outputs["scores"].sum((1, 2))

def constant(outputs, truth):
    return torch.zeros(())

number = 3
"""


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make(folder / kind, TASKS[kind]) for kind in ("segmentation", "detection")}


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


# ---- metrics -------------------------------------------------------------------------------------------------------


def test_mean_iou_counts_all_images_together() -> None:
    truth = np.array([[[0, 0, 1, 1]], [[0, 1, 1, -1]]])
    answers = np.array([[[0, 1, 1, 1]], [[0, 1, 1, 0]]])
    found = mean_iou(answers, truth, 3)  # class 2 is nowhere
    assert found.value == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0
    perfect = mean_iou(truth, truth, 3)
    assert (perfect.value, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.025**0.5)  # two images, both right: Clopper and Pearson


def test_mean_average_precision_by_hand() -> None:
    truth = [boxes((0, 0, 10, 10, 1, 0)), boxes((0, 0, 10, 10, 1, 0), (20, 0, 30, 10, 1, 1))]
    answers = [
        boxes((0, 0, 10, 9, 0.9, 0), (50, 50, 60, 60, 0.8, 0)),  # right; wrong
        boxes((0, 0, 10, 10, 0.7, 0), (20, 0, 30, 10, 0.6, 0)),  # right; wrong: it is of class 1
    ]
    # class 0: precision 1, 1/2, 2/3, 2/4 at recall 1/2, 1/2, 1, 1: (1 + 2/3) / 2; class 1: nothing was found
    assert mean_average_precision(answers, truth).value == pytest.approx((1 + 2 / 3) / 2 / 2)
    assert mean_average_precision(truth, truth).value == 1.0
    assert mean_average_precision([boxes(), boxes()], truth).value == 0.0
    # a second box on the same digit is wrong: precision 1, 1, 2/3 at recall 1/2, 1, 1 where it comes last
    late = [boxes((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.1, 0)), truth[1]]
    assert mean_average_precision(late, truth).value == 1.0
    early = [boxes((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0)), boxes((0, 0, 10, 10, 0.5, 0))]
    assert mean_average_precision(early, truth).value == pytest.approx((1 + 2 / 3) / 2 / 2)


def test_recall_at_1() -> None:
    gallery = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    labels = np.array([0, 0, 1, 1])
    assert recall_at_1(gallery, gallery, labels, own=False).value == pytest.approx(0.5)
    assert recall_at_1(gallery[[0, 1, 3, 2]], gallery, np.arange(4), own=True).value == pytest.approx(0.25)


# ---- attacks -------------------------------------------------------------------------------------------------------


def test_an_attack_on_a_segmenter(bundles: dict[str, Path]) -> None:
    images = tiny_models.images(4).numpy()
    with edgepure.load(bundles["segmentation"], threads=1) as purifier:
        truth = Truth(images, np.stack([a.label_map for a in purifier.predict(images, purify=False)]))
    found = evaluate_task(bundles["segmentation"], truth, ["uniform"], attack=ATTACK, noise_seed=1)
    alone, uniform = found.rows
    assert alone.clean.value == 1.0 and alone.preset is None
    assert alone.attacked.value < 0.9
    assert uniform.unet_calls == 2
    assert np.abs(found.images["plain"] - images).max() <= 0.2 + 1e-6
    assert np.abs(found.images["uniform"] - found.images["plain"]).max() > 0.01
    again = evaluate_task(bundles["segmentation"], truth, ["uniform"], attack=ATTACK, noise_seed=1)
    np.testing.assert_array_equal(again.images["uniform"], found.images["uniform"])
    assert again.rows == found.rows
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_loss_of_a_detectors_scores_by_hand() -> None:
    candidates = torch.tensor([[[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30], [50, 50, 60, 60]]]).float()
    scores = torch.tensor([[[0.8, 0.1], [0.5, 0.1], [0.1, 0.9], [0.1, 0.3]]], requires_grad=True)
    outputs, true = {"boxes": candidates, "scores": scores}, {
        "boxes": torch.tensor([[[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 0, 0]]]).float(),
        "labels": torch.tensor([[0, 1, -1]]),
    }  # fmt: skip
    missed, alarms = (np.log(1 - 0.2 * 0.5) + np.log(0.9)) / -2, (np.log(0.7) + np.log(0.9)) / -2
    found = detection_loss(outputs, true)
    assert found.tolist() == [pytest.approx(missed + alarms)]
    (gradient,) = torch.autograd.grad(found.sum(), scores)
    assert gradient[0, 0, 0] < 0 < gradient[0, 3, 1], "what is right loses, what is wrong gains"
    nothing = {"boxes": true["boxes"][:, 2:], "labels": true["labels"][:, 2:]}
    assert detection_loss(outputs, nothing).tolist() == [pytest.approx(-np.log(0.1), rel=1e-5)]


def test_an_attack_on_a_detector_with_and_without_its_loss(bundles: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=tiny_models.images(4).numpy())
    (tmp_path / "losses.py").write_text(LOSS)
    common = ("evaluate-task", bundles["detection"], "--data", tmp_path / "data.npz", "--eps", "0.2", "--steps", 2,
              "--threads", 1)  # fmt: skip
    assert refused(*common, "--loss", f"python:{tmp_path}/losses.py:number") == "E-task-loss"
    assert refused(*common, "--loss", f"python:{tmp_path}/losses.py:constant") == "E-task-loss"
    assert refused(*common, "--loss", "fewer") == "E-task-loss"
    alone = invoke(*common, "--json")
    assert alone.exit_code == 0 and json.loads(alone.stdout)["rows"][0]["attacked"]["value"] < 1.0
    done = invoke(
        *common, "--loss", f"python:{tmp_path}/losses.py:fewer", "--save-images", tmp_path / "out.npz", "--json"
    )
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["rows"]
    assert rows[0]["clean"]["value"] == 1.0  # the truth is what the task says
    assert rows[0]["attacked"]["value"] < 1.0
    with Npz(tmp_path / "out.npz") as arrays:
        assert set(arrays.names) == {"plain", "uniform"}


def test_the_attack_grows_the_loss(bundles: dict[str, Path], tmp_path: Path) -> None:
    from edgepure_export.twin.twin import load_twin

    (tmp_path / "losses.py").write_text(LOSS)
    loss, twin = load_loss(f"python:{tmp_path}/losses.py:fewer"), load_twin(bundles["detection"])
    images = tiny_models.images(2).numpy()
    truth = {"labels": torch.zeros((2, 1)), "boxes": torch.zeros((2, 1, 4))}

    def value(x: np.ndarray) -> Tensor:
        with torch.no_grad():
            return loss(twin.task_outputs(torch.from_numpy(x)), truth).sum()

    attacked = ATTACK.run(lambda x, noise: twin.task_outputs(x), images, truth, loss, random=False)
    assert value(attacked) > value(images)
    patch = TaskAttack(steps=3, patch=0.1)
    attacked = patch.run(lambda x, noise: twin.task_outputs(x), images, truth, loss, random=False)
    assert value(attacked) > value(images)
    moved = np.abs(attacked - images).max(axis=1) > 0.0
    for one in moved:  # a square of 3 x 3 pixels, and nothing else
        rows, columns = np.nonzero(one)
        assert np.ptp(rows) <= 2 and np.ptp(columns) <= 2 and one.any()
    assert attacked.min() >= 0.0 and attacked.max() <= 1.0


def test_the_page_and_the_card(bundles: dict[str, Path], tmp_path: Path) -> None:
    bundle = bundles["segmentation"]
    np.savez(tmp_path / "data.npz", images=tiny_models.images(4).numpy())

    def run(steps: int, *more: Any) -> dict[str, Any]:
        done = invoke("evaluate-task", bundle, "--data", tmp_path / "data.npz", "--eps", "0.2", "--steps", steps,
                      "--threads", 1, "--json", *more)  # fmt: skip
        assert done.exit_code == 0, done.output
        return dict(json.loads(done.stdout))

    def card() -> dict[str, Any]:
        return dict(json.loads((bundle / "robustness" / "card.json").read_text()))

    found = run(2, "--report", tmp_path / "page.html", "--preset", "uniform")
    page, text = (tmp_path / "page.html").read_text(), (bundle / "robustness" / "card.md").read_text()
    assert page.count("data:image/png") == 4 * (2 + 2 + 3) and "What was not tested" in page
    for row in found["rows"]:
        number = f"{100 * row['attacked']['value']:.1f}"
        assert number in page and f"{number} (" in text
    assert found["protocol"][0] in text and "EOT 1" in text and found["not_tested"][0] in text
    assert [run["attack"]["steps"] for run in card()["runs"]] == [2, 2]
    stronger = run(3)
    assert stronger["card"] and [one["attack"]["steps"] for one in card()["runs"]] == [3, 3]
    run(2)
    assert [one["attack"]["steps"] for one in card()["runs"]] == [3, 3], "a weaker run does not take its place"
    run(2, "--patch", "0.1")
    assert {one["attack"]["bounded"] for one in card()["runs"]} == {"Linf 0.2", "patch of 10 % of the pixels"}
    run(2, "--new-card")
    assert [one["attack"]["steps"] for one in card()["runs"]] == [2, 2]
    assert not run(2, "--no-card")["card"]
    with edgepure.load(bundle, verify=True) as purifier:  # the hashes are right
        assert "robustness/card.md" in purifier.bundle.manifest.files
    evaluated = evaluate_task(bundle, tmp_path / "data.npz", attack=ATTACK)
    with raises_code("E-card-bundle"):
        write_card(bundles["detection"], evaluated)


LOSSES = """
import torch

def unknown(outputs, truth):
    return outputs["nowhere"].mean()

def infinite(outputs, truth):
    return outputs["logits"].mean() * float("nan")

def detached(outputs, truth):
    return outputs["logits"].detach().mean()
"""


def test_a_loss_of_the_users_that_fails(bundles: dict[str, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=tiny_models.images(2).numpy())
    (tmp_path / "losses.py").write_text(LOSSES)
    for name in ("unknown", "infinite", "detached"):
        loss = load_loss(f"python:{tmp_path}/losses.py:{name}")
        with raises_code("E-task-loss"):
            evaluate_task(bundles["segmentation"], tmp_path / "data.npz", attack=ATTACK, loss=loss)


def test_a_preset_that_cannot_be_attacked_is_refused_first(bundles: dict[str, Path], tmp_path: Path) -> None:
    truth = Truth(tiny_models.images(2).numpy(), np.zeros((2, 8, 8), np.int64))
    never: list[float] = []
    with raises_code("E-preset-unknown"):
        evaluate_task(bundles["segmentation"], truth, ["none"], on_progress=lambda share, words: never.append(share))
    with raises_code("E-batch-shape"):
        evaluate_task(bundles["segmentation"], Truth(truth.images[:, :, :4], truth.labels))
    with raises_code("E-task-data"):
        evaluate_task(bundles["segmentation"], Truth(truth.images, truth.labels[:1]))
    assert not never


def test_data_of_which_nothing_counts(bundles: dict[str, Path], tmp_path: Path) -> None:
    """mIoU or mAP of nothing would be perfect under any attack."""
    images = tiny_models.images(2).numpy()
    given: list[tuple[str, dict[str, Any]]] = [
        ("segmentation", {"labels": np.full((2, 8, 8), -1)}),
        ("detection", {"labels": np.full((2, 1), -1), "boxes": np.zeros((2, 1, 4))}),
        ("detection", {"labels": np.zeros((2, 0), int), "boxes": np.zeros((2, 0, 4))}),
        ("detection", {"labels": np.zeros((2, 1), int)}),
        ("detection", {"boxes": np.zeros((2, 1, 4))}),
        ("detection", {"labels": np.zeros((2, 1), int), "boxes": np.tile([5.0, 5.0, 2.0, 2.0], (2, 1, 1))}),
    ]
    for kind, arrays in given:
        np.savez(tmp_path / "data.npz", images=images, **arrays)
        assert refused("evaluate-task", bundles[kind], "--data", tmp_path / "data.npz") == "E-task-data"
    some = Truth(images, np.full((2, 8, 8), -1))
    some.labels[1] = 0
    with raises_code("E-task-data"):
        evaluate_task(bundles["segmentation"], some, images=1, attack=ATTACK)
    for labels, own, counts in (([0, 1], False, False), ([0, 0], False, True), ([0, 1], True, True)):
        found = Truth(images, np.array(labels), own=own)
        with nullcontext() if counts else raises_code("E-task-data"):
            check_something_counts(found, "embedding")


def test_data_that_do_not_fit(bundles: dict[str, Path], tmp_path: Path) -> None:
    images = tiny_models.images(2).numpy()
    with edgepure.load(bundles["segmentation"], threads=1) as purifier:
        for labels in (np.zeros((2, 8), np.int64), np.zeros((2, 8, 8)), np.full((2, 8, 8), 3), np.full((2, 8, 8), -2)):
            np.savez(tmp_path / "data.npz", images=images, labels=labels)
            with raises_code("E-task-data"):
                load_truth(tmp_path / "data.npz", purifier)
    with edgepure.load(bundles["detection"], threads=1) as purifier:
        np.savez(tmp_path / "data.npz", images=images, labels=np.zeros((2, 3), np.int64), boxes=np.zeros((2, 2, 4)))
        with raises_code("E-task-data"):
            load_truth(tmp_path / "data.npz", purifier)
    np.savez(tmp_path / "data.npz", pictures=images)
    assert refused("evaluate-task", bundles["segmentation"], "--data", tmp_path / "data.npz") == "E-data-array"
    assert refused("evaluate-task", edgepure.demo_bundle(), "--data", tmp_path / "data.npz") == "E-no-task"
    with raises_code("E-attack-eps"):
        TaskAttack(eps=0.0)
    with raises_code("E-attack-settings"):
        TaskAttack(patch=0.0)

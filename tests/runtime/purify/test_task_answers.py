"""Boxes, label maps and vectors: what stays of many, what votes decide together, how far two answers agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from task_bundle import frames, make_task_bundle

import edgepure
from edgepure.bundle.task import TaskEntry
from edgepure.parity.tasks import agreements, box_agreement, compare_task, map_agreement
from edgepure.purify.boxes import Boxes, fuse, iou, suppress
from edgepure.purify.tasks import label_map_of, vector_of

RULES = {"score": 0.3, "overlap": 0.5, "most": 10}
DETECTOR = TaskEntry(kind="detection", classes=("a", "b"))


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Boxes:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def test_classes_of_one_name_share_their_pixels(tmp_path: Path) -> None:
    """Lists of classes have such names, as COCO's has several N/A."""
    bundle = make_task_bundle(tmp_path / "b", "segmentation")
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["task"]["classes"] = ["N/A", "N/A"]
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    with edgepure.load(bundle, threads=1) as purifier:
        answer = purifier.predict(frames(1, (16, 16)), purify=False)[0]
    assert set(answer.label_map.ravel()) == {0, 1} and answer.shares == {"N/A": pytest.approx(1.0)}


def test_iou_by_hand() -> None:
    first = np.array([[0, 0, 2, 2], [5, 5, 5, 9]], np.float32)
    second = np.array([[0, 0, 2, 2], [1, 0, 3, 2], [2, 2, 4, 4]], np.float32)
    np.testing.assert_allclose(iou(first, second), [[1.0, 1.0 / 3.0, 0.0], [0.0, 0.0, 0.0]])


def test_suppression_is_for_each_class_alone() -> None:
    candidates = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]], np.float32)
    scores = np.array([[0.9, 0.1], [0.8, 0.7], [0.4, 0.2]], np.float32)
    found = suppress(candidates, scores, **RULES)
    assert [(round(float(s), 1), int(n)) for s, n in zip(found.scores, found.labels, strict=True)] == [
        (0.9, 0), (0.7, 1), (0.4, 0),
    ]  # fmt: skip
    assert len(suppress(candidates, scores, score=0.3, overlap=0.5, most=1)) == 1
    assert len(suppress(candidates, scores, score=0.3, overlap=0.9, most=10)) == 4
    assert len(suppress(candidates, scores * 0.1, **RULES)) == 0


def one_by_one(boxes: np.ndarray, scores: np.ndarray, score: float, overlap: float, most: int) -> list[tuple[int, int]]:
    """Candidate and class of what stays, as the definition says it: each against all that stayed before it."""
    order = sorted(zip(*np.nonzero(scores >= score), strict=True), key=lambda place: -scores[place])
    kept: list[tuple[int, int]] = []
    for row, label in order:
        same = [r for r, other in kept if other == label]
        if len(kept) < most and not (iou(boxes[row][None], boxes[same]) > overlap).any():
            kept.append((int(row), int(label)))
    return kept


@pytest.mark.parametrize("overlap", [0.2, 0.6])
@pytest.mark.parametrize("most", [3, 1000])
def test_suppression_of_many_is_what_its_definition_says(most: int, overlap: float) -> None:
    rng = np.random.default_rng(most)
    corner, size = 30.0 * rng.random((80, 2)), 12.0 * rng.random((80, 2)) * (rng.random((80, 1)) > 0.1)
    candidates = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    scores = rng.random((80, 3)).astype(np.float32).round(1)  # many are equal
    kept = one_by_one(candidates, scores, 0.3, overlap, most)
    found = suppress(candidates, scores, score=0.3, overlap=overlap, most=most)
    np.testing.assert_array_equal(found.boxes, candidates[[row for row, _ in kept]])
    np.testing.assert_array_equal(found.labels, [label for _, label in kept])


def test_votes_fuse_boxes_and_share_the_score() -> None:
    first = boxes((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 1))
    second = boxes((2, 0, 12, 10, 0.3, 0))
    found = fuse([first, second], **RULES)
    np.testing.assert_allclose(found.boxes, [[0.5, 0, 10.5, 10], [20, 20, 30, 30]], rtol=1e-6)
    np.testing.assert_allclose(found.scores, [0.6, 0.4])  # what one of two votes sees has half its score
    assert found.labels.tolist() == [0, 1]
    assert len(fuse([boxes(), boxes()], **RULES)) == 0
    assert fuse([first], **RULES) is first


def test_a_pixel_is_decided_by_mean_or_by_majority() -> None:
    sure, unsure = np.array([4.0, 0.0]), np.array([0.0, 0.5])
    logits = [vote.reshape(2, 1, 1).astype(np.float32) for vote in (sure, unsure, unsure)]
    assert label_map_of(logits, "mean")[0].item() == 0
    labels, confidence = label_map_of(logits, "majority")
    assert labels.item() == 1
    assert 0.0 < confidence.item() < 0.5


def test_vectors_have_the_length_one() -> None:
    np.testing.assert_allclose(vector_of([np.array([3.0, 0.0]), np.array([0.0, 9.0])]), [0.5**0.5, 0.5**0.5], rtol=1e-6)
    assert vector_of([np.zeros(2, np.float32)]).tolist() == [0.0, 0.0]


def test_agreement_of_boxes() -> None:
    one = boxes((0, 0, 10, 10, 0.9, 0), (20, 20, 30, 30, 0.8, 1))
    assert box_agreement(one, one) == 1.0 == box_agreement(boxes(), boxes())
    other_class = boxes((0, 0, 10, 10, 0.9, 1), (20, 20, 30, 30, 0.8, 1))
    assert box_agreement(one, other_class) == pytest.approx(1.0 / 2.0)  # one pair, one alone on each side
    moved = boxes((0, 0, 10, 8, 0.9, 0), (20, 20, 30, 30, 0.8, 1))
    assert box_agreement(one, moved) == pytest.approx((0.8 + 1.0) / 2.0)
    assert box_agreement(one, boxes((0, 0, 10, 10, 0.9, 0)), sure=0.85) == 1.0
    assert box_agreement(one, boxes()) == 0.0


def test_agreement_of_maps_and_vectors() -> None:
    first, second = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    assert map_agreement(first, second) == pytest.approx((1 / 2 + 2 / 3) / 2)
    embedding = TaskEntry(kind="embedding")
    found = agreements(embedding, {"vector": np.array([[1.0, 0.0]])}, {"vector": np.array([[2.0, 2.0]])})
    assert found[0] == pytest.approx(0.5**0.5)


def test_what_agrees_passes_and_what_does_not_fails() -> None:
    task = TaskEntry(kind="segmentation", classes=("a", "b"))
    logits = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    same = compare_task(task, "p", "d", {"logits": logits}, {"logits": logits + 1e-6}, "fp32")
    assert same and same.check
    other = compare_task(task, "p", "d", {"logits": logits}, {"logits": -logits}, "int8")
    assert not other and not other.check and "mIoU" in str(other)
    tied, nearly = np.zeros((1, 2, 4, 4), np.float32), np.array([0.0, 1e-5], np.float32).reshape(1, 2, 1, 1)
    assert compare_task(task, "p", "d", {"logits": tied}, {"logits": np.add(tied, nearly)}, "fp32")
    nothing = {"boxes": np.zeros((1, 3, 4), np.float32), "scores": np.zeros((1, 3, 2), np.float32)}
    something = {"boxes": np.full((1, 3, 4), [0, 0, 9, 9], np.float32), "scores": np.ones((1, 3, 2), np.float32)}
    assert compare_task(DETECTOR, "p", "d", nothing, nothing, "fp32")
    assert not compare_task(DETECTOR, "p", "d", nothing, something, "int8")


@pytest.mark.parametrize("data", [{"kind": "detection"}, {"kind": "segmentation", "classes": ("a",)},
                                  {"kind": "embedding", "classes": ("a",)}])  # fmt: skip
def test_a_task_has_the_classes_of_its_kind(data: dict[str, object]) -> None:
    with raises_code("E-task-classes"):
        TaskEntry(**data)

"""Recorded trajectories are those that the runtime really takes, and cover every row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgepure.images.dataset import LabelledImages
from edgepure.purify.purifier import Purifier
from edgepure_calibration.quantize.recording import Feeds, follow, masks_of, planned, record


@pytest.mark.parametrize("preset", ["heterogeneous", "uniform-ssni", "gdmp"])
def test_a_followed_trajectory_ends_where_the_purification_ends(
    fp32: Purifier, clean: LabelledImages, preset: str
) -> None:
    images, spec = clean.images[:10], fp32.preset(preset, votes=1)
    ends = np.zeros_like(images)
    rows: set[int] = set()

    def keep(row: int, numbers: Sequence[int], feeds: Feeds, after: np.ndarray) -> None:
        ends[list(numbers)] = after
        rows.add(row)

    masks = masks_of(fp32, spec, images, 9)
    groups = [group for group in planned(fp32, spec, images, seed=9) if not group.probe]
    assert sorted(i for group in groups for i in group.images) == list(range(10))
    for group in groups:
        follow(fp32, group, images, masks, 9, keep)
    expected = np.stack([r.image for r in fp32.run(images, spec, noise=9)])
    np.testing.assert_allclose(np.clip(0.5 * ends + 0.5, 0, 1), expected, atol=2e-5)
    assert rows == set(range(max(len(group.plan.rows) for group in groups)))


def test_the_graph_makes_of_the_recorded_inputs_what_was_recorded(fp32: Purifier, clean: LabelledImages) -> None:
    samples = record(fp32, [fp32.preset("heterogeneous-ssni")], clean.images[:6], 20, seed=2)
    found = fp32.engine("step").run(samples.feeds)["x_next"]
    np.testing.assert_allclose(found, samples.after, atol=2e-5)


def test_every_row_of_every_preset_is_among_few_samples(fp32: Purifier, clean: LabelledImages) -> None:
    presets = [fp32.preset(name) for name in ("heterogeneous", "gnsp", "uniform-ssni")]
    samples = record(fp32, presets, clean.images[:6], 12, seed=2)
    seen = {tuple(row) for row in samples.feeds["coeffs"]}
    plans = [fp32.plan(preset) for preset in presets[:2]]
    probe = fp32.planner.probe(presets[2])
    assert probe is not None
    for plan in (*plans, probe):
        for row in plan.coeffs:
            assert tuple(row) in seen, f"a row at t = {row[0]} was never recorded"
    assert samples.rows >= sum(len(plan.rows) for plan in plans) + len(probe.rows)
    few = samples.some(5)
    assert len(few) == 5 and len(np.unique(few.feeds["coeffs"][:, 0])) == 5

"""Rows on a frame by tiles: the whole frame's result where the network allows it, the same however tiles are batched,
and memory that does not grow with their number."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from codes import raises_code
from numpy_stepper import NumpyStepper
from tiny_bundle import blur

from edgepure.images.tiles import Tiling
from edgepure.methods import GdmpSpec, GnspSpec, HeterogeneousSpec, MethodSpec, RepaintSpec, UniformSpec
from edgepure.purify.inflight import InFlight, Job
from edgepure.purify.tiled import run_stages, tiled_rows
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule
from edgepure.types import Float32

SCHEDULE = NoiseSchedule.linear()
FRAME, TILE = (2, 37, 45), (16, 20)
METHODS: list[MethodSpec] = [
    UniformSpec(t_star=60, steps=3),
    UniformSpec(t_star=60, sampler="sde", sde_step=0.02),
    HeterogeneousSpec(t_l=80, t_s=40, stage1_steps=2, stage2_steps=2),
    HeterogeneousSpec(t_l=80, t_s=40, stage1_steps=2, stage2_steps=2, variant="official"),
    RepaintSpec(respacing="25", t_T=4, jump_length=2, jump_n_sample=2),
    GdmpSpec(purify_steps=3, rounds=2, respacing="25", guide_scale=10.0),
    GnspSpec(max_timesteps=(30, 60), num_denoising_steps=(2, 3)),
]


def convolution(z: Float32, t: Float32) -> Float32:
    """A convolutional epsilon network: two 3 x 3 blurs around a nonlinearity, so it sees 2 pixels far."""
    return np.asarray((0.2 + 0.001 * t[:, None, None, None]) * blur(np.tanh(blur(z))), np.float32)


def pointwise(z: Float32, t: Float32) -> Float32:
    return np.asarray(np.tanh(z) * (0.2 + 0.001 * t[:, None, None, None]), np.float32)


def looks_around(z: Float32, t: Float32) -> Float32:
    """Sees its whole tile: what tiles say of a pixel differs."""
    return np.asarray(0.3 * z + 0.2 * z.mean(axis=(2, 3), keepdims=True), np.float32)


def frame(shape: tuple[int, int, int] = FRAME) -> Float32:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def a_mask() -> Float32:
    mask = np.zeros((1, *FRAME[1:]), np.float32)
    mask[:, 5:30, 10:33] = 1.0
    return mask


def compiled(spec: MethodSpec) -> Plan:
    return spec.compile(SCHEDULE, 2 * TILE[0] * TILE[1])


def whole(epsilon: Any, plan: Plan) -> Float32:
    """The frame as one image of a network of its size."""
    found: list[Float32] = []
    noise = SeededNoise(3).for_image(plan, 0, 0, None, FRAME)
    job = Job(plan, noise, frame(), a_mask())
    InFlight(NumpyStepper(epsilon, FRAME)).run([job], lambda job, x: found.append(x))
    return found[0]


def tiled(epsilon: Any, plan: Plan, *, overlap: float = 0.6, slots: int = 3, tiles: Any = None) -> Float32:
    noise = SeededNoise(3).for_image(plan, 0, 0, None, FRAME)
    stepper = NumpyStepper(epsilon, (2, *TILE), slots)
    rows = tiled_rows(plan, noise, frame(), a_mask(), Tiling(FRAME[1:], TILE, overlap), tiles)
    return run_stages(rows, stepper)[0]


@pytest.mark.parametrize("spec", METHODS, ids=lambda s: f"{s.method}-{getattr(s, 'variant', '')}")
@pytest.mark.parametrize(("epsilon", "overlap"), [(convolution, 0.6), (pointwise, 0.0)])
def test_tiles_of_a_network_that_sees_a_quarter_of_the_overlap_are_the_whole_frame(
    spec: MethodSpec, epsilon: Any, overlap: float
) -> None:
    plan = compiled(spec)
    assert np.abs(tiled(epsilon, plan, overlap=overlap) - whole(epsilon, plan)).max() < 2e-5


def test_a_network_that_sees_further_than_the_overlap_is_not() -> None:
    plan = compiled(METHODS[0])
    assert np.abs(tiled(convolution, plan, overlap=0.0) - whole(convolution, plan)).max() > 1e-4


@pytest.mark.parametrize("spec", METHODS[:3], ids=lambda s: s.method)
def test_results_do_not_depend_on_the_batch_nor_on_the_order(spec: MethodSpec) -> None:
    plan = compiled(spec)
    first = tiled(looks_around, plan, slots=1)
    for slots in (3, 8, 64):
        assert np.array_equal(tiled(looks_around, plan, slots=slots), first)
    assert np.array_equal(_in_another_order(plan), first)


def _in_another_order(plan: Plan) -> Float32:
    """The tiles of every row are computed in a shuffled order, which differs from row to row."""
    rng = np.random.default_rng(9)

    class Shuffled(InFlight):
        def run(self, jobs: Any, done: Callable[..., Any], *args: Any, **rest: Any) -> None:
            row: list[Job] = list(jobs)
            for i in rng.permutation(len(row)):
                super().run([row[i]], done)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgepure.purify.tiled.InFlight", Shuffled)
        return tiled(looks_around, plan)


def test_a_part_of_the_tiles_is_blended_over_what_it_covers() -> None:
    """All tiles as a part are the frame; one tile alone is that tile as an image."""
    plan = compiled(METHODS[0])
    tiling = Tiling(FRAME[1:], TILE, 0.6)
    all_of_them = tiled(looks_around, plan, tiles=tuple(range(len(tiling))))
    np.testing.assert_allclose(all_of_them, tiled(looks_around, plan), atol=1e-4)
    alone = tiled(pointwise, plan, tiles=(4,))
    np.testing.assert_allclose(tiling.cut(alone, 4), tiling.cut(whole(pointwise, plan), 4), atol=1e-6)
    assert np.count_nonzero(alone) == 2 * TILE[0] * TILE[1]


def test_memory_does_not_grow_with_the_number_of_tiles() -> None:
    """The same frame in 30 and in 1000 tiles: only its own arrays, and those of the slots."""
    shape = (3, 160, 192)
    plan = compiled(UniformSpec(t_star=60, steps=2))
    ref = frame(shape)

    def peak(tile: tuple[int, int], overlap: float, least: int, most: int) -> int:
        tiling = Tiling(shape[1:], tile, overlap)
        assert least <= len(tiling) <= most
        noise = SeededNoise(3).for_image(plan, 0, 0, None, shape)
        stepper = NumpyStepper(pointwise, (3, *tile), 4)
        tracemalloc.start()
        run_stages(tiled_rows(plan, noise, ref, None, tiling), stepper)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few, many = peak((32, 32), 0.0, 30, 30), peak((32, 32), 0.75, 300, 500)
    most = peak((16, 16), 0.75, 1000, 2500)
    assert few < 2 * ref.nbytes + 8 * 32 * 32 * 3 * 4 * 20
    assert many < few + (64 << 10)  # windows and starts of the tiles, no pixels
    assert most < few + (64 << 10)


def test_not_finite_values_are_an_error() -> None:
    with raises_code("E-not-finite-network"):
        tiled(lambda z, t: z * np.float32(np.nan), compiled(METHODS[0]))

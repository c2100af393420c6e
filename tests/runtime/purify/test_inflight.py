"""The in-flight scheduler: slots, follow-up jobs, faults, counters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from analytic import SHAPE, execute, images, in_float32, masks, network, network_learned
from codes import raises_code
from numpy_stepper import NumpyStepper

from edgepure.methods import EpsSpec, HeterogeneousSpec, UniformSpec
from edgepure.purify.inflight import InFlight, Job
from edgepure.rows.noise import SeededNoise
from edgepure.rows.plan import Plan
from edgepure.rows.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()
C, H, W = SHAPE


def uniform(steps: int, **spec: Any) -> Plan:
    return UniformSpec(t_star=100, steps=steps, sampler="ddim", **spec).compile(SCHEDULE, math.prod(SHAPE))


def job(plan: Plan, image: int = 0, seed: int = 0, **extra: Any) -> Job:
    noise = SeededNoise(seed).for_image(plan, image, 0, extra.get("mask"), SHAPE)
    return Job(plan, noise, images(image, 1)[0], tag=image, **extra)


def stepper(capacity: int = 3, epsilon: Any = network) -> NumpyStepper:
    return NumpyStepper(in_float32(epsilon), (C, H, W), capacity)


def collect(results: dict[Any, Any]) -> Any:
    def done(finished: Job, x: Any) -> None:
        assert finished.tag not in results, "every job finishes once"
        results[finished.tag] = x

    return done


@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 50])
def test_plans_of_different_length_share_calls(capacity: int) -> None:
    lengths = [5, 1, 9, 2, 2, 7, 1, 3, 8, 1]
    jobs = [job(uniform(n), i) for i, n in enumerate(lengths)]
    inflight, results = InFlight(stepper(capacity)), {}
    per_tick: list[int] = []
    inflight.run(jobs, collect(results), per_tick.append)
    for i, n in enumerate(lengths):
        alone = execute(uniform(n), images(i, 1), _Shifted(i), capacity=1)[0]
        assert np.array_equal(results[i], alone)
    assert inflight.counters.rows == sum(lengths) == sum(per_tick)
    assert inflight.counters.ticks == len(per_tick)
    assert inflight.counters.jobs == len(lengths)
    assert max(per_tick) <= capacity
    # nobody waits: only the tail, when no job is left to enter, runs below capacity
    busy = [n == min(capacity, len(lengths)) for n in per_tick]
    assert busy == sorted(busy, reverse=True)


class _Shifted(SeededNoise):
    """Image 0 of a batch of one gets the noise of another image id."""

    def __init__(self, image: int) -> None:
        super().__init__(0)
        self._image = image

    def for_image(self, plan: Plan, image: int, vote: int, mask: Any, shape: Any, *, probe: bool = False) -> Any:
        return super().for_image(plan, self._image, vote, mask, shape, probe=probe)


def test_ticks_of_equal_plans() -> None:
    inflight = InFlight(stepper(4))
    inflight.run([job(uniform(6), i) for i in range(8)], lambda j, x: None)
    assert (inflight.counters.ticks, inflight.counters.rows, inflight.counters.jobs) == (12, 48, 8)
    inflight.run([job(uniform(2))], lambda j, x: None)
    assert inflight.counters.jobs == 9, "counters add up over runs"


def test_no_jobs_at_all() -> None:
    inflight = InFlight(stepper())
    inflight.run([], lambda j, x: pytest.fail("there was nothing to finish"))
    assert inflight.counters.ticks == 0


def test_an_empty_plan_gives_the_image_back() -> None:
    empty = Plan("untouched", ())
    results: dict[Any, Any] = {}
    jobs = [job(empty, 0), job(uniform(3), 1), job(empty, 2)]
    InFlight(stepper(1)).run(jobs, collect(results))
    assert np.array_equal(results[0], images(0, 1)[0])
    assert np.array_equal(results[2], images(2, 1)[0])
    results[0][:] = 9.0
    assert not np.array_equal(images(0, 1)[0], results[0])
    assert jobs[0].ref.max() <= 1.0, "the result is a copy"


def test_an_empty_plan_of_zeros_and_its_follow_up() -> None:
    results: dict[Any, Any] = {}

    def done(finished: Job, x: Any) -> Any:
        results[finished.tag] = x
        return [job(uniform(2), 5)] if finished.tag == 0 else None

    InFlight(stepper(1)).run([job(Plan("probe", (), start="zeros"), 0)], done)
    assert np.all(results[0] == 0.0)
    assert sorted(results) == [0, 5]


def test_follow_ups_go_before_waiting_jobs() -> None:
    """A probe's purification starts before the next image is admitted, so few images are half done at a time."""
    probe = EpsSpec(probes=2).compile(SCHEDULE, 24)
    order: list[Any] = []
    taken: list[int] = []

    def waiting() -> Iterator[Job]:
        for image in range(6):
            taken.append(image)
            yield Job(probe, SeededNoise(0).for_image(probe, image, 0, None, SHAPE, probe=True), images(image, 1)[0],
                      tag=("probe", image))  # fmt: skip

    def done(finished: Job, x: Any) -> Iterator[Job] | None:
        kind, image = finished.tag
        order.append(finished.tag)
        if kind == "purify":
            return None
        assert x.any()
        norm = float(np.linalg.norm(x))
        plan = uniform(1 + int(norm) % 4)
        return (Job(plan, SeededNoise(0).for_image(plan, image, v, None, SHAPE), finished.ref,
                    tag=("purify", 10 * image + v)) for v in range(2))  # fmt: skip

    inflight = InFlight(stepper(2))
    inflight.run(waiting(), done)
    assert sorted(t for k, t in order if k == "purify") == [10 * i + v for i in range(6) for v in range(2)]
    assert inflight.counters.jobs == 18
    # images 0 and 1 are finished before image 4 has been probed
    first_of = {tag: position for position, tag in enumerate(order)}
    assert first_of["purify", 1] < first_of["probe", 4]


def test_jobs_are_taken_only_when_a_slot_is_free() -> None:
    taken: list[int] = []

    def source() -> Iterator[Job]:
        for image in range(10):
            taken.append(image)
            yield job(uniform(3), image)

    def on_tick(rows: int) -> None:
        seen.append(len(taken))

    seen: list[int] = []
    InFlight(stepper(2)).run(source(), lambda j, x: None, on_tick)
    assert seen[:3] == [2, 2, 2], "a generator of images is not read ahead"


def test_masks_and_no_mask_share_a_batch() -> None:
    plan = HeterogeneousSpec(t_l=100, t_s=50, stage1_steps=2, stage2_steps=2).compile(SCHEDULE, 24)
    mask = masks(3, 1)[0]
    results: dict[Any, Any] = {}
    jobs = [job(plan, 0, mask=mask), job(plan, 1), job(uniform(3), 2), job(plan, 3, mask=np.zeros_like(mask))]
    InFlight(stepper(2)).run(jobs, collect(results))
    for i, own in enumerate([mask, np.ones_like(mask), None, np.zeros_like(mask)]):
        alone = execute(jobs[i].plan, images(i, 1), _Shifted(i), None if own is None else own[None], capacity=1)[0]
        assert np.array_equal(results[i], alone)


def test_a_slot_does_not_remember_its_last_image() -> None:
    """The learned columns, the output noise and the mask of a finished image leave nothing behind."""
    learned = UniformSpec(t_star=4, variance="learned").compile(SCHEDULE, 24)
    results: dict[Any, Any] = {}
    jobs = [job(learned, 0, mask=masks(0, 1)[0]), job(uniform(4), 1), job(learned, 2)]
    InFlight(stepper(1, network_learned)).run(jobs, collect(results))
    alone = execute(uniform(4), images(1, 1), _Shifted(1), capacity=1, epsilon=in_float32(network_learned))[0]
    assert np.array_equal(results[1], alone)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_results_are_an_error(bad: float) -> None:
    def broken(x: Any, t: Any) -> Any:
        return np.where(t[:, None, None, None] < 50, bad, 0.0 * x).astype(np.float32)

    with np.errstate(all="ignore"), raises_code("E-not-finite-network"):
        InFlight(stepper(2, broken)).run([job(uniform(4, clip=False))], lambda j, x: None)


def test_learned_variance_needs_the_learned_step_graph() -> None:
    plan = UniformSpec(t_star=2, variance="learned").compile(SCHEDULE, 24)
    plain = stepper()
    plain.noise_out = None
    with raises_code("E-learned-variance-graph"):
        InFlight(plain).run([job(plan)], lambda j, x: None)


def test_learned_plan_on_a_network_without_variance_channels() -> None:
    """The NumPy stepper has room for the second noise whatever the network: the network's output must be looked at."""
    plan = UniformSpec(t_star=2, variance="learned").compile(SCHEDULE, 24)
    with raises_code("E-learned-variance-network"):
        InFlight(stepper()).run([job(plan)], lambda j, x: None)


def test_closing_noise_is_added_after_the_last_row() -> None:
    sde = UniformSpec(t_star=3, sampler="sde").compile(SCHEDULE, 24)
    assert sde.closing_std > 0.0
    noisy, quiet = (
        execute(plan, images(0, 1), SeededNoise(1), capacity=1)[0] for plan in (sde, Plan(sde.method, sde.rows))
    )
    closing = SeededNoise(1).for_image(sde, 0, 0, None, SHAPE).closing()
    np.testing.assert_allclose(noisy - quiet, sde.closing_std * closing, atol=1e-6)


def test_time_of_a_job_is_filled_in() -> None:
    one = job(uniform(3))
    InFlight(stepper()).run([one], lambda j, x: None)
    assert one.seconds > 0.0


def test_an_error_in_the_callback_reaches_the_caller() -> None:
    def done(finished: Job, x: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        InFlight(stepper()).run([job(uniform(1))], done)


def test_jobs_that_come_later_enter_while_others_are_in_their_slots() -> None:
    """None: there is no job at the moment."""
    source = [job(uniform(4), 0), None, job(uniform(2), 1), None, None, None, job(uniform(1), 2)]
    inflight, results, per_tick = InFlight(stepper(3)), {}, []
    inflight.run(source, collect(results), per_tick.append)
    assert per_tick == [1, 2, 2, 1, 1]
    for i, n in enumerate((4, 2, 1)):
        assert np.array_equal(results[i], execute(uniform(n), images(i, 1), _Shifted(i), capacity=1)[0])


def test_a_job_that_is_not_finite_may_fail_alone() -> None:
    def epsilon(z: Any, t: Any) -> Any:
        return np.where(z[:, :1, :1, :1] > 100.0, np.nan, network(z, t))

    jobs = [job(uniform(3 + i % 2), i) for i in range(7)]
    for i in (2, 5):
        jobs[i].ref = jobs[i].ref + np.float32(1e4)
    inflight, results, failed = InFlight(stepper(3, epsilon)), {}, {}
    inflight.run(jobs, collect(results), failed=lambda one, error: failed.update({one.tag: str(error)}))
    assert sorted(failed) == [2, 5] and sorted(results) == [0, 1, 3, 4, 6]
    assert all("gave NaN or infinite values" in text for text in failed.values())
    for i, x in results.items():
        assert np.array_equal(x, execute(uniform(3 + i % 2), images(i, 1), _Shifted(i), capacity=1)[0])

"""The counter-based noise stream, secret keys, and the composition of recorded noises."""

from __future__ import annotations

import copy
import math
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from analytic import SHAPE, NoiseBook
from codes import raises_code
from hypothesis import given
from hypothesis import strategies as st

from edgepure.methods import HeterogeneousSpec, UniformSpec
from edgepure.rows import noise as noise_module
from edgepure.rows.noise import SecretNoise, SeededNoise, noise_source
from edgepure.rows.philox import Stream, normals, philox4x32
from edgepure.rows.plan import Plan
from edgepure.rows.replay import Replay
from edgepure.rows.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.linear()


def plan_of(**spec: Any) -> Plan:
    return UniformSpec(**spec).compile(SCHEDULE, math.prod(SHAPE))


# ---- the generator ----------------------------------------------------------------------------------------------

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "want"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_known_answers(counter: Any, key: Any, want: Any) -> None:
    """The vectors that come with Random123 (Salmon et al. 2011)."""
    words = philox4x32(np.array(counter, np.uint64)[:, None], key)
    assert tuple(int(w[0]) for w in words) == want


def test_the_stream_is_what_its_text_says() -> None:
    """Key, counter, Box-Muller and element order, computed one element at a time in plain Python."""
    seed, image, vote, row = 0x0123456789ABCDEF, 7, 3, 11
    got = normals(seed, image, Stream.OUT, vote, [row], 10)[0]
    for element in range(10):
        counter = (element // 4, row, image, (1 << 24) | vote)
        words = philox4x32(np.array(counter, np.uint64)[:, None], (seed & 0xFFFFFFFF, seed >> 32))
        u = [(int(w[0]) + 0.5) / 2**32 for w in words]
        pair = 0 if element % 4 < 2 else 2
        radius, angle = math.sqrt(-2.0 * math.log(u[pair])), 2.0 * math.pi * u[pair + 1]
        want = radius * (math.cos(angle) if element % 2 == 0 else math.sin(angle))
        assert got[element] == pytest.approx(want, abs=1e-6)


def test_extreme_uniforms_stay_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in (0, 0xFFFFFFFF):
        monkeypatch.setattr(
            "edgepure.rows.philox.philox4x32", lambda counter, key, word=word: np.full_like(counter, word)
        )
        assert np.isfinite(normals(1, 0, Stream.ROW, 0, [0], 8)).all()


# ---- distribution -----------------------------------------------------------------------------------------------


def test_values_are_standard_normal() -> None:
    count = 2**18
    x = normals(12345, 0, Stream.ROW, 0, range(16), count // 16).astype(np.float64).ravel()
    z = 5.0  # standard errors
    assert abs(x.mean()) < z / math.sqrt(count)
    assert abs((x**2).mean() - 1.0) < z * math.sqrt(2.0 / count)
    assert abs((x**3).mean()) < z * math.sqrt(15.0 / count)
    assert abs((x**4).mean() - 3.0) < z * math.sqrt(96.0 / count)


def test_kolmogorov_smirnov() -> None:
    x = np.sort(normals(2024, 3, Stream.ROW, 1, range(8), 8192).ravel())
    n = len(x)
    cdf = np.array([0.5 * math.erfc(-value / math.sqrt(2.0)) for value in x.tolist()])
    distance = max(np.abs(cdf - np.arange(n) / n).max(), np.abs(cdf - np.arange(1, n + 1) / n).max())
    assert distance * math.sqrt(n) < 1.95  # p = 0.001


@pytest.mark.parametrize("lag", [1, 2, 3, 4, 5, 8])
def test_neighbouring_elements_are_uncorrelated(lag: int) -> None:
    """Box-Muller makes pairs from the same words: neighbours must still be independent."""
    x = normals(99, 0, Stream.ROW, 0, [0], 2**17)[0].astype(np.float64)
    n = len(x) - lag
    assert abs((x[:-lag] * x[lag:]).mean()) < 5.0 / math.sqrt(n)
    assert abs((x[:-lag] ** 2 * x[lag:] ** 2).mean() - 1.0) < 5.0 * math.sqrt(8.0 / n)


def test_rows_images_votes_streams_and_seeds_are_independent() -> None:
    n = 2**14
    streams = [
        normals(seed, image, stream, vote, [row], n)[0]
        for seed in (1, 2, 1 + 2**32)
        for image in (0, 1)
        for stream in Stream
        for vote in (0, 1)
        for row in (0, 1)
    ]
    correlation = np.corrcoef(np.stack(streams).astype(np.float64))
    off = correlation[~np.eye(len(streams), dtype=bool)]
    assert np.abs(off).max() < 6.0 / math.sqrt(n)


# ---- what a value may depend on ---------------------------------------------------------------------------------


@given(
    rows=st.sets(st.integers(0, 5000), min_size=1, max_size=6), elements=st.integers(1, 40),
    seed=st.integers(0, 2**64 - 1),
)  # fmt: skip
def test_a_value_does_not_depend_on_the_other_rows(rows: set[int], elements: int, seed: int) -> None:
    chosen = sorted(rows)
    together = normals(seed, 5, Stream.ROW, 2, chosen, elements)
    for position, row in enumerate(chosen):
        assert np.array_equal(together[position], normals(seed, 5, Stream.ROW, 2, [row], elements)[0])


@given(elements=st.integers(1, 40))
def test_a_value_does_not_depend_on_the_number_of_elements(elements: int) -> None:
    large = normals(3, 0, Stream.ROW, 0, [4], 64)[0]
    assert np.array_equal(normals(3, 0, Stream.ROW, 0, [4], elements)[0], large[:elements])


@pytest.mark.parametrize("block_bytes", [1, 4 * math.prod(SHAPE) * 3, 1 << 23])
def test_block_size_changes_nothing(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    plan = plan_of(t_star=20)
    want = [SeededNoise(5).for_image(plan, 1, 0, None, SHAPE).row(i) for i in range(len(plan.rows))]
    monkeypatch.setattr(noise_module, "BLOCK_BYTES", block_bytes)
    source = SeededNoise(5).for_image(plan, 1, 0, None, SHAPE)
    for i in [*range(len(plan.rows)), 3, 0, 19, 7]:  # backwards too
        assert np.array_equal(source.row(i), want[i])


@pytest.mark.parametrize("block_bytes", [1, 4 * math.prod(SHAPE) * 3, 4 * math.prod(SHAPE) * 50, 1 << 23])
def test_noises_that_are_made_together_are_each_their_own(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    plans = [plan_of(t_star=20), plan_of(t_star=7), HeterogeneousSpec().compile(SCHEDULE, math.prod(SHAPE))]
    cases = [
        (seed, plan, image, probe) for seed in (5, 2**200 + 1) for plan in plans for image, probe in ((1, 0), (9, 1))
    ]

    def sources() -> list[Any]:
        return [SeededNoise(s).for_image(plan, i, 3, None, SHAPE, probe=bool(probe)) for s, plan, i, probe in cases]

    rows = [plan.noisy_rows[len(plan.noisy_rows) // 2] for _, plan, _, _ in cases]
    want = [source.row(row) for source, row in zip(sources(), rows, strict=True)]
    monkeypatch.setattr(noise_module, "BLOCK_BYTES", block_bytes)
    found = sources()
    replay: Any = object()  # whatever else is a source is left alone
    noise_module.make_together([(replay, 0), *zip(found, rows, strict=True)])
    if block_bytes == 1 << 23:
        monkeypatch.setattr(noise_module, "normals_of", lambda *_: pytest.fail("they were not made together"))
    for source, row, expected in zip(found, rows, want, strict=True):
        assert np.array_equal(source.row(row), expected)


def test_rows_without_draws_get_zeros_and_the_others_their_own_row_number() -> None:
    plan = HeterogeneousSpec(t_l=40, t_s=20, stage1_steps=2, stage2_steps=4).compile(SCHEDULE, 24)
    quiet = [i for i, row in enumerate(plan.rows) if not row.draws]
    assert quiet and len(quiet) < len(plan.rows)
    source = SeededNoise(8).for_image(plan, 0, 0, None, SHAPE)
    for i in range(len(plan.rows)):
        want = normals(8, 0, Stream.ROW, 0, [i], math.prod(SHAPE))[0].reshape(SHAPE)
        assert np.array_equal(source.row(i), np.zeros(SHAPE) if i in quiet else want)


def test_a_longer_plan_shares_the_rows_of_a_shorter_one() -> None:
    """Noise is keyed by the row, not by how many rows there are."""
    short, long = plan_of(t_star=5), plan_of(t_star=9)
    a, b = (SeededNoise(1).for_image(p, 0, 0, None, SHAPE) for p in (short, long))
    assert np.array_equal(a.row(4), b.row(4))


def test_probe_closing_and_output_noise_have_streams_of_their_own() -> None:
    plan = plan_of(t_star=4, variance="learned")
    source = SeededNoise(1)
    rows = source.for_image(plan, 0, 0, None, SHAPE)
    probe = source.for_image(plan, 0, 0, None, SHAPE, probe=True)
    arrays = [rows.row(0), rows.out(0), rows.closing(), probe.row(0)]
    for i, a in enumerate(arrays):
        assert a.shape == SHAPE
        assert a.dtype == np.float32
        assert all(not np.array_equal(a, b) for b in arrays[:i])


# ---- secrecy ----------------------------------------------------------------------------------------------------


def test_secret_noise_differs_between_requests() -> None:
    plan = plan_of(t_star=2)
    sources = [noise_source(None) for _ in range(8)]
    assert all(source.seed is not None and source.seed >= 2**64 for source in sources)
    firsts = {source.for_image(plan, 0, 0, None, SHAPE).row(0).tobytes() for source in sources}
    assert len(firsts) == 8
    assert len({source.seed for source in sources}) == 8


def test_secret_noise_takes_256_bits_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def randbits(bits: int) -> int:
        asked.append(bits)
        return 2**256 - 1

    monkeypatch.setattr(noise_module.secrets, "randbits", randbits)
    assert SecretNoise().seed == 2**256 - 1
    assert asked == [256]


def test_a_key_serves_one_request() -> None:
    source = SecretNoise()
    kept = [noise_source(source).seed for _ in range(4)]
    assert len(set(kept)) == 4
    assert source.seed == kept[-1], "for an audit of the last one"


def test_threads_do_not_share_a_key() -> None:
    source = SecretNoise()
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: noise_source(source).seed, range(64)))) == 64


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda source: pickle.loads(pickle.dumps(source))])
def test_a_copy_has_a_key_of_its_own(twin: Callable[[SecretNoise], SecretNoise]) -> None:
    source = SecretNoise()
    assert twin(source).seed != source.seed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_key_does_not_survive_a_fork() -> None:
    source, kept = SecretNoise(), []
    for _ in range(3):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, source.seed.to_bytes(32, "little"))
            os._exit(0)
        os.waitpid(child, 0)
        kept.append(int.from_bytes(os.read(reading, 32), "little"))
        os.close(reading)
        os.close(writing)
    assert len({source.seed, *kept}) == 4


def test_a_long_key_says_nothing_of_another_purification() -> None:
    """Each purification has words of its own, so that a key that is found for one is of no use for the next."""
    source, plan = SecretNoise(), plan_of(t_star=4, steps=2)
    counters = [source.for_image(plan, i, v, None, SHAPE).counter(1) for i in range(4) for v in range(4)]
    assert len({counter[:2] for counter in counters}) == len({counter[3] for counter in counters}) == 16
    assert all(counter[2] & 0x1FFFF == 1 and counter[4] >> 24 == Stream.ROW for counter in counters)
    assert len({counter[2] for counter in counters}) > 8


def test_a_long_key_gives_ordinary_noise_and_repeats() -> None:
    plan = plan_of(t_star=4, steps=2)
    first, second = (SeededNoise(2**255 + 1).for_image(plan, 3, 1, None, (1, 64, 64)).row(0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert abs(first.mean()) < 0.1 and abs(first.std() - 1.0) < 0.05


def test_the_shortest_seeds_are_those_of_the_format() -> None:
    plan = plan_of(t_star=4, steps=2)
    found = SeededNoise(2**64 - 1).for_image(plan, 3, 1, None, SHAPE).row(0)
    elements = int(np.prod(SHAPE))
    np.testing.assert_array_equal(found.ravel(), normals(2**64 - 1, 3, Stream.ROW, 1, (0,), elements)[0])


def test_secret_noise_ignores_numpy_seeds() -> None:
    np.random.seed(0)
    first = SecretNoise().seed
    np.random.seed(0)
    assert SecretNoise().seed != first


@pytest.mark.parametrize("seed", [True, False, "7", 1.0, [1], object(), np.bool_(True)])
def test_what_is_no_seed(seed: Any) -> None:
    for take, code in ((SeededNoise, "E-noise-seed"), (noise_source, "E-noise-type")):
        with raises_code(code):
            take(seed)


@pytest.mark.parametrize("seed", [-1, 2**256])
def test_seeds_have_256_bits(seed: int) -> None:
    for take in (SeededNoise, noise_source):
        with raises_code("E-noise-seed-range"):
            take(seed)


def test_noise_source_accepts_a_seed_or_a_source() -> None:
    assert noise_source(7).seed == 7
    assert noise_source(0).seed == 0
    assert noise_source(np.int64(5)).seed == 5  # type: ignore[arg-type]
    replay = Replay(lambda draw, image: np.zeros(SHAPE, np.float32))
    assert noise_source(replay) is replay
    assert replay.seed is None


# ---- replay -----------------------------------------------------------------------------------------------------


def test_replay_composes_the_draws_of_a_row() -> None:
    plan = HeterogeneousSpec(t_l=100, t_s=50, stage1_steps=2, stage2_steps=2, U=3, eta=1.0).compile(SCHEDULE, 24)
    book = NoiseBook(0)
    mask = np.zeros((1, *SHAPE[1:]), np.float32)
    mask[0, :, :2] = 1.0
    source = Replay(book.recording).for_image(plan, 1, 0, mask, SHAPE)
    assert any(len(row.draws) > 2 for row in plan.rows), "a jump and a carried noise beside the known region's"
    for i, row in enumerate(plan.rows):
        composed = source.row(i)
        for inside in (True, False):
            std = row.std(1.0 if inside else 0.0)
            want = sum(
                (d.c_in if inside else d.c_out) * book.get(d.source, d.index)[1].astype(np.float64) for d in row.draws
            )
            region = np.broadcast_to((mask > 0) == inside, SHAPE)
            if std > 0.0:
                np.testing.assert_allclose((std * composed)[region], want[region], atol=1e-6)
            else:
                assert np.all(composed[region] == 0.0)


def test_replay_needs_a_binary_mask() -> None:
    plan = plan_of(t_star=2)
    with raises_code("E-replay-mask"):
        Replay(NoiseBook(0).recording).for_image(plan, 0, 0, np.full((1, *SHAPE[1:]), 0.5, np.float32), SHAPE)


def test_replay_of_closing_and_output_noise() -> None:
    sde = plan_of(t_star=2, sampler="sde")
    book = NoiseBook(4)
    source = Replay(book.recording).for_image(sde, 0, 0, None, SHAPE)
    np.testing.assert_allclose(source.closing(), book.get("step", len(sde.rows) - 1)[0], rtol=1e-6)
    learned = plan_of(t_star=3, variance="learned")
    source = Replay(book.recording).for_image(learned, 0, 0, None, SHAPE)
    assert np.array_equal(source.out(0), book.get("step", 0)[0])
    assert np.all(source.out(len(learned.rows) - 1) == 0.0)
    assert np.all(source.closing() == 0.0)

"""Paired comparisons: counts, exact p-values, Holm's correction, tables; only of images that both have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from codes import raises_code
from scipy.stats import binom

from edgepure_calibration.evaluate.compare import compare, to_csv, to_latex, to_svg
from edgepure_calibration.evaluate.outcomes import Outcomes, read_outcomes, write_outcomes


def outcomes(right: dict[tuple[str, str, str], list[int]], images: int = 20, first: int = 0) -> Outcomes:
    """Images of ``first`` on; those in a list are decided right."""
    return Outcomes(
        bundle="b",
        engine="cpu, fp32",
        images=tuple(f"{first + i:032x}" for i in range(images)),
        labels=np.zeros(images, np.int64),
        right={line: np.isin(np.arange(images), hits) for line, hits in right.items()},
        protocols=dict.fromkeys(right, "in words"),
        attacked={},
    )


LINE = ("uniform", "pgd", "majority of 5")


def test_a_pair_is_counted_and_tested_exactly() -> None:
    one, other = outcomes({LINE: list(range(15))}), outcomes({LINE: [*range(7), 15]})
    (found,) = compare(one, other)
    assert (found.images, found.right_first, found.right_second) == (20, 15, 8)
    assert (found.only_first, found.only_second) == (8, 1)
    assert found.difference == pytest.approx(7 / 20)
    assert found.p == pytest.approx(2 * binom.cdf(1, 9, 0.5)) == found.adjusted
    assert found.low < found.difference < found.high
    (back,) = compare(other, one)
    assert (back.difference, back.p, back.low) == pytest.approx((-found.difference, found.p, -found.high))
    (same,) = compare(one, one)
    assert (same.difference, same.p) == (0.0, 1.0) and same.low < 0.0 < same.high


def test_images_are_paired_by_what_they_are_and_not_by_their_place() -> None:
    one, other = outcomes({LINE: [10, 11]}), outcomes({LINE: [0, 1]}, first=10)
    (found,) = compare(one, other)
    assert (found.images, found.only_first, found.only_second) == (10, 0, 0)
    with raises_code("E-compare-images"):
        compare(one, outcomes({LINE: []}, first=20))


def test_holm_is_monotone_and_at_most_the_number_of_rows() -> None:
    lines = {(("uniform"), f"attack {n}", "single purification"): list(range(20)) for n in range(4)}
    weak = {line: list(range(4 * n)) for n, line in enumerate(lines)}
    found = compare(outcomes(lines), outcomes(weak))
    order = sorted(found, key=lambda c: c.p)
    assert order[0].adjusted == pytest.approx(4 * order[0].p)
    adjusted = [c.adjusted for c in order]
    assert adjusted == sorted(adjusted) and all(c.p <= c.adjusted <= 1.0 for c in found)


def test_presets_by_name() -> None:
    both = outcomes({LINE: [0, 1], ("gdmp", "pgd", "majority of 5"): [1, 2]})
    (found,) = compare(both, both, [("uniform", "gdmp")])
    assert (found.first, found.second, found.only_first, found.only_second) == ("uniform", "gdmp", 1, 1)
    assert len(compare(both, both)) == 2
    with raises_code("E-compare-preset"):
        compare(both, both, [("uniform", "other")])
    with raises_code("E-compare-nothing"):
        compare(both, both, rules=["single purification"])


def test_files_hold_what_was_written_and_nothing_else_is_read(tmp_path: Path) -> None:
    made = replace(outcomes({LINE: [3]}), attacked={("uniform", "pgd"): np.ones((20, 1, 2, 2), np.float32)})
    write_outcomes(tmp_path / "o.npz", made)
    read = read_outcomes(tmp_path / "o.npz")
    assert read.images == made.images and read.protocols == made.protocols
    np.testing.assert_array_equal(read.right[LINE], made.right[LINE])
    np.testing.assert_array_equal(read.attacked["uniform", "pgd"], made.attacked["uniform", "pgd"])
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    (tmp_path / "bundle").mkdir()
    for name in ("other.npz", "nothing.npz", "bundle"):
        with raises_code("E-outcomes"):
            read_outcomes(tmp_path / name)


def test_tables_for_papers() -> None:
    line = ("uniform", "pgd_50 & more", "majority of 5")
    found = compare(outcomes({line: list(range(15))}), outcomes({line: [0]}))
    assert to_csv(found).splitlines()[0].startswith("first,second,attack,rule,images")
    assert len(to_csv(found).splitlines()) == 2
    latex = to_latex(found)
    assert r"pgd\_50 \& more" in latex and latex.count(r"\\") == 2 and "+70.0" in latex
    svg = to_svg(found)
    assert svg.startswith("<svg") and "pgd_50 &amp; more" in svg and "http://www.w3.org/2000/svg" in svg

"""Pareto front, accuracy(cost) curve, finalists, what becomes a preset, and what is not attacked any more."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from edgepure_calibration.tune.measuring import not_worth_attacking
from edgepure_calibration.tune.points import Point, choose, curve, dominates, finalists, pareto_front

MakePoint = Callable[..., Point]


def test_robust_is_the_attack_that_hurts_more(point: MakePoint) -> None:
    assert point(1, 99, 80).robust == 0.8
    assert point(1, 99, 80, 60).robust == 0.6
    assert point(1, 99, 50, 60).robust == 0.5
    assert point(1, 98, 50, 60).value("balanced") == 0.74


def test_cost_is_milliseconds_where_they_were_measured(point: MakePoint) -> None:
    assert point(7, 99, 80).cost == 7.0
    assert replace(point(7, 99, 80), latency_ms=3.5).cost == 3.5


def test_dominates() -> None:
    assert dominates((1, 2, 3), (1, 2, 2))
    assert not dominates((1, 2, 3), (1, 2, 3))
    assert not dominates((2, 1), (1, 2))


def test_front_holds_what_nothing_dominates(point: MakePoint) -> None:
    cheap, middle, best = point(1, 90, 50), point(4, 95, 70), point(9, 94, 80)
    worse, equal = point(5, 95, 70), point(4, 95, 70)
    front = pareto_front([best, worse, middle, cheap, equal])
    assert front == [cheap, middle, equal, best]


def test_curve_only_rises(point: MakePoint) -> None:
    cheap, flat, better = point(1, 90, 50), point(2, 99, 50), point(3, 80, 60)
    assert curve([better, flat, cheap], "robust") == [cheap, better]
    assert curve([better, flat, cheap], "clean") == [cheap, flat]


def test_of_equal_costs_the_curve_takes_the_best(point: MakePoint) -> None:
    low, high = point(2, 90, 50), point(2, 90, 60)
    assert curve([low, high], "robust") == [high]


def test_finalists_hold_the_ends_and_the_best_of_every_objective(point: MakePoint) -> None:
    line = [point(calls, 99 - calls, 40 + 3 * calls) for calls in range(1, 11)]
    chosen = finalists(line, "robust", 4)
    assert len(chosen) == 4
    assert chosen[0] is line[0]
    assert chosen[-1] is line[-1]
    assert [p.cost for p in chosen] == sorted(p.cost for p in chosen)
    assert finalists(line, "robust", 1) == [line[-1]]
    assert len(finalists(line, "robust", 50)) == 10


def test_a_candidate_that_was_tried_twice_is_one_finalist(point: MakePoint) -> None:
    one = point(3, 90, 60)
    assert len(finalists([one, replace(one, number=7)], "robust", 5)) == 1


def test_choice(point: MakePoint) -> None:
    fast, good, best, costly = point(2, 95, 79), point(4, 99, 78), point(6, 94, 80), point(8, 94, 80)
    chosen = choose([costly, best, good, fast], "robust", 0.02)
    assert chosen == {"fast": fast, "balanced": good, "robust": best}
    # only best is within the tolerance, but fast is never dearer than balanced
    assert choose([costly, best, good, fast], "robust", 0.0)["fast"] is good
    cheap = point(2, 90, 70)
    assert choose([costly, best, cheap], "robust", 0.0)["fast"] is best
    assert choose([costly, best, cheap], "robust", 0.2)["fast"] is cheap
    assert choose([costly, best, good, fast], "clean", 0.0)["fast"] is good


def test_points_survive_json(point: MakePoint) -> None:
    for one in (point(3, 90, 60), replace(point(3, 90, 60, 55, "dominated"), latency_ms=1.25)):
        assert Point.from_dict(json.loads(json.dumps(one.to_dict()))) == one


def test_over_the_budget_is_not_attacked(point: MakePoint) -> None:
    slow = replace(point(3, 90, 60), latency_ms=12.0)
    assert not_worth_attacking(slow, [], 10.0) == "12 ms is over the budget"
    assert not_worth_attacking(slow, [], 20.0) == ""


def test_what_no_attack_can_lift_above_a_finished_point_is_not_attacked(point: MakePoint) -> None:
    finished = point(3, 95, 90, 70)
    assert "whatever the attack does" in not_worth_attacking(point(3, 95, 69), [finished], 10.0)
    assert not_worth_attacking(point(2, 95, 69), [finished], 10.0) == ""  # cheaper
    assert not_worth_attacking(point(3, 96, 69), [finished], 10.0) == ""  # better on clean images
    assert not_worth_attacking(point(3, 95, 88), [finished], 10.0) == ""  # within a standard error
    assert "before the attack" in not_worth_attacking(point(3, 95, 86), [finished], 10.0)


def test_where_the_transferred_attack_harms_nobody_it_gives_nobody_up(point: MakePoint) -> None:
    assert not_worth_attacking(point(5, 100, 100), [point(3, 100, 100, 70)], 10.0) == ""


def test_given_up_trials_give_nobody_up(point: MakePoint) -> None:
    assert not_worth_attacking(point(3, 90, 60), [point(1, 99, 99, None, "over")], 10.0) == ""

"""Which system meets which attack, on how many images, with how many answers: the most telling ones first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .attacks import Attack

CLEAN = Attack("clean")
TRANSFER = Attack("autoattack")
PGD_EOT = Attack("pgd")
FIELD = Attack("low-frequency", eps=0.15)
CLOSER = (
    Attack("apgd"),
    FIELD,
    Attack("low-frequency", eps=0.15, grid=8),
    Attack("bpda"),
    Attack("pgd", eps=0.5, norm="l2"),
    Attack("square", steps=200),
)
#: The same attack with other budgets: has it converged?
CURVE = (
    *(Attack("pgd", steps=steps) for steps in (5, 10, 40, 80)),
    *(Attack("pgd", eot=eot) for eot in (1, 4, 8, 16)),
)

#: The six methods that are looked at most closely, and the rows that keep them honest.
MAIN = (
    "heterogeneous-6",
    "uniform-6",
    "uniform-3",
    "heterogeneous-none-6",
    "heterogeneous-multi-6",
    "heterogeneous-6-ssni-sigmoid",
)
REST = (
    "one-call",
    "uniform-6-ssni-sigmoid",
    "gnsp-6",
    "heterogeneous-official-6",
    "uniform-10",
    "heterogeneous-10",
    "gdmp-6",
    "repaint-5",
    "uniform-ddim-6",
    "uniform-sde-6",
    "heterogeneous-none-3",
    "heterogeneous-official-none-6",
    "uniform-6-ssni-linear",
    "heterogeneous-6-ssni-linear",
    "uniform-20",
    "heterogeneous-20",
)
PAPERS = ("papers-heterogeneous-100", "papers-diffpure-100", "papers-ddpm-100")
#: One preset of each kind, for the curves.
CURVES = ("plain", "uniform-3", "heterogeneous-6")


@dataclass(frozen=True)
class Task:
    """One system under one attack.

    Attributes:
        images: how many of the test images, at most.
        draws: answers asked for each image (one from deterministic systems).
        lag: batches by which it comes after the most important tasks.
    """

    system: str
    attack: Attack
    images: int
    draws: int
    lag: int = 0


def tasks(known: Sequence[str]) -> list[Task]:
    """All of them for the systems of a bundle."""
    filters = [name for name in known if name == "plain" or name.split("-")[0] in FILTERS]
    return [task for task in _tasks(filters) if task.system in known]


def in_order(todo: Sequence[Task], batch: int) -> list[tuple[int, Task]]:
    """(batch, task) for every batch of so many images: the most important tasks run ahead of the others."""
    steps = [
        (number + task.lag, place, number, task)
        for place, task in enumerate(todo)
        for number in range(-(-task.images // batch))
    ]
    return [(number, task) for *_, number, task in sorted(steps, key=lambda step: step[:2])]


FILTERS = ("jpeg", "blur", "pca", "noise", "wiener")


def _tasks(filters: Sequence[str]) -> Iterator[Task]:
    for system in (*filters, *MAIN):
        for attack in (CLEAN, TRANSFER):
            yield Task(system, attack, 1000, 5)
        yield Task(system, PGD_EOT, 256, 20, lag=1)
    for system in REST:
        for attack in (CLEAN, TRANSFER):
            yield Task(system, attack, 1000, 5, lag=1)
    for system in PAPERS:
        for attack in (CLEAN, TRANSFER):
            yield Task(system, attack, 64, 1, lag=2)
    for attack in CURVE:
        for system in CURVES:
            yield Task(system, attack, 64, 20, lag=3)
    for attack in CLOSER:
        for system in (*filters, *MAIN[:3]):
            yield Task(system, attack, 512 if attack.kind == "square" else 256, 20, lag=4)
    for system in REST:
        yield Task(system, PGD_EOT, 128, 20, lag=6)
    for system in PAPERS:
        yield Task(system, PGD_EOT, 32, 5, lag=9)

"""The trial's figures: accuracy over UNet calls, and over the attack's budget."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from edgepure_calibration.plots import new_figure

from .claims import Found
from .store import Answers
from .tasks import CURVE, PGD_EOT

#: First part of a preset's name: the method.
METHODS = ("uniform", "heterogeneous", "gdmp", "gnsp", "repaint", "one", "papers")


def accuracy(answers: Answers) -> float:
    """Percent right by the majority of all votes."""
    return 100 * float(answers.right(f"majority-{len(answers.votes)}").mean())


def method(system: str) -> str:
    """The line a system belongs to: its name without the number of calls at the end."""
    name, _, last = system.rpartition("-")
    return name if last.isdigit() else system


def calls_figure(found: Found, path: Path) -> None:
    """Accuracy over UNet calls, one line a method: clean, transferred, attacked through the defence."""
    figure, axes = new_figure(10, 3.8, ncols=3, sharey=True)
    titles = {"clean": "clean", "autoattack": "AutoAttack, transferred", PGD_EOT.name: "PGD-EOT, white-box"}
    names = sorted({method(s) for s, _ in found})
    colours = {name: f"C{number % 10}" for number, name in enumerate(names)}
    for one, (attack, title) in zip(axes, titles.items(), strict=True):
        lines: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for (system, met), answers in found.items():
            if met == attack:
                lines[method(system)].append((answers.calls, accuracy(answers)))
        for name, points in sorted(lines.items()):
            calls, values = zip(*sorted(points), strict=True)
            style = "o-" if min(calls) else "x"
            one.plot(np.maximum(calls, 0.5), values, style, color=colours[name], label=name, markersize=4)
        one.set_xscale("log")
        one.set_xticks([0.5, 1, 3, 6, 10, 20, 100], ["0", "1", "3", "6", "10", "20", "100"])
        one.minorticks_off()
        one.set_title(title)
        one.set_xlabel("UNet calls a vote")
        one.grid(alpha=0.3)
    axes[0].set_ylabel("% right, majority of all votes")
    handles = {label: handle for one in axes for handle, label in zip(*one.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=7)
    _save(figure, path)


def convergence_figure(found: Found, path: Path) -> None:
    """Accuracy over the steps and over the copies of the white-box attack."""
    figure, axes = new_figure(7, 3.2, ncols=2, sharey=True)
    every = (PGD_EOT, *CURVE)
    systems = sorted({s for s, attack in found if attack in {a.name for a in CURVE}})
    for one, what in zip(axes, ("steps", "eot"), strict=True):
        other = "eot" if what == "steps" else "steps"
        fixed = getattr(PGD_EOT, other)
        for system in systems:
            points = sorted(
                (getattr(attack, what), accuracy(found[system, attack.name]))
                for attack in every
                if getattr(attack, other) == fixed and (system, attack.name) in found
            )
            if points:
                one.plot(*zip(*points, strict=True), "o-", label=system, markersize=4)
        one.set_xscale("log", base=2)
        one.set_xlabel(f"{'steps' if what == 'steps' else 'copies (EOT)'}, with {fixed} {other}")
        one.grid(alpha=0.3)
    axes[0].set_ylabel("% right, majority of all votes")
    axes[0].legend(fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "edgepure"}):  # otherwise the ids inside are random
        figure.savefig(path, format="svg", metadata={"Date": None})

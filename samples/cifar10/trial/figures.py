"""The trial's figures as SVG files: accuracy over UNet calls, and over the attack's budget."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from edgepure.files import write_text
from edgepure.report import Plot, Scale

from .claims import Found
from .store import Answers
from .tasks import CURVE, PGD_EOT

#: A file of its own has no page around it whose style sheet it could use.
STYLE = (
    "<style>svg{background:#fff;font-family:sans-serif}text{font-size:11.5px;fill:#555}polyline{fill:none;stroke:"
    "var(--c);stroke-width:1.8}line{stroke:var(--c,#ddd)}.grid{stroke:#ddd}circle,rect{fill:var(--c)}"
    ".s0{--c:#12805c}.s1{--c:#c2342b}.s2{--c:#ee5928}.s3{--c:#3f7fd0}.s4{--c:#9a63c4}.s5{--c:#b0730a}.s6{--c:#4aa3a2}"
    ".s7{--c:#8a8f98}</style>"
)
#: No call at all has no place on a logarithmic axis: it is drawn here.
NO_CALL = 0.5
#: Attacks with a figure over calls: name, part of the file's name, words.
PANELS = (
    ("clean", "clean", "clean"),
    ("autoattack", "transfer", "AutoAttack, transferred"),
    (PGD_EOT.name, "whitebox", "PGD-EOT"),
)


def accuracy(answers: Answers) -> float:
    """Share of right decisions by the majority of all votes."""
    return float(answers.right(f"majority-{len(answers.votes)}").mean())


def method(system: str) -> str:
    """The line a system belongs to: its method; the calls of a baseline are none."""
    name, _, last = system.rpartition("-")
    return name if last.isdigit() else system


def calls_figures(found: Found, folder: Path, name: str) -> list[tuple[str, str]]:
    """Accuracy over UNet calls, one line a method, a file for each kind of attack: (file, title)."""
    written = []
    for attack, part, words in PANELS:
        lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (system, met), answers in found.items():
            if met == attack:
                lines[method(system)].append((max(NO_CALL, answers.calls), accuracy(answers)))
        if not lines:
            continue
        plot = Plot(Scale(NO_CALL, 120, log=True), Scale(0, 1, unit="%"), "UNet calls a vote (0.5: none)")
        for number, (line, points) in enumerate(sorted(lines.items(), key=lambda item: (min(item[1])[0], item[0]))):
            x, y = zip(*sorted(points), strict=True)
            plot.line(x, y, f"s{number % 8}", line, dots=True)
        written.append((_save(plot, folder / f"cifar10-{name}-calls-{part}.svg", words), words))
    return written


def convergence_figures(found: Found, folder: Path, name: str) -> list[tuple[str, str]]:
    """Accuracy over the steps and over the copies of the white-box attack."""
    every, written = (PGD_EOT, *CURVE), []
    systems = sorted({s for s, attack in found if attack in {a.name for a in CURVE}})
    for what, words in (("steps", "steps"), ("eot", "copies of the image a step (EOT)")):
        other = "eot" if what == "steps" else "steps"
        fixed = getattr(PGD_EOT, other)
        plot = Plot(Scale(1, 100, log=True), Scale(0, 1, unit="%"), words)
        for number, system in enumerate(systems):
            points = sorted(
                (float(getattr(attack, what)), accuracy(found[system, attack.name]))
                for attack in every
                if getattr(attack, other) == fixed and (system, attack.name) in found
            )
            if points:
                x, y = zip(*points, strict=True)
                plot.line(x, y, f"s{number}", system, dots=True)
        title = f"accuracy over {words}, {fixed} {other}"
        written.append((_save(plot, folder / f"cifar10-{name}-{what}.svg", title), title))
    return written


def _save(plot: Plot, path: Path, title: str) -> str:
    svg = str(plot.svg(title))
    start = svg.index(">") + 1
    head = svg[:start].replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="640" ', 1)
    write_text(path, head + STYLE + svg[start:] + "\n")
    return path.name

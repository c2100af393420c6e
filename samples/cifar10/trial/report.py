"""Write what the trial found: docs/results/cifar10.md and .json, from the raw answers alone.

    python -m samples.cifar10.trial.report --work out/cifar10/trial --out docs/results

Each folder of raw answers (a classifier and the key of its bundle) gets its tables.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgepure.files import write_text
from edgepure.intervals import clopper_pearson

from .claims import CLAIMS, Found, Verdict, against, between, test
from .figures import calls_figures, convergence_figures
from .store import Answers, Store
from .tasks import CLOSER, CURVE, FILTERS, PGD_EOT

#: The classifier with which the others are compared.
OURS = "ours"
RULES = ("single", "worst-10", "majority-5", "majority-20")
#: Attack names of the main columns, and of the curves.
CURVES = [PGD_EOT.name, *(attack.name for attack in CURVE)]


def words(attack: str) -> str:
    """An attack's name as a sentence would have it."""
    if attack == "clean":
        return "clean"
    if attack == "autoattack":
        return "AutoAttack `standard` on the plain classifier (Linf 8/255), transferred"
    kind, _, rest = attack.partition("-e")
    size, _, budget = rest.partition("-")
    steps, _, eot = budget.partition("x")
    titles = {
        "pgd": "PGD-EOT, exact gradients through every row, Linf",
        "pgd-l2": "PGD-EOT, exact gradients through every row, L2",
        "apgd": "APGD, cross-entropy and DLR, the worse of both by image, exact gradients, Linf",
        "bpda": "BPDA (PGD-EOT with the identity as the defence's gradient), Linf",
        "square": "Square on the deployed engine, Linf",
        "low-frequency-g4": "low-frequency field 4 x 4, exact gradients, bound",
        "low-frequency-g8": "low-frequency field 8 x 8, exact gradients, bound",
    }
    radius = size if kind == "pgd-l2" or kind.startswith("low") else f"{size}/255"
    unit = "queries" if kind == "square" else "steps"
    return f"{titles.get(kind, kind)} {radius}, {steps} {unit}" + (f", EOT {eot}" if eot else "")


def share(right: int, images: int) -> str:
    """A percentage with its 95 % interval."""
    low, high = clopper_pearson(right, images)
    return f"{100 * right / images:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def score(answers: Answers, rule: str) -> str:
    """A cell; empty where the system was not asked so often."""
    _, _, count = rule.partition("-")
    if len(answers.votes) == 1 and rule != "single":
        return "the same" if answers.calls == 0 else ""
    if count and len(answers.votes) < int(count):
        return ""
    return share(int(answers.right(rule).sum()), len(answers))


def attack_table(attack: str, found: Sequence[Answers]) -> list[str]:
    """One attack on every system that met it."""
    lines = [f"### {words(attack)}", ""]
    lines += ["| system | UNet calls a vote | images | single | worst of 10 | majority of 5 | majority of 20 |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for answers in found:
        cells = " | ".join(score(answers, rule) for rule in RULES)
        lines.append(f"| {answers.system} | {answers.calls} | {len(answers)} | {cells} |")
    return [*lines, ""]


def claims_table(verdicts: Sequence[Verdict]) -> list[str]:
    """Every claim in one line."""
    lines = ["| claim | attack | rule | difference, wins : losses, exact p | corrected p | verdict |", "|---" * 6 + "|"]
    for v in verdicts:
        lines.append(
            f"| {v.claim.says} (`{v.claim.first}` against `{v.claim.second}`) | {v.attack} | {v.rule} | {v.result} | "
            f"{v.corrected:.2g} | {v.words} |"
        )
    return [*lines, ""]


def curve_table(found: Found) -> list[str]:
    """The same attack with more steps and with more copies."""
    systems = sorted({system for system, attack in found if attack in CURVES and attack != PGD_EOT.name})
    if not systems:
        return []
    lines = ["| system | attack | images | single | majority of 20 |", "|---|---|---|---|---|"]
    for system in systems:
        for attack in CURVES:
            if (system, attack) in found:
                a = found[system, attack]
                lines.append(f"| {system} | {attack} | {len(a)} | {score(a, 'single')} | {score(a, 'majority-20')} |")
    return [*lines, ""]


def section(name: str, found: Found, out: Path) -> tuple[list[str], dict[str, Any]]:
    """Everything of one bundle."""
    attacks = ["clean", "autoattack", PGD_EOT.name, *(attack.name for attack in CLOSER)]
    filters = sorted({system for system, _ in found if system.split("-")[0] in FILTERS})
    lines = [f"## Classifier: {name}", ""]
    lines += [
        "Percent right (95 % Clopper-Pearson interval). Accuracy by the majority of all votes, over UNet calls:",
        "",
    ]
    lines += [f"![{title}]({file})" for file, title in calls_figures(found, out, name)]
    lines.append("")
    for attack in attacks:
        rows = [answers for (_, met), answers in found.items() if met == attack]
        if rows:
            rows.sort(key=lambda a: (a.system != "plain", a.system not in filters, a.calls, a.system))
            lines += attack_table(attack, rows)
    verdicts = test([*CLAIMS, *against(["plain", *filters])], found)
    lines += ["### The claims, paired", "", CLAIMS_NOTE, "", *claims_table(verdicts)]
    curve = curve_table(found)
    if curve:
        pictures = [f"![{title}]({file})" for file, title in convergence_figures(found, out, name)]
        lines += ["### Has the attack converged?", "", *curve, *pictures, ""]
    return lines, {
        "answers": [answers.to_dict() for answers in found.values()],
        "claims": [verdict.to_dict() for verdict in verdicts],
    }


def comparison(first: str, second: str, groups: Mapping[str, Found]) -> tuple[list[str], list[dict[str, Any]]]:
    """Two classifiers behind the same systems, on the same images."""
    verdicts = test(*between(first, second, groups))
    title = f"## Classifier: {first} against {second}"
    return [title, "", CLAIMS_NOTE, "", *claims_table(verdicts)], [verdict.to_dict() for verdict in verdicts]


CLAIMS_NOTE = (
    "McNemar's exact test on the same images, two-sided; the difference has a 95 % interval, exact given the images on "
    "which the two differ; p-values are corrected for all lines of this table (Holm)."
)


def main(
    work: Annotated[Path, typer.Option(help="Folder of the raw answers")] = Path("out/cifar10/trial"),
    out: Annotated[Path, typer.Option()] = Path("docs/results"),
    note: Annotated[Path | None, typer.Option(help="A Markdown file to put on top")] = None,
) -> None:
    """Write the tables."""
    out.mkdir(parents=True, exist_ok=True)
    lines = ["# CIFAR-10: the trial", ""]
    if note is not None:
        lines += [note.read_text().strip(), ""]
    data: dict[str, Any] = {}
    groups: dict[str, Found] = {}
    for folder in sorted(p for p in work.iterdir() if p.is_dir()):
        found = {(a.system, a.attack): a for a in Store(folder).all()}
        if found:
            name = folder.name.partition("-")[0]
            text, data[name] = section(name, found, out)
            data[name]["bundle"] = folder.name.partition("-")[2]
            lines += text
            groups[name] = found
    for name in groups:
        if name != OURS and OURS in groups:
            text, data[name]["against"] = comparison(name, OURS, groups)
            lines += text
    write_text(out / "cifar10.md", "\n".join(lines).rstrip() + "\n")
    write_text(out / "cifar10.json", json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n")
    print(f"written: {out / 'cifar10.md'}, {out / 'cifar10.json'}")


if __name__ == "__main__":
    typer.run(main)

"""The tables of an evaluation as text, for the page, the card and the command line. Accuracies cite their protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .accuracy import Footnotes
from .results import AttackResult, Evaluated, PresetResult

#: The decision rules in the order of the columns.
RULES = ("single", "worst", "majority")


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are words, with its heading and a sentence about it."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As a Markdown table, without the title."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def attack_table(found: PresetResult, notes: Footnotes) -> TextTable:
    """One preset: clean, then every attack, by every decision rule."""
    rules = [str(found.clean.by_rule(kind).rule) for kind in RULES]
    rows = [_row(a.protocol.title, a, notes) for a in (found.clean, *found.attacks)]
    if found.union:
        cells = {a.rule.kind: a.cell(notes) for a in found.union}
        rows.append((found.union[0].protocol.title, *(cells[kind] for kind in RULES), "-", "-"))
    return TextTable(
        title=found.name,
        note=f"{found.preset.description or found.preset.method.method}; {found.unet_calls} UNet calls a purification "
        "at its full noise level. In brackets: 95 % Clopper-Pearson intervals and the number of the protocol.",
        columns=("attack", *rules, "classifier alone", "UNet calls"),
        rows=rows,
    )


def summary_table(found: Evaluated, notes: Footnotes) -> TextTable:
    """Every preset in a line: clean, and the attack that leaves least, for each rule its own."""
    rows = []
    names = _rule_names(found)
    for preset in (*found.presets, *found.baselines):
        counted = [a for a in preset.attacks if not a.protocol.surrogate]
        cells = []
        for kind in RULES:
            worst = min(counted, key=lambda a, kind=kind: a.by_rule(kind).fraction, default=None)  # type: ignore[misc]
            if worst is None:
                cells.append("-")
                continue
            number = worst.by_rule(kind)
            rule = "" if str(number.rule) == names[kind] else f"{number.rule}, "
            cells.append(f"{number.cell(notes)} {rule}{worst.protocol.title}")
        clean = preset.clean.by_rule("majority")
        union = next((a for a in preset.union if a.rule.kind == "majority"), None)
        every = "-" if union is None else union.cell(notes)
        if union is not None and str(union.rule) != names["majority"]:
            every += f" {union.rule}"
        rows.append((preset.name, str(preset.unet_calls), f"{clean.cell(notes)} {clean.rule}", *cells, every))
    return TextTable(
        title="Each preset under the attack that leaves least",
        note="For each decision rule its own attack; surrogates do not count. Last column: right only if right "
        "unattacked and under each of the attacks that its protocol names.",
        columns=("preset", "UNet calls", "clean", *names.values(), f"all attacks, {names['majority']}"),
        rows=rows,
    )


def _rule_names(found: Evaluated) -> dict[str, str]:
    """Headings of the summary. Runs that were merged may have counted otherwise: then each number names its rule."""
    names = {}
    for kind in RULES:
        presets = (*found.presets, *found.baselines)
        numbers = [a for p in presets for attack in p.attacks for a in attack.accuracies]
        numbers += [a for p in presets for a in (*p.clean.accuracies, *p.union)]
        rules = {str(number.rule) for number in numbers if number.rule.kind == kind}
        names[kind] = rules.pop() if len(rules) == 1 else kind
    return names


def mask_table(found: Evaluated, notes: Footnotes) -> TextTable | None:
    """What an attacker gains who differentiates through the mask; None if that was not tried."""
    rows = []
    for preset in found.presets:
        for blind, aware in preset.mask_gains():
            gain = 100.0 * (blind.by_rule("single").fraction - aware.by_rule("single").fraction)
            cells = [a.by_rule("single").cell(notes) for a in (blind, aware)]
            rows.append((preset.name, blind.protocol.attack, *cells, f"{gain:+.1f}"))
    if not rows:
        return None
    return TextTable(
        "What the attacker gains by differentiating through the mask",
        "Single purification. A positive gain means that the mask's gradient helps him; the intervals say whether the "
        "difference is more than chance.",
        ("preset", "attack", "mask detached", "mask gradient", "gain, points"),
        rows,
    )


def cross_table(found: Evaluated, notes: Footnotes) -> TextTable | None:
    """What images do to a preset that were attacked through another one; None if that was not tried."""
    rows = [
        (source, name, result.protocol.attack, *(result.by_rule(kind).cell(notes) for kind in RULES))
        for source, name, result in found.crossed
    ]
    if not rows:
        return None
    rules = [str(found.crossed[0][2].by_rule(kind).rule) for kind in RULES]
    return TextTable(
        "Attacked through one preset, answered by another",
        "The images of each preset's strongest attack. An attacker need not know which preset is deployed if these "
        "numbers are as low as its own.",
        ("attacked", "answers", "attack", *rules),
        rows,
    )


def policy_table(found: Evaluated, notes: Footnotes) -> TextTable | None:
    """The experiment on noise policies; None if it was not made."""
    rows = []
    columns: tuple[str, ...] = ()
    for name, results in found.experiments.get("noise_policy", {}).items():
        for result in results:
            rules = [str(a.rule) for a in result.accuracies]
            columns = ("preset", "noise", "attack", *rules, "read wrong in 1 / N queries")
            success = f"{100 * result.resubmission[0]:.1f} % / {100 * result.resubmission[-1]:.1f} %"
            cells = [a.cell(notes) for a in result.accuracies]
            rows.append((name, result.policy, result.protocol.attack, *cells, success))
    if not rows:
        return None
    return TextTable(
        "Where the noise comes from",
        "secret: fresh for every request. process seed: one secret stream, the same for every request. known seed: "
        "the same, and the attacker knows it.",
        columns,
        rows,
    )


def agreement_table(found: Evaluated) -> TextTable:
    """Twin and engine on the adversarial images."""
    rows = [
        (preset.name, attack.protocol.title, str(attack.agreement))
        for preset in found.presets
        for attack in preset.attacks
        if attack.agreement is not None
    ]
    return TextTable(
        "Twin and engine",
        "The attacked images, purified once by the PyTorch twin and once by the deployed engine with the same noise.",
        ("preset", "attack", "agreement"),
        rows,
    )


def _row(title: str, found: AttackResult, notes: Footnotes) -> tuple[str, ...]:
    cells = [found.by_rule(kind).cell(notes) for kind in RULES]
    return (title, *cells, found.plain.cell(notes), f"{found.unet_calls:.2f}")

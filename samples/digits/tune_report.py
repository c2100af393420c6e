"""What the tuning experiment found, as tuning.json and tuning.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgepure.cli import duration
from edgepure.files import write_json, write_text
from edgepure.purify import Score
from edgepure_calibration.tune import Candidate, Tuning, WhiteBox, describe, score_data


@dataclass(frozen=True)
class Answer:
    """One preset on the test images: which decisions were right, clean and attacked through the defence."""

    name: str
    candidate: Candidate
    calls: int
    clean: Score
    whitebox: Score
    right: np.ndarray[Any, np.dtype[np.bool_]]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "preset": self.name,
            "summary": self.candidate.summary(),
            **self.candidate.to_dict(),
            "unet_calls": self.calls,
            "clean": score_data(self.clean),
            "whitebox": score_data(self.whitebox),
            "attack_seconds": round(self.seconds, 1),
        }


def difference(one: Answer, other: Answer) -> dict[str, float]:
    """White-box accuracy of ``one`` minus that of ``other`` on the same images, with its paired 95 % interval (normal
    approximation)."""
    wins, losses, n = int((one.right & ~other.right).sum()), int((~one.right & other.right).sum()), len(one.right)
    mean = (wins - losses) / n
    deviation = np.sqrt(max(wins + losses - (wins - losses) ** 2 / n, 0.0)) / n
    return {
        "difference": mean,
        "low": mean - 1.96 * deviation,
        "high": mean + 1.96 * deviation,
        "only the first right": wins,
        "only the second right": losses,
        "images": n,
    }


def write_results(
    folder: Path, tuning: Tuning, attack: WhiteBox, answers: list[Answer], mask: str, timings: dict[str, float]
) -> None:
    """tuning.json and tuning.md."""
    baseline = answers[-1]
    differences = {a.name: difference(a, baseline) for a in answers[:-1]}
    data = {
        "tuning": {key: value for key, value in tuning.to_dict().items() if key != "trials"},
        "comparison": {
            "images": f"{len(baseline.right)} held-back test images, drawn in equal shares",
            "attack": describe(attack.attack, attack.settings, attack.seeds),
            "decision": "by the deployed graphs; the attacker does not know their noise",
            "mask of the 100 calls": mask,
            "presets": [a.to_dict() for a in answers],
            "difference to the 100 calls": differences,
        },
        "seconds": {key: round(value, 1) for key, value in timings.items()},
    }
    write_json(folder / "tuning.json", data)
    write_text(folder / "tuning.md", markdown(tuning, attack, answers, differences, mask, timings))


def share(score: Score) -> str:
    """An accuracy with its interval."""
    low, high = score.interval
    return f"{100 * score.fraction:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def markdown(
    tuning: Tuning,
    attack: WhiteBox,
    answers: list[Answer],
    differences: dict[str, dict[str, float]],
    mask: str,
    timings: dict[str, float],
) -> str:
    """The page for people."""
    facts = tuning.facts
    lines = [
        "# Tuning the digits bundle",
        "",
        f"Printed by `python samples/digits/tune.py` on {facts['date']}: {facts['device']}, one thread, ONNX Runtime "
        f"{facts['onnxruntime']}, PyTorch {torch.__version__}. {duration(sum(timings.values()))} in all ("
        + ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in timings.items())
        + ").",
        "",
        "## Against the paper's 100 UNet calls, on test images",
        "",
        "| preset | UNet calls a decision | clean | white-box | minus the 100 calls |",
        "|---|---|---|---|---|",
    ]
    for a in answers:
        d = differences.get(a.name)
        points = "" if d is None else f"{100 * d['difference']:+.1f} ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
        lines.append(f"| {a.name} | {a.calls} | {share(a.clean)} | {share(a.whitebox)} | {points} |")
    n = len(answers[0].right)
    lines += [
        "",
        *(f"- **{a.name}**: {a.candidate.summary()}." for a in answers),
        f"- **Images**: {n} held-back test images; none was seen in training or tuning. In "
        "brackets: 95 % Clopper-Pearson intervals; the last column is paired, in points.",
        f"- **Attack**: {attack.attack.name}, Linf eps {attack.settings.eps:g}, "
        f"{attack.settings.steps} steps, EOT {attack.settings.eot}, random start, exact gradients "
        "through every deployed row and the classifier; mask and SSNI level detached. The same for every preset. The "
        "deployed graphs answer; the attacker does not know their noise.",
        f"- **Mask of the 100 calls**: the better of two, {mask}.",
        "",
        "## The search",
        "",
        f"{len(tuning.trials)} candidates of at most {tuning.budget.limit:g} UNet calls a decision; "
        f"{sum(bool(p.dropped) for p in tuning.trials)} were given up before the white-box attack. Finalists and the "
        "presets of the bundle, measured again on other training images, with the attack of the finalists:",
        "",
        "| preset | UNet calls | clean | transferred | white-box | what it does |",
        "|---|---|---|---|---|---|",
    ]
    names: dict[str, list[str]] = {}
    for name, point in tuning.chosen.items():
        names.setdefault(point.candidate.key, []).append(name)
    rows = [(", ".join(names.get(p.candidate.key, ("-",))), p) for p in tuning.finalists]
    rows += [(f"{name} (before)", p) for name, p in tuning.references.items()]
    for name, p in rows:
        cells = " | ".join("-" if s is None else share(s) for s in (p.clean, p.attacked, p.whitebox))
        lines.append(f"| {name} | {p.calls} | {cells} | {p.candidate.summary()} |")
    search, final = (tuning.protocols[f"white-box of the {part}"] for part in ("search", "finalists"))
    lines += [
        "",
        f"White-box attack of the search: {search['attack']}, {search['steps']} steps, EOT {search['eot']}; of the "
        f"finalists: {final['attack']}, {final['steps']} steps, EOT {final['eot']}; both Linf eps {final['eps']:g}. "
        "The networks were trained on these images, so these accuracies are higher than those on test images.",
        "",
    ]
    return "\n".join(lines)

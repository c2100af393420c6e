"""What the CIFAR-10 demonstration found, in the report's form: pictures, scores, protocols."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from edgepure import Purifier
from edgepure.demo import ColumnProtocol, DemoReport, Gallery, method_gallery, one_of_each_class, plan_rows
from edgepure.purify import Score
from edgepure.report import Picture, environment
from edgepure_calibration.attacks import PGD, Defence
from samples.cifar10.demo_run import ATTACKER_SEED, METHODS, NOISE_SEED, TRANSFER, WHITEBOX, Run

#: So much the differences are enlarged; grey is no difference.
FACTOR = 8


def difference(one: Any, other: Any) -> Any:
    """`other` less `one`, enlarged around grey."""
    return np.clip(0.5 + FACTOR * (other - one), 0, 1).astype(np.float32)


def before_and_after(run: Run, purifier: Purifier, default: str) -> Gallery:
    """Clean, attacked, what the attack changed, mask, purified, what is left of the change."""
    classes, strips = purifier.classes, []
    results = run.methods[default].attacked.results
    for i in one_of_each_class(run.labels):
        truth, result = int(run.labels[i]), results[i]
        labels = {name: int(run.plain[name][i]) for name in ("clean", "attacked")}
        pictures = [
            Picture(run.clean[i], "clean", classes[labels["clean"]], labels["clean"] == truth),
            Picture(run.attacked[i], "attacked", classes[labels["attacked"]], labels["attacked"] == truth),
            Picture(difference(run.clean[i], run.attacked[i]), f"the attack x {FACTOR}"),
        ]
        if result.mask is not None:
            area = f"mask, {100 * float(result.mask.mean()):.0f} %"
            pictures.append(Picture(run.attacked[i], area, mask=result.mask))
        pictures += [
            Picture(result.image, "purified", classes[result.label], result.label == truth),
            Picture(difference(run.clean[i], result.image), f"purified - clean, x {FACTOR}"),
        ]
        strips.append((f"true class {classes[truth]}", tuple(pictures)))
    note = f"A test image of every class, attacked on the plain classifier. {default}; orange: the mask."
    return Gallery("Before and after", note, tuple(strips), wide=True)


def make_report(run: Run, purifier: Purifier) -> DemoReport:
    """The report of a run."""
    default = METHODS[0]
    votes = purifier.preset(default).votes
    decision = f"{votes.rule} of {votes.count} purifications, the classifier alone one answer"
    images = f"{len(run.labels)} of the 10,000 test images, every class in proportion"
    count = len(run.adversarial.get(default, ()))
    provenance = purifier.bundle.manifest.provenance
    return DemoReport(
        title="CIFAR-10, attacked and purified",
        summary=(
            "Test images that the networks have not seen are attacked so that a classifier reads them wrong; a small "
            "diffusion model purifies them and the same classifier reads them again. Purified and classified by "
            "exported graphs on ONNX Runtime; attacked with PyTorch, at the end through the whole defence. Both "
            "networks were trained by scripts of this sample; docs/results/cifar10.md is the measurement."
        ),
        default=default,
        plain={
            **{key: Score.of_labels(found.tolist(), run.labels.tolist()) for key, found in run.plain.items()},
            "whitebox": None,
        },
        methods=tuple(
            found.scores(purifier, name, run.whitebox[name].score if name in run.whitebox else None)
            for name, found in run.methods.items()
        ),
        protocols={
            "clean": ColumnProtocol(images=images, decision=decision, seeds={"noise": NOISE_SEED}),
            "attacked": ColumnProtocol(
                images=images,
                decision=decision,
                seeds={"noise": NOISE_SEED + 1, "attack": TRANSFER.seed},
                gradient="exact, of the cross-entropy",
                target="the plain classifier; the same images are then given to every method",
                **attack(TRANSFER),
            ),
            **({"whitebox": _whitebox(votes, count)} if count else {}),
        },
        galleries=(
            before_and_after(run, purifier, default),
            method_gallery(
                "What every method makes of the same image",
                "Attacked on the plain classifier.",
                purifier.classes,
                run.attacked,
                run.labels,
                run.plain["attacked"],
                {name: found.attacked.results for name, found in run.methods.items()},
                one_of_each_class(run.labels)[:5],
            ),
        ),
        plan=plan_rows(purifier, default),
        timings=run.seconds,
        facts={
            **environment(),
            "torch": str(torch.__version__),
            "largest difference to PyTorch at export": dict(provenance.parity),
            "self-test": str(run.verification),
        },
        notes=[
            f"{count or len(run.labels)} images are a look, not a measurement, and a stronger attack leaves less: "
            "docs/results/cifar10.md shows by how much."
        ],
    )


def _whitebox(votes: Any, count: int) -> ColumnProtocol:
    """How the last column was measured."""
    return ColumnProtocol(
        images=f"the first {count} of these images",
        decision=f"{votes.rule} of {votes.count} purifications by the exported graphs, their noise unknown "
        "to the attacker",
        seeds={
            "noise": NOISE_SEED + 2,
            "attack": WHITEBOX.seed,
            "attacker's noise": ATTACKER_SEED,
        },
        gradient=Defence.GRADIENT,
        target="each method with its classifier (the PyTorch twin of the bundle)",
        **attack(WHITEBOX),
    )


def attack(pgd: PGD) -> dict[str, Any]:
    """An attack in a protocol's words."""
    return {
        "attack": "PGD-EOT" if pgd.eot > 1 else "PGD",
        "norm": "Linf",
        "eps": pgd.eps,
        "steps": pgd.steps,
        "step_size": pgd.step,
        "random_start": True,
        "eot": pgd.eot if pgd.eot > 1 else None,
    }

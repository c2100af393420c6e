"""What the demonstration found, put into the report's form: scores, protocols, pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from data import Images, Labels

from edgepure import Preset, Purifier
from edgepure.demo import (
    ColumnProtocol,
    DemoReport,
    Gallery,
    MethodRun,
    ScoredRun,
    attack_gallery,
    method_gallery,
    one_of_each_class,
    plain_labels,
    plan_rows,
)
from edgepure.parity import Verification
from edgepure.purify import Score
from edgepure.report import environment
from edgepure_calibration.attacks import PGD, Defence


@dataclass(frozen=True)
class Settings:
    """What the demonstration was asked to do.

    ``transfer`` and ``plain_whitebox`` attack the classifier alone, ``whitebox`` the whole defence. ``noise_seed`` is
    of the purifications, ``attacker_seed`` of the noise that the white-box attacker draws himself (he does not know
    the other), ``subset_seed`` of the images that were drawn. ``test_images``: how many there are in all.
    ``cores``: how many methods run side by side, each on one core.
    """

    transfer: PGD
    plain_whitebox: PGD
    whitebox: PGD
    noise_seed: int
    attacker_seed: int
    subset_seed: int
    test_images: int
    cores: int
    quick: bool


@dataclass
class DemoRun:
    """Everything that was computed. Images are ``[N, 1, 16, 16]`` float32 in [0, 1], labels ``[N]`` int64.

    ``plain`` holds the answers of the classifier alone by column; ``whitebox_index``, ``adversarial`` and ``whitebox``
    are by method: which images were attacked through the defence, what the attack made of them, what was answered.
    ``stronger`` is the white-box score of the first method with twice the radius.
    """

    settings: Settings
    clean: Images
    attacked: Images
    labels: Labels
    names: list[str]
    presets: dict[str, Preset]
    verification: Verification
    unet_calls: dict[str, int] = field(default_factory=dict)
    plain: dict[str, Labels] = field(default_factory=dict)
    methods: dict[str, MethodRun] = field(default_factory=dict)
    whitebox_index: dict[str, Labels] = field(default_factory=dict)
    adversarial: dict[str, Images] = field(default_factory=dict)
    whitebox: dict[str, ScoredRun] = field(default_factory=dict)
    agreement: str = ""
    stronger: Score | None = None


def make_report(run: DemoRun, purifier: Purifier, timings: Mapping[str, float]) -> DemoReport:
    """The report of a run."""
    default = run.names[0]
    bundle = purifier.bundle.manifest
    calibrated = bundle.calibration
    norms = None if calibrated is None else calibrated.find(calibrated.chosen)
    return DemoReport(
        title="Adversarial digits, purified",
        summary=(
            "Handwritten digits that the networks have not seen are attacked so that a classifier reads them wrong; a "
            "small diffusion model purifies them and the same classifier reads them again. Purified and classified by "
            "exported graphs on ONNX Runtime; attacked with PyTorch, at the end through the whole defence."
        ),
        default=default,
        plain={key: Score.of_labels(found.tolist(), run.labels.tolist()) for key, found in run.plain.items()},
        methods=tuple(run.methods[n].scores(purifier, n, run.whitebox[n].score) for n in run.names),
        protocols=_protocols(run, default),
        galleries=_galleries(run, purifier, default),
        plan=plan_rows(purifier, default),
        timings=timings,
        facts={
            **environment(),
            "torch": str(torch.__version__),
            "measured": f"{run.settings.cores} methods side by side, each on one core",
            "largest difference to PyTorch at export": dict(bundle.provenance.parity),
            "self-test": str(run.verification),
            "PyTorch and ONNX Runtime with the same noise": run.agreement,
            **({} if norms is None else {"clean score norms": norms.clean.model_dump()}),
        },
        notes=_notes(run, default),
    )


def _protocols(run: DemoRun, default: str) -> dict[str, ColumnProtocol]:
    settings = run.settings
    votes = run.presets[default].votes
    decision = f"{votes.rule} of {votes.count} purifications, the classifier alone one answer"
    images = f"{len(run.labels)} of the {settings.test_images} held-back test images"
    drawn = {"subset": settings.subset_seed}
    return {
        "clean": ColumnProtocol(images=images, decision=decision, seeds={"noise": settings.noise_seed, **drawn}),
        "attacked": ColumnProtocol(
            images=images,
            decision=decision,
            seeds={"noise": settings.noise_seed + 1, "attack": settings.transfer.seed, **drawn},
            gradient="exact, of the cross-entropy",
            target="the plain classifier; the same images are then given to every method",
            **_attack(settings.transfer),
        ),
        "whitebox": ColumnProtocol(
            images=_subset(run),
            decision=f"{votes.rule} of {votes.count} purifications by the exported graphs, their noise unknown "
            "to the attacker",
            seeds={
                "noise": settings.noise_seed + 2,
                "attack": settings.whitebox.seed,
                "attacker's noise": settings.attacker_seed,
                **drawn,
            },
            gradient=Defence.GRADIENT,
            target="each method with its classifier, as deployed (the PyTorch twin of the bundle)",
            **_attack(settings.whitebox),
        ),
        "plain_whitebox": ColumnProtocol(
            images=images,
            decision="one answer",
            seeds={"attack": settings.plain_whitebox.seed, **drawn},
            gradient="exact, of the cross-entropy",
            target="the plain classifier",
            **_attack(settings.plain_whitebox),
        ),
    }


def _notes(run: DemoRun, default: str) -> list[str]:
    notes = ["A quick run: fewer images than a measurement needs."] if run.settings.quick else []
    if run.stronger is not None:
        low, high = run.stronger.interval
        notes.append(
            f"Every defence ends somewhere. The same white-box attack on {default} with twice the radius (Linf eps "
            f"{2 * run.settings.whitebox.eps:g}) leaves {100 * run.stronger.fraction:.1f} % "
            f"({100 * low:.1f} to {100 * high:.1f}) of {run.stronger.images} images."
        )
    return notes


def _subset(run: DemoRun) -> str:
    """Which images the white-box attack was made on, in words."""
    sizes = sorted({len(index) for index in run.whitebox_index.values()}, reverse=True)
    words = f"{sizes[0]} of these images, drawn at random"
    for size in sizes[1:]:
        names = sorted(name for name, index in run.whitebox_index.items() if len(index) == size)
        words += f" ({size} for {', '.join(names)})"
    return words


def _attack(pgd: PGD) -> dict[str, Any]:
    return {
        "attack": "PGD-EOT" if pgd.eot > 1 else "PGD",
        "norm": "Linf",
        "eps": pgd.eps,
        "steps": pgd.steps,
        "step_size": pgd.step,
        "random_start": True,
        "eot": pgd.eot if pgd.eot > 1 else None,
    }


def _galleries(run: DemoRun, purifier: Purifier, default: str) -> tuple[Gallery, ...]:
    classes = purifier.classes
    picks = one_of_each_class(run.labels)
    index, adversarial = run.whitebox_index[default], run.adversarial[default]
    clean, truth = run.clean[index], run.labels[index]
    mask = "; orange: where the mask puts strong noise" if run.presets[default].mask is not None else ""
    return (
        attack_gallery(
            "Before and after",
            f"The first test image of every class, attacked on the plain classifier. {default}{mask}.",
            classes,
            run.clean,
            run.attacked,
            run.labels,
            run.plain["clean"],
            run.plain["attacked"],
            run.methods[default].attacked.results,
            picks,
        ),
        attack_gallery(
            "Attacked through the defence",
            "The first of every class among those that were attacked through purification and classifier together (a "
            "smaller perturbation, see the footnotes). The answer below 'adversarial' is the plain classifier's.",
            classes,
            clean,
            adversarial,
            truth,
            run.plain["clean"][index],
            plain_labels(purifier, adversarial),
            run.whitebox[default].results,
            one_of_each_class(truth),
        ),
        method_gallery(
            "Every method",
            "The same attacked images after one purification by each method, with the answer of all its votes.",
            classes,
            run.attacked,
            run.labels,
            run.plain["attacked"],
            {name: method.attacked.results for name, method in run.methods.items()},
            picks[:4],
        ),
    )

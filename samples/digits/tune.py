"""How few UNet calls are as robust as the paper's hundred? Tune the digits bundle, then compare on test images.

    python samples/digits/tune.py --out out/tuning

takes about a quarter of an hour on one core. The presets are searched and chosen on images of the training and
validation parts; the comparison with the published heterogeneous setting (100 calls) uses the held-back test images,
the same for both, and one attack through the whole defence for both. Writes tuning.html, tuning.json and tuning.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from time import perf_counter
from typing import Annotated

import numpy as np
import torch
import typer
from build_bundle import reference
from data import Subset, load_digits_split
from models import load_classifier, load_unet
from rich.console import Console
from tune_report import Answer, share, write_results

from edgepure import Preset
from edgepure.cli import Progress
from edgepure.demo import demo_bundle
from edgepure.images import LabelledImages
from edgepure.methods import published_preset
from edgepure.purify import Score
from edgepure_calibration.attacks import AttackSeeds, AttackSettings, attack_named
from edgepure_calibration.provider import ProviderSettings
from edgepure_calibration.tune import (
    Candidate,
    DeployedGraphs,
    TuneSettings,
    Tuning,
    TwinLoader,
    WhiteBox,
    transfer,
    tune,
    write_report,
)
from edgepure_export import TorchReference

#: At most a tenth of the paper's calls.
BUDGET = 10
#: Images of the training part that join the 150 of the validation part.
TRAINING_IMAGES = 350
SETTINGS = TuneSettings(
    calls=BUDGET,
    trials=50,
    images=150,
    whitebox_images=40,
    final_images=200,
    final_whitebox_images=64,
    finalists=5,
    eps=0.1,
    search_steps=5,
    search_eot=2,
    final_steps=10,
    final_eot=2,
    seed=1,
)
#: The comparison: all test images, and the attack on both presets, with a seed that tuning did not use.
TEST_SEED, NOISE_SEED, ATTACKER_SEED = 20250301, 91, 92
ATTACK, STRENGTH = attack_named("apgd-dlr"), AttackSettings(eps=0.1, steps=7, eot=2, batch=20)

console = Console(highlight=False, soft_wrap=True)


def labelled(*parts: Subset) -> LabelledImages:
    """Digits as the tuning takes them."""
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    return LabelledImages(images, labels, tuple(str(i) for i in range(len(labels))))


def papers_preset(area: float | None) -> Preset:
    """The published heterogeneous setting for images of this kind, 100 UNet calls, one vote; its threshold of the mask
    or, with ``area``, the mask of this sample's presets."""
    data = published_preset("cifar10-dhni-official").data()
    data["votes"] = {"count": 1}
    if area is not None:
        data["mask"] = {"rule": "minmax", "area": area}
    return Preset.parse(data)


def stronger_paper_preset(
    meter: DeployedGraphs, tuning: Tuning, data: LabelledImages, twin: TwinLoader
) -> tuple[str, Candidate]:
    """Of the two masks the one that keeps the 100 calls more robust, by transferred attacks on training images."""
    some = data.take(200, TEST_SEED)
    attacked = transfer(twin, meter.purifier(), tuning.settings.eps)(some, TEST_SEED)
    found = {
        name: Candidate(papers_preset(area))
        for name, area in (("the paper's tau 0.9", None), ("area 0.3, as this sample's presets", 0.3))
    }
    right = {name: meter.score(c, attacked, NOISE_SEED).right for name, c in found.items()}
    best = max(right, key=right.__getitem__)
    return f"{best} ({right[best]} of 200 transferred attacks, the other {min(right.values())})", found[best]


def answer(
    name: str, candidate: Candidate, meter: DeployedGraphs, whitebox: WhiteBox, test: LabelledImages, bar: Progress
) -> Answer:
    """Attack one preset and let the deployed graphs answer."""
    start = perf_counter()
    purifier = meter.purifier(candidate.precision)
    attacked = whitebox(candidate, purifier, test, lambda share: bar.update(share, f"attacking {name}"))
    seconds = perf_counter() - start
    results = meter.purifier(candidate.precision).run(attacked.images, candidate.preset, noise=NOISE_SEED + 1)
    assert test.labels is not None
    right = np.array([r.label == label for r, label in zip(results, test.labels, strict=True)])
    return Answer(
        name,
        candidate,
        meter.calls(candidate),
        meter.score(candidate, test, NOISE_SEED),
        Score.of_results(results, [int(n) for n in test.labels]),
        right,
        seconds,
    )


def main(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/tuning"),
    quick: Annotated[bool, typer.Option("--quick", help="A look, not a measurement.")] = False,
) -> None:
    """Tune the digits bundle and compare it with 100 UNet calls."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    split = load_digits_split()
    bundle = out / "bundle"
    if not bundle.exists():
        shutil.copytree(demo_bundle(), bundle)
    settings, test = SETTINGS, labelled(split.test)
    if quick:
        settings = TuneSettings(
            calls=BUDGET,
            trials=4,
            images=32,
            whitebox_images=8,
            final_images=32,
            final_whitebox_images=8,
            finalists=2,
            eps=0.1,
            search_steps=2,
            search_eot=1,
            final_steps=2,
            final_eot=1,
        )
        test = test.take(10, TEST_SEED)
    networks = reference(load_classifier(), load_unet())

    def twin(precision: str) -> TorchReference:
        """The bundle is of one precision. Its networks as PyTorch code are faster than a twin made of its graphs."""
        assert precision == "fp32"
        return networks

    data = labelled(
        split.validation, Subset(split.train.pixels[:TRAINING_IMAGES], split.train.labels[:TRAINING_IMAGES])
    )
    timings: dict[str, float] = {}

    with Progress("tuning") as bar:
        tuning = tune(
            bundle,
            data,
            settings,
            twin=twin,
            provider=ProviderSettings(threads=1),
            work=out / "trials",
            on_progress=bar.update,
        )
    timings["tuning"] = tuning.facts["seconds"]  # those of interrupted runs included
    write_report(tuning, out / "tuning.html")

    start = perf_counter()
    with DeployedGraphs(bundle, threads=1) as meter, Progress("comparing") as bar:
        whitebox = WhiteBox(twin, ATTACK, STRENGTH, AttackSeeds(base=93, noise=ATTACKER_SEED, starts=(93,)))
        mask, baseline = stronger_paper_preset(meter, tuning, data, twin)
        named: dict[str, Candidate] = {}
        for name, point in tuning.chosen.items():
            same = next((n for n, c in named.items() if c.key == point.candidate.key), None)
            if same is not None:
                named[f"{same}, {name}"] = named.pop(same)
            else:
                named[name] = point.candidate
        named["the paper's 100 calls"] = baseline
        answers = [answer(name, candidate, meter, whitebox, test, bar) for name, candidate in named.items()]
    timings["comparison"] = perf_counter() - start
    write_results(out, tuning, whitebox, answers, mask, timings)
    for a in answers:
        console.print(f"{a.name:24} {a.calls:4} UNet calls   clean {share(a.clean)}   white-box {share(a.whitebox)}")
    console.print(f"written: {out}/tuning.html, tuning.json, tuning.md")


if __name__ == "__main__":
    typer.run(main)

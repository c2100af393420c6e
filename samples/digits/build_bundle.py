"""Export the digits models to a bundle with its presets, and make the data that ship with the package.

python samples/digits/build_bundle.py            # runtime/edgepure/demo/data: bundle and demo images
python samples/digits/build_bundle.py --out b    # only a bundle, in the folder b
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from data import DigitsSplit, Subset, load_digits_split
from models import WEIGHTS, DigitsClassifier, DigitsUNet, load_classifier, load_unet
from presets import DEFAULT, calibrate_digits, fixed_presets, ssni_presets
from rich.console import Console
from torch import nn

import edgepure
from edgepure import Bundle
from edgepure.bundle import SELFTEST_FILE, Calibration, Manifest, hash_files, update_manifest
from edgepure.files import atomic_directory, write_npz
from edgepure.images import LabelledImages
from edgepure.types import Progress
from edgepure_calibration.attacks import PGD
from edgepure_export import MaskModule, TorchReference, export_bundle
from edgepure_export.bundle import record_pipelines

PACKAGE_DATA = Path(__file__).resolve().parents[2] / "runtime" / "edgepure" / "demo" / "data"

#: The attack whose results travel with the package, and the test images it is shown on.
TRANSFER = PGD(eps=0.1, steps=40, seed=1)
PACKAGED_IMAGES, PACKAGED_SEED = 64, 20250301


def reference(classifier: DigitsClassifier, unet: DigitsUNet) -> TorchReference:
    """The PyTorch twin of the bundle. The network is small: its activations are kept, not computed again."""
    for model in (classifier, unet):
        model.requires_grad_(False)
    mask = MaskModule(classifier, DigitsClassifier.TAPS, (16, 16))
    schedule = edgepure.ScheduleSpec().build()
    return TorchReference(unet, schedule=schedule, classifier=classifier, mask_module=mask, checkpointing=False)


def build(out: Path, weights: Path = WEIGHTS, *, on_progress: Progress | None = None) -> Path:
    """Export the trained models to the bundle ``out`` (replaced if it is one).

    The noise level of the SSNI presets depends on score norms, which are measured with the exported graphs on the clean
    training images: so the graphs come first, and those presets are added to the finished bundle.
    """
    classifier, unet = load_classifier(weights), load_unet(weights)
    split = load_digits_split()
    report: Progress = on_progress or (lambda share, words: None)
    with atomic_directory(out, overwrite=True) as folder:
        made = export_bundle(
            classifier,
            unet,
            folder / "bundle",
            name="digits",
            image_size=16,
            channels=1,
            classes=[str(digit) for digit in range(10)],
            blocks=DigitsClassifier.TAPS,
            presets=fixed_presets(),
            default_preset=DEFAULT,
            sample_images=split.train.images[:16],
            classifier_source=_source(classifier, weights / "classifier.safetensors"),
            diffusion_source=_source(unet, weights / "unet.safetensors"),
            on_progress=lambda share, words: report(0.85 * share, words),
        )
        report(0.85, "measuring score norms")
        with edgepure.load(made, slots=64) as purifier:
            calibration = calibrate_digits(purifier, seen(split))
        report(0.97, "recording the SSNI presets")
        add_presets(made, ssni_presets(calibration), reference(classifier, unet), split.train, calibration)
        for file in made.iterdir():
            file.rename(folder / file.name)
        made.rmdir()
    report(1.0, "done")
    return out


def seen(split: DigitsSplit) -> LabelledImages:
    """The images that the networks were trained on."""
    images = np.concatenate([split.train.images, split.validation.images])
    labels = np.concatenate([split.train.labels, split.validation.labels])
    return LabelledImages(images, labels, tuple(str(i) for i in range(len(labels))))


def add_presets(
    bundle: Path,
    presets: Mapping[str, Any],
    twin: TorchReference,
    subset: Subset,
    calibration: Calibration,
) -> None:
    """Add presets to a bundle, with a purification of two images that PyTorch recorded for the self-test."""
    images = torch.from_numpy(subset.images[:2])
    with np.load(bundle / SELFTEST_FILE, allow_pickle=False) as recorded:
        vectors = dict(recorded)
    parsed = {name: edgepure.Preset.parse(preset) for name, preset in presets.items()}
    vectors.update(record_pipelines(twin, parsed, images))
    write_npz(bundle / SELFTEST_FILE, vectors)

    def change(manifest: Manifest) -> Manifest:
        added = {
            "presets": {**manifest.presets, **parsed},
            "calibration": calibration,
            "files": hash_files(bundle),
        }
        return manifest.model_copy(update=added)

    update_manifest(bundle, change)
    Bundle.open(bundle).selftest()


def package_images(out: Path, weights: Path = WEIGHTS) -> Path:
    """Write the demo images: test digits drawn at random, and what PGD on the plain classifier makes of them."""
    test = load_digits_split().test
    chosen = np.sort(np.random.RandomState(PACKAGED_SEED).permutation(len(test))[:PACKAGED_IMAGES])
    images, labels = test.images[chosen], test.labels[chosen]
    adversarial = TRANSFER(load_classifier(weights), torch.from_numpy(images), torch.from_numpy(labels))
    protocol = {
        "images": f"of the {len(test)} held-back test images, drawn at random",
        "attack": "PGD",
        "norm": "Linf",
        "eps": TRANSFER.eps,
        "steps": TRANSFER.steps,
        "step_size": TRANSFER.step,
        "random_start": True,
        "gradient": "exact, of the cross-entropy",
        "target": "the plain classifier",
        "seeds": {"attack": TRANSFER.seed, "subset": PACKAGED_SEED},
    }
    arrays = {
        "clean": images,
        "adversarial": adversarial.numpy(),
        "labels": labels,
        "index": chosen,
        "protocol": np.array(json.dumps(protocol)),
    }
    write_npz(out, arrays)
    return out


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _source(model: nn.Module, path: Path) -> str:
    """What the provenance says of a network: class, size, file and hash of its weights."""
    size = sum(p.numel() for p in model.parameters())
    return f"{type(model).__name__}, {size} parameters, {path.name} sha256 {sha256(path)}"


def main(
    out: Annotated[Path | None, typer.Option(help="Folder of the bundle. Default: the package's data.")] = None,
    weights: Annotated[Path, typer.Option(help="Folder with the two safetensors files.")] = WEIGHTS,
) -> None:
    """Export the digits models; without --out, renew the data that ship with the package."""
    console = Console()
    with console.status("starting") as status:
        bundle = build(out or PACKAGE_DATA / "digits", weights, on_progress=lambda share, words: status.update(words))
        if out is None:
            package_images(PACKAGE_DATA / "digits_images.npz", weights)
    manifest = Bundle.open(bundle).manifest
    size = sum(entry.bytes for entry in manifest.files.values())
    console.print(f"{bundle}: {len(manifest.presets)} presets, {size / 1e6:.1f} MB")
    for graph, difference in manifest.provenance.parity.items():
        console.print(f"  {graph}: largest difference to PyTorch {difference:.1e}")


if __name__ == "__main__":
    typer.run(main)

"""Export a classifier and the sample's UNet to a bundle with the presets of the trial.

    python -m samples.cifar10.build_bundle --out out/cifar10/bundle
    python -m samples.cifar10.build_bundle --out out/cifar10/resnet56 --classifier resnet56

The public ResNets are read from the folder in `CIFAR10_RESNETS`; see resnet.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from torch import nn

import edgepure
from edgepure import Bundle, load
from edgepure.bundle import SELFTEST_FILE, Manifest, hash_files, update_manifest
from edgepure.files import atomic_directory, write_npz
from edgepure.types import Progress
from edgepure_export import MaskModule, TorchReference, export_bundle
from edgepure_export.bundle import record_pipelines
from samples.cifar10.data import CLASSES, to_unit
from samples.cifar10.fetch import get
from samples.cifar10.models import WEIGHTS, CifarClassifier, load_classifier, load_unet
from samples.cifar10.presets import DEFAULT, PROBE, fixed_presets, ssni_presets
from samples.cifar10.resnet import FILES, CifarResNet, load_resnet

#: Clean training images whose score norms SSNI is given, and the seed of their noise.
NORM_IMAGES, SEED = 512, 11


def classifier_named(name: str, weights: Path = WEIGHTS) -> CifarClassifier | CifarResNet:
    """`ours`, `resnet20` or `resnet56`."""
    return load_classifier(weights) if name == "ours" else load_resnet(int(name.removeprefix("resnet")))


def twin(classifier: CifarClassifier | CifarResNet, unet: nn.Module) -> TorchReference:
    """The PyTorch twin. Written as code the networks are faster than a twin made of the bundle's graphs."""
    for model in (classifier, unet):
        model.requires_grad_(False).to(memory_format=torch.channels_last)  # convolutions are a quarter faster so
    mask = MaskModule(classifier, classifier.TAPS, (32, 32))
    schedule = edgepure.ScheduleSpec().build()
    return TorchReference(unet, schedule=schedule, classifier=classifier, mask_module=mask, checkpointing=False)


def build(
    out: Path,
    some: NDArray[np.float32],
    name: str = "ours",
    weights: Path = WEIGHTS,
    only: Sequence[str] | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Export to the bundle `out` (replaced if it is one).

    The SSNI presets depend on score norms, which are measured with the exported graphs on clean training images: so the
    graphs come first, and those presets are added to the finished bundle.

    Args:
        some: clean training images [N, 3, 32, 32] in [0, 1], `NORM_IMAGES` of them; the export is tried on a few.
        only: names of the presets, the default one among them, none with SSNI; None: all.
    """
    report: Progress = on_progress or (lambda share, words: None)
    classifier, unet = classifier_named(name, weights), load_unet(weights)
    file = f"{hash_of(weights / 'classifier.safetensors')}" if name == "ours" else FILES[int(name[6:])]
    with atomic_directory(out, overwrite=True) as folder:
        made = export_bundle(
            classifier,
            unet,
            folder / "bundle",
            name=f"cifar10-{name}",
            image_size=32,
            channels=3,
            classes=list(CLASSES),
            blocks=classifier.TAPS,
            presets={k: v for k, v in fixed_presets().items() if only is None or k in only},
            default_preset=DEFAULT,
            sample_images=some[:16],
            classifier_source=f"{type(classifier).__name__}, {size(classifier)} parameters, {file}",
            diffusion_source=f"CifarUNet, {size(unet)} parameters, {hash_of(weights / 'unet.safetensors')}",
            on_progress=lambda share, words: report(0.85 * share, words),
        )
        if only is None:
            report(0.85, "measuring score norms")
            with load(made, slots=64) as purifier:
                norms = purifier.score_norms(some, PROBE, noise=SEED)
            report(0.95, "recording the SSNI presets")
            statistics = (norms.mean(), norms.std(), *np.quantile(norms, (0.01, 0.99)))
            add_presets(made, ssni_presets(*map(float, statistics)), twin(classifier, unet), some[:2])
        for item in made.iterdir():
            item.rename(folder / item.name)
        made.rmdir()
    report(1.0, "done")
    return out


def add_presets(bundle: Path, presets: dict[str, dict[str, object]], reference: TorchReference, images: object) -> None:
    """Add presets to a bundle, with a purification of two images that PyTorch recorded for the self-test."""
    with np.load(bundle / SELFTEST_FILE, allow_pickle=False) as recorded:
        vectors = dict(recorded)
    parsed = {name: edgepure.Preset.parse(preset) for name, preset in presets.items()}
    vectors.update(record_pipelines(reference, parsed, torch.as_tensor(images)))
    write_npz(bundle / SELFTEST_FILE, vectors)

    def change(manifest: Manifest) -> Manifest:
        return manifest.model_copy(update={"presets": {**manifest.presets, **parsed}, "files": hash_files(bundle)})

    update_manifest(bundle, change)
    Bundle.open(bundle).selftest()


def size(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def hash_of(path: Path) -> str:
    """A file's name and SHA-256, for the provenance."""
    return f"{path.name} sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"


def main(
    out: Annotated[Path, typer.Option(help="Folder of the bundle")] = Path("out/cifar10/bundle"),
    classifier: Annotated[str, typer.Option(help="ours, resnet20 or resnet56")] = "ours",
    data: Annotated[Path | None, typer.Option(help="Your own copy of CIFAR-10")] = None,
    weights: Annotated[Path, typer.Option(help="Folder with the two safetensors files")] = WEIGHTS,
) -> None:
    """Export to a bundle."""
    stored = get(data, Path("out/cifar10/data"))
    some = to_unit(stored.train_images[:NORM_IMAGES])
    bundle = build(
        out, some, classifier, weights, on_progress=lambda share, words: print(f"{share:4.0%} {words}", flush=True)
    )
    manifest = Bundle.open(bundle).manifest
    print(f"{bundle}: {len(manifest.presets)} presets, {sum(e.bytes for e in manifest.files.values()) / 1e6:.1f} MB")
    for graph, difference in manifest.provenance.parity.items():
        print(f"  {graph}: largest difference to PyTorch {difference:.1e}")


if __name__ == "__main__":
    typer.run(main)

"""Turn the checkpoints of both trainings into the weights that ship: averaged, float16, safetensors.

    python -m samples.cifar10.ship --classifier RUN/checkpoint.pt --unet RUN/checkpoint.pt --out samples/cifar10/weights

Float16 halves the files. What it costs is printed: the classifier's answers and the UNet's output before and after.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from safetensors.torch import save_file

from samples.cifar10.data import load_cifar10, to_unit
from samples.cifar10.models import WEIGHTS, CifarClassifier, CifarUNet, load_classifier, load_unet
from samples.cifar10.training import load_checkpoint


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights in float16; counters are left out of it."""
    return {k: v.half().contiguous() if v.is_floating_point() else v.contiguous() for k, v in state.items()}


@torch.no_grad()
def renew_statistics(model: CifarClassifier, images: torch.Tensor, size: int = 500) -> None:
    """Measure the batch norms again: averaged weights have other activations than the average of activations."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches
    model.train()
    for start in range(0, len(images), size):
        model(images[start : start + size])
    model.eval()


def main(
    classifier: Annotated[Path | None, typer.Option(help="Checkpoint of train_classifier")] = None,
    unet: Annotated[Path | None, typer.Option(help="Checkpoint of train_unet")] = None,
    data: Annotated[Path, typer.Option(help="CIFAR-10")] = Path("out/cifar10/data/cifar10.npz"),
    out: Annotated[Path, typer.Option()] = WEIGHTS,
    images: Annotated[int, typer.Option(help="Test images of the comparison")] = 10_000,
    keep_statistics: Annotated[
        bool, typer.Option(help="leave the batch norms as trained: for a classifier that sees restored images alone")
    ] = False,
    threads: Annotated[int, typer.Option()] = 1,
) -> None:
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    stored = load_cifar10(data)
    x = torch.from_numpy(to_unit(stored.test_images[:images]))
    y = torch.from_numpy(stored.test_labels[:images])
    with torch.no_grad():
        if classifier is not None:
            content = load_checkpoint(classifier)
            assert content is not None, f"there is no {classifier}"
            model = CifarClassifier()
            model.load_state_dict(content["ema"])
            model.eval()
            if not keep_statistics:
                renew_statistics(model, torch.from_numpy(to_unit(stored.train_images[:10_000])))
            save_file(half(model.state_dict()), out / "classifier.safetensors")
            shipped = load_classifier(out)
            answers = [
                torch.cat([m(x[i : i + 500]).argmax(1) for i in range(0, len(x), 500)]) for m in (model, shipped)
            ]
            epochs = content["step"] * content["batch"] / 50_000
            print(f"classifier: {content['step']} steps, {epochs:.2f} epochs, {content['spent'] / 60:.1f} minutes")
            print(f"  test accuracy {[float((a == y).double().mean()) for a in answers]} (float32, float16)")
            print(f"  {int((answers[0] != answers[1]).sum())} of {len(y)} answers differ")
        if unet is not None:
            content = load_checkpoint(unet)
            assert content is not None, f"there is no {unet}"
            network = CifarUNet()
            network.load_state_dict(content["ema"])
            network.eval()
            save_file(half(network.state_dict()), out / "unet.safetensors")
            noisy, t = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.full((64,), 100.0)
            difference = (network(noisy, t) - load_unet(out)(noisy, t)).abs().max()
            epochs = content["step"] * content["batch"] / 50_000
            print(f"UNet: {content['step']} steps, {epochs:.2f} epochs, {content['spent'] / 60:.1f} minutes")
            print(f"  largest difference of its output by float16: {float(difference):.1e}")
    size = sum(p.stat().st_size for p in out.glob("*.safetensors"))
    print(f"{out}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(main)

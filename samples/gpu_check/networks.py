"""The networks that are measured, with random weights (speed does not depend on them), and bundles made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from benchmarks.ddpm_unet import DdpmUnet, PooledClassifier
from edgepure.bundle.bundle import Bundle, hash_files, write_manifest
from edgepure.bundle.entries import Provenance
from edgepure.bundle.manifest import Manifest
from edgepure.bundle.names import SELFTEST_FILE
from edgepure.files.atomic import write_npz
from edgepure.files.folders import atomic_directory
from edgepure.images.spec import ImageSpec
from edgepure.machine.packages import package_version
from edgepure.methods.presets import Preset
from edgepure.rows.schedule import NoiseSchedule
from edgepure_export.bundle.after_export import run_module
from edgepure_export.bundle.cases import Cases
from edgepure_export.bundle.graph_files import bundle_parts, export_parts, graph_entry
from edgepure_export.graphs.to_onnx import OPSET, evaluating
from edgepure_export.sources.resolve import resolve_diffusion

from .context import CannotRunError

#: What is timed as a purification: every row draws noise, which is the dearest case for the loop.
PRESET = {"method": {"method": "uniform", "t_star": 100, "steps": 10, "sampler": "ddim", "eta": 1.0}}


@dataclass(frozen=True)
class Network:
    """One diffusion network.

    Attributes:
        title: for the report.
        shape: of an image, (C, H, W).
        build: makes it, on the CPU, in eval mode: ``network(x [B, C, H, W], t [B])``.
    """

    title: str
    shape: tuple[int, int, int]
    build: Callable[[], nn.Module]


def _source(text: str) -> Callable[[], nn.Module]:
    return lambda: resolve_diffusion(text).model


def _ddpm() -> nn.Module:
    torch.manual_seed(0)
    try:
        return DdpmUnet().eval()
    except ImportError as error:
        raise CannotRunError(f"{error.name} is not installed: pip install edgepure[models]") from error


NETWORKS = {
    "ddpm": Network("CIFAR-10 DDPM, 35.7 M parameters", (3, 32, 32), _ddpm),
    "ddpmpp": Network(
        "CIFAR-10 DDPM++ deep, 106.6 M parameters",
        (3, 32, 32),
        _source("score-sde:cifar10-ddpmpp-deep-continuous?weights=random"),
    ),
    "adm256": Network(
        "ImageNet 256x256 (guided-diffusion), 552.8 M parameters",
        (3, 256, 256),
        _source("guided-diffusion:imagenet256-uncond?weights=random"),
    ),
}


def make_bundle(
    unet: nn.Module,
    shape: Sequence[int],
    out: Path,
    device: str,
    presets: Mapping[str, Mapping[str, Any]] | None = None,
    learned: bool = False,
) -> Path:
    """A bundle of a network, for measurements: what is there already is used again.

    Its self-test vectors are computed by PyTorch on ``device``, in fp32 and without TF32; parity with PyTorch on the
    CPU, on which `export_bundle` insists, is left out because of its time.
    """
    if (out / "bundle.json").is_file():
        return out
    device = torch_device(device)
    image = ImageSpec(channels=shape[0], height=shape[1], width=shape[2])
    schedule = NoiseSchedule.linear()
    parsed = {name: Preset.parse(dict(data)) for name, data in (presets or {"timed": PRESET}).items()}
    classifier = PooledClassifier(channels=image.channels).eval()
    with atomic_directory(out) as folder, evaluating(classifier, unet):
        cases = Cases(image, schedule, parsed)
        parts = bundle_parts(classifier, unet, None, learned)
        graphs = export_parts(parts, cases, folder, 10, OPSET, lambda what, share: None)
        vectors: dict[str, Any] = {}
        for part in parts:
            case = part.select(cases.of(part.name)[0])
            with exact(device):
                moved = {key: tensor.to(device) for key, tensor in case.items()}
                found = run_module(part.module.to(device), moved, part.outputs)
                part.module.to("cpu")
            vectors |= {f"{part.name}/in/{key}": tensor.numpy() for key, tensor in case.items()}
            vectors |= {f"{part.name}/out/{key}": value for key, value in found.items()}
        write_npz(folder / SELFTEST_FILE, vectors)
        manifest = Manifest.from_data(
            {
                "name": out.name,
                "image": image,
                "classes": tuple(str(n) for n in range(10)),
                "schedule": schedule.spec,
                "graphs": {key: graph_entry(graph) for key, graph in graphs.items()},
                "attention": None,
                "learned_variance": learned,
                "presets": parsed,
                "default_preset": next(iter(parsed)),
                "provenance": Provenance(
                    created=date.today(),
                    edgepure_version=package_version("edgepure") or "unknown",
                    torch_version=str(torch.__version__),
                    onnx_version=str(onnx.__version__),
                    classifier="stand-in",
                    diffusion=type(unet).__name__,
                ),
                "files": hash_files(folder),
            }
        )
        write_manifest(folder, manifest)
        Bundle.open(folder).selftest()
    return out


def torch_device(device: str) -> str:
    """Where PyTorch can compute: ``cpu`` if its build or the driver does not give it the GPU."""
    return "cuda" if device == "cuda" and torch.cuda.is_available() else "cpu"


def need_torch(device: str) -> None:
    """Raises CannotRunError if PyTorch cannot compute on the device."""
    if torch_device(device) != device:
        raise CannotRunError(f"PyTorch {torch.__version__} cannot use this GPU (torch.cuda.is_available() is False)")


@contextmanager
def exact(device: str) -> Iterator[None]:
    """fp32 that is fp32: no TF32 in PyTorch's matrix products and convolutions on a GPU."""
    if device != "cuda":
        yield
        return
    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    matmul.allow_tf32 = convolution.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before

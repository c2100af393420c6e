"""``edgepure export``: from PyTorch networks to a bundle."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError
from .guard import guard
from .options import DebugOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from types import ModuleType

    from ..presets import Preset

#: Images of --images that are used at most.
MOST_SAMPLES = 64


@guard
def export(
    classifier: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="python:package.module:function or python:file.py:function that gives the "
                     "classifier, images in [0, 1] -> logits. Its code is run.", show_default=False),
    ],
    diffusion: Annotated[
        str,
        typer.Option(metavar="SOURCE", help="The same for the epsilon-model, (x, t) -> epsilon.", show_default=False),
    ],
    image: Annotated[str, typer.Option(metavar="CxHxW", help="Image size, for example 3x32x32.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The bundle to write.", show_default=False)],
    blocks: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Blocks of the classifier whose activations make the attention mask. "
                     "Default: no mask graph, so only methods without a mask.", show_default=False),
    ] = None,
    presets: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Presets by name. Default: uniform noise with 10 DDIM calls and, "
                     "with --blocks, the heterogeneous method.", show_default=False),
    ] = None,
    default_preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: the first preset.", show_default=False)
    ] = None,
    classifier_weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Weights of the classifier.", show_default=False)
    ] = None,
    diffusion_weights: Annotated[
        Path | None, typer.Option(metavar="FILE.safetensors", help="Weights of the UNet.", show_default=False)
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(metavar="A,B,...|FILE", help="Class names, or a text file with one in a line. Default: numbers.",
                     show_default=False),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(metavar="KIND|FILE.json", help="Noise schedule of the training: linear, scaled_linear, cosine, "
                     "vp_sde, or a JSON file. Default: linear.", show_default=False),
    ] = None,
    sample_images: Annotated[
        Path | None,
        typer.Option("--images", metavar="FILE.npy|DIR", help="Real images for the parity check and the self-test. "
                     "Default: random ones only.", show_default=False),
    ] = None,
    any_network: Annotated[
        bool,
        typer.Option("--any-network", help="Export even if the UNet does not predict noise as noise (untrained "
                     "networks, to measure speed)."),
    ] = False,
    threads: ThreadsOption = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the bundle. Default: that of its folder.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Export a classifier and a diffusion model to a bundle. Needs PyTorch: pip install edgepure[export].

    Parity with PyTorch is measured graph by graph; above its tolerance the export fails and nothing is written.

    Examples:

    \b
      edgepure export --classifier python:samples/digits/models.py:load_classifier \\
          --diffusion python:samples/digits/models.py:load_unet --image 1x16x16 \\
          --blocks stem,block1,block2,block3 --out digits
    """
    from .output import emit_json, say, size, table
    from .plan import parse_image_size, parse_schedule
    from .progress import Progress

    shape = parse_image_size(image)
    options: dict[str, Any] = {
        "image_size": shape[1:],
        "channels": shape[0],
        "schedule": parse_schedule(schedule) if schedule is not None else None,
        "blocks": _names(blocks),
        "classes": _class_names(classes),
        "presets": _read_presets(presets),
        "default_preset": default_preset,
        "sample_images": _read_images(sample_images, shape),
        "check_epsilon": not any_network,
        "name": name,
        "threads": threads,
        "overwrite": overwrite,
    }
    # whatever PyTorch prints must not end up between the results
    with Progress("importing PyTorch") as bar, redirect_stdout(sys.stderr):
        sources, writer = _import_exporter()
        bar.update(0.0, "loading the networks")
        source = sources.resolve_classifier(classifier, classifier_weights)
        model = sources.resolve_diffusion(diffusion, diffusion_weights)
        options["classes"] = options["classes"] or source.classes
        options["schedule"] = options["schedule"] or model.schedule
        writer.export_bundle(
            source.model,
            model.model,
            out,
            **options,
            classifier_source=source.origin,
            diffusion_source=model.origin,
            on_progress=lambda stage, share: bar.update(share, stage),
        )
    from ..bundle import Bundle

    manifest = Bundle.open(out, verify=False).manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    parity = dict(sorted(manifest.provenance.parity.items()))
    if as_json:
        emit_json(
            {
                "bundle": str(out), "name": manifest.name, "bytes": total, "parity": parity,
                "presets": sorted(manifest.presets), "default_preset": manifest.default_preset,
            }
        )  # fmt: skip
        return
    say(f"{out}: {len(manifest.files)} files, {size(total)}, presets {', '.join(sorted(manifest.presets))}")
    table(("graph", "largest difference to PyTorch"), ((k, f"{v:.1e}") for k, v in parity.items()))
    say(f"\nnext: edgepure verify {out}")


def _import_exporter() -> tuple[ModuleType, ModuleType]:
    """edgepure_export's sources and bundle writer, or one sentence about what is not installed."""
    from ..errors import ExportError

    try:
        return import_module("edgepure_export.sources"), import_module("edgepure_export.bundle_writer")
    except ImportError as error:
        raise ExportError(
            f"export needs PyTorch and ONNX, and {error.name or error} cannot be imported; install them with "
            "`pip install edgepure[export]`"
        ) from error


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ConfigError(f"{text!r}: expected names separated by commas")
    return names


def _class_names(text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, or the lines of a text file."""
    if text is None or not Path(text).is_file():
        return _names(text)
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"class names {text} cannot be read: {error}") from None
    return tuple(line.strip() for line in lines if line.strip())


def _read_presets(path: Path | None) -> dict[str, Preset] | None:
    from .presets import parse_preset, read_json

    if path is None:
        return None
    data = read_json(path, "presets")
    if not isinstance(data, dict) or not data:
        raise ConfigError(f"presets file {path}: expected an object with a preset under each name")
    return {name: parse_preset(preset, f"presets file {path}, preset {name!r}") for name, preset in data.items()}


def _read_images(path: Path | None, shape: tuple[int, int, int]) -> Any:
    if path is None:
        return None
    from ..images import load_images
    from ..manifest import ImageSpec
    from .batches import find_sources

    items = [source.item for source in find_sources([path])[:MOST_SAMPLES]]
    return load_images(items, ImageSpec(channels=shape[0], height=shape[1], width=shape[2])).images

"""``edgepure export``: from PyTorch networks to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .guard import guard
from .options import DebugOption, JsonOption

if TYPE_CHECKING:
    pass


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
        typer.Option(metavar="FILE.json", help="Presets by name. Default: DiffPure's and, with --blocks, the "
                     "heterogeneous method's published settings.", show_default=False),
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
    from ..errors import ConfigError
    from .plan import parse_image_size, parse_schedule

    shape = parse_image_size(image)
    spec = parse_schedule(schedule)
    chosen = _presets(presets, masked=blocks is not None)
    if default_preset is not None and default_preset not in chosen:
        raise ConfigError(f"--default-preset {default_preset!r} is not among the presets ({', '.join(chosen)})")
    raise NotImplementedError((shape, spec))


def _presets(path: Path | None, *, masked: bool) -> dict[str, Any]: ...

"""``edgepure export``: from PyTorch networks to a bundle."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from edgepure.cli.options import DebugOption, JsonOption, ThreadsOption, given
from edgepure.errors import ConfigError, ExportError
from edgepure.machine.packages import needs

from .arguments import (
    class_names,
    mask_input_of,
    names_of,
    numbers,
    pairs,
    published_presets,
    read_images,
    read_presets,
)


def export(
    diffusion: Annotated[
        str,
        given(
            "SOURCE",
            "guided-diffusion:FILE, score-sde:FILE, edm:FILE, diffusers:DIR-or-NAME, or python:..., (x, t) -> epsilon.",
        ),
    ],
    out: Annotated[Path, given("DIR", "The bundle to write.", "--out", "-o")],
    classifier: Annotated[
        str | None,
        given(
            "SOURCE",
            "timm:NAME, torchvision:NAME, transformers:DIR-or-NAME, robustbench-wrn:FILE, or "
            "python:package.module:function and python:file.py:function, whose code is run. Options follow a question "
            "mark: timm:resnet50?weights=FILE&resize=crop. Without one the bundle purifies, and gives no labels.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        given(
            "SOURCE",
            "In place of a classifier: a network, named likewise, whose blocks make the attention mask: a detector's, "
            "a segmenter's. What it gives is not used.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        given(
            "CxHxW",
            "Image size, for example 3x32x32. Default: what the diffusion model was trained on, where its source "
            "knows it.",
        ),
    ] = None,
    task: Annotated[
        tuple[str, str] | None,
        given(
            "KIND SOURCE",
            "In place of a classifier: what is done with purified images. detection, segmentation or embedding (or "
            "classification), and your network: an ONNX file (MODEL.onnx), or a source as above.",
        ),
    ] = None,
    task_output: Annotated[
        list[str] | None,
        given(
            "ROLE=NAME",
            "Where the task's network has an output that is called otherwise, or its position: boxes, scores, labels; "
            "logits; vector. May be given several times.",
        ),
    ] = None,
    task_set: Annotated[
        list[str] | None,
        given(
            "KEY=VALUE",
            "Of a detector: score (least score of a detection, 0.25), overlap (largest IoU of two of a class, 0.5), "
            "most (detections of an image, 100).",
        ),
    ] = None,
    task_frame: Annotated[
        str | None,
        given(
            "WIDTHxHEIGHT",
            "Size of the images that the task's network takes, where it is larger than that of the diffusion model: "
            "frames, which are purified by tiles.",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        given(
            "A,B,...|none",
            "Blocks of the classifier, the backbone or the task's network whose activations make the attention mask; "
            "none: no mask graph. Default: those of its family, where that is known.",
        ),
    ] = None,
    mask_input: Annotated[
        str | None,
        given(
            "own|official",
            "What the tapped classifier sees; official: the normalisation oddity of the authors' code. "
            "Default: what the published presets say, else own.",
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        given(
            "NAME",
            "A preset with published settings (`edgepure presets` lists them). May be given several times; the "
            "first one becomes the default.",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        given(
            "KEY=VALUE", "Change a parameter of --preset, or give the statistics that it needs: ssni.mu=40.", "--set"
        ),
    ] = None,
    presets: Annotated[
        Path | None,
        given(
            "FILE.json",
            "Presets of your own by name. Default without any preset: uniform noise with 10 DDIM calls and, "
            "with a mask graph, the heterogeneous method.",
        ),
    ] = None,
    default_preset: Annotated[str | None, given("NAME", "Default: the first preset.")] = None,
    classifier_weights: Annotated[Path | None, given("FILE", "Weights of the classifier (.safetensors, .pt).")] = None,
    diffusion_weights: Annotated[Path | None, given("FILE", "Weights of the UNet, likewise.")] = None,
    classes: Annotated[
        str | None, given("A,B,...|FILE", "Class names, or a text file with one in a line. Default: numbers.")
    ] = None,
    schedule: Annotated[
        str | None,
        given(
            "KIND|FILE.json",
            "Noise schedule of the training: linear, scaled_linear, cosine, vp_sde, or a JSON file. Default: linear.",
        ),
    ] = None,
    sample_images: Annotated[
        Path | None,
        given(
            "FILE.npy|DIR", "Real images for the parity check and the self-test. Default: random ones only.", "--images"
        ),
    ] = None,
    any_network: Annotated[
        bool,
        typer.Option(
            "--any-network",
            help="Export even if the UNet does not predict noise as noise (untrained networks, to measure speed).",
        ),
    ] = False,
    any_size: Annotated[
        bool,
        typer.Option(
            "--any-size",
            help="Add a graph for whole frames of any height and width (fully convolutional networks, and attention "
            "that knows no size).",
        ),
    ] = False,
    threads: ThreadsOption = None,
    name: Annotated[str | None, given("TEXT", "Name of the bundle. Default: that of its folder.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is already there.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Export a classifier and a diffusion model to a bundle. Needs PyTorch: pip install edgepure[export,models].

    Parity with PyTorch is measured graph by graph; above its tolerance the export fails and nothing is written.
    ?weights=random (with guided-diffusion:imagenet256-uncond, timm:resnet50, ...) makes untrained networks of the true
    architecture, to measure speed.

    Examples:

    \b
      edgepure export --classifier robustbench-wrn:Standard.pt --diffusion score-sde:checkpoint_8.pth \\
          --preset cifar10-dhni-official --preset cifar10-edge-10 --out cifar10
      edgepure export --classifier torchvision:resnet50?weights=IMAGENET1K_V1 \\
          --diffusion guided-diffusion:256x256_diffusion_uncond.pt --preset imagenet-edge-10 --out imagenet
      edgepure export --classifier python:models.py:load_classifier --diffusion python:models.py:load_unet \\
          --image 1x16x16 --blocks stem,block1 --out own
      edgepure export --diffusion python:models.py:load_unet --image 1x16x16 --out unlabelled
      edgepure export --task segmentation SOURCE --task-output logits=out --classes background,digit \\
          --diffusion python:models.py:load_unet --image 1x16x16 --out segmenter
    """
    from edgepure.cli.frame_cost import parse_frame
    from edgepure.cli.output import emit_json, say, size, table
    from edgepure.cli.plan import parse_image_size, parse_schedule
    from edgepure.cli.progress import Progress

    shape = parse_image_size(image) if image is not None else None
    spec = parse_schedule(schedule) if schedule is not None else None
    if task is None and (task_output or task_set or task_frame):
        raise ConfigError(
            "--task-output, --task-set and --task-frame describe a task; give it with --task", code="E-option"
        )
    frame = None if task_frame is None else parse_frame(task_frame, "--task-frame")
    names = class_names(classes)
    chosen = {**published_presets(preset or [], change or []), **(read_presets(presets) or {})}
    seen = mask_input_of(mask_input, preset or [])
    folder = sample_images
    # whatever PyTorch prints must not end up between the results
    with Progress("importing PyTorch") as bar, redirect_stdout(sys.stderr):
        with needs("export needs PyTorch and ONNX", "export", ExportError):
            exporter = import_module("edgepure_export.bundle.from_sources")
        done = exporter.export_from_sources(
            classifier,
            diffusion,
            out,
            presets=chosen or None,
            backbone=backbone,
            task=None if task is None else exporter.TaskSource(*task, pairs(task_output), numbers(task_set), frame),
            blocks=names_of(blocks) if blocks not in (None, "none") else blocks or "auto",
            mask_input=seen,
            image=shape,
            schedule=spec,
            classifier_weights=classifier_weights,
            diffusion_weights=diffusion_weights,
            classes=names,
            default_preset=default_preset,
            sample_images=None if folder is None else lambda image: read_images(folder, image),
            check_epsilon=not any_network,
            any_size=any_size,
            name=name,
            threads=threads,
            overwrite=overwrite,
            on_progress=bar.update,
        )
    from edgepure.bundle.bundle import Bundle

    manifest = Bundle.open(out, verify=False).manifest
    total = sum(entry.bytes for entry in manifest.files.values())
    parity = dict(sorted(manifest.provenance.parity.items()))
    tapped = list(manifest.attention.blocks) if manifest.attention is not None else []
    if as_json:
        emit_json(
            {
                "bundle": str(out),
                "name": manifest.name,
                "bytes": total,
                "parity": parity,
                "blocks": tapped,
                "presets": sorted(manifest.presets),
                "default_preset": manifest.default_preset,
            }
        )
        return
    say(f"{out}: {len(manifest.files)} files, {size(total)}, presets {', '.join(sorted(manifest.presets))}")
    if tapped:
        say(f"attention mask from the blocks {', '.join(tapped)}")
    else:
        named = [name for name in done.candidates if name != "network"][:12]
        say(
            "no attention mask, so methods that need one (heterogeneous) are not in this bundle"
            + (f": name blocks with --blocks, of {', '.join(named)}" if named else "")
        )
    table(("graph", "largest difference to PyTorch"), ((k, f"{v:.1e}") for k, v in parity.items()))
    say(f"\nnext: edgepure verify {out}")

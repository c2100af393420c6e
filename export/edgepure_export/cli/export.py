"""``edgepure export``: from PyTorch networks to a bundle."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepure.cli.options import DebugOption, JsonOption, ThreadsOption
from edgepure.errors import ConfigError, ExportError
from edgepure.machine.packages import needs

if TYPE_CHECKING:
    from edgepure.methods.presets import Preset

#: Images of --images that are used at most.
MOST_SAMPLES = 64


def _given(metavar: str, help_text: str, *names: str) -> Any:
    """An option without a default that would be worth showing."""
    return typer.Option(*names, metavar=metavar, help=help_text, show_default=False)


def export(
    diffusion: Annotated[
        str,
        _given(
            "SOURCE",
            "guided-diffusion:FILE, score-sde:FILE, edm:FILE, diffusers:DIR-or-NAME, or python:..., (x, t) -> epsilon.",
        ),
    ],
    out: Annotated[Path, _given("DIR", "The bundle to write.", "--out", "-o")],
    classifier: Annotated[
        str | None,
        _given(
            "SOURCE",
            "timm:NAME, torchvision:NAME, transformers:DIR-or-NAME, robustbench-wrn:FILE, or "
            "python:package.module:function and python:file.py:function, whose code is run. Options follow a question "
            "mark: timm:resnet50?weights=FILE&resize=crop. Without one the bundle purifies, and gives no labels.",
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        _given(
            "SOURCE",
            "In place of a classifier: a network, named likewise, whose blocks make the attention mask: a detector's, "
            "a segmenter's. What it gives is not used.",
        ),
    ] = None,
    image: Annotated[
        str | None,
        _given(
            "CxHxW",
            "Image size, for example 3x32x32. Default: what the diffusion model was trained on, where its source "
            "knows it.",
        ),
    ] = None,
    task: Annotated[
        tuple[str, str] | None,
        _given(
            "KIND SOURCE",
            "In place of a classifier: what is done with purified images. detection, segmentation or embedding (or "
            "classification), and your network: an ONNX file (MODEL.onnx), or a source as above.",
        ),
    ] = None,
    task_output: Annotated[
        list[str] | None,
        _given(
            "ROLE=NAME",
            "Where the task's network has an output that is called otherwise, or its position: boxes, scores, labels; "
            "logits; vector. May be given several times.",
        ),
    ] = None,
    task_set: Annotated[
        list[str] | None,
        _given(
            "KEY=VALUE",
            "Of a detector: score (least score of a detection, 0.25), overlap (largest IoU of two of a class, 0.5), "
            "most (detections of an image, 100).",
        ),
    ] = None,
    task_frame: Annotated[
        str | None,
        _given(
            "WIDTHxHEIGHT",
            "Size of the images that the task's network takes, where it is larger than that of the diffusion model: "
            "frames, which are purified by tiles.",
        ),
    ] = None,
    blocks: Annotated[
        str | None,
        _given(
            "A,B,...|none",
            "Blocks of the classifier, the backbone or the task's network whose activations make the attention mask; "
            "none: no mask graph. Default: those of its family, where that is known.",
        ),
    ] = None,
    mask_input: Annotated[
        str | None,
        _given(
            "own|official",
            "What the tapped classifier sees; official: the normalisation oddity of the authors' code. "
            "Default: what the published presets say, else own.",
        ),
    ] = None,
    preset: Annotated[
        list[str] | None,
        _given(
            "NAME",
            "A preset with published settings (`edgepure presets` lists them). May be given several times; the "
            "first one becomes the default.",
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        _given(
            "KEY=VALUE", "Change a parameter of --preset, or give the statistics that it needs: ssni.mu=40.", "--set"
        ),
    ] = None,
    presets: Annotated[
        Path | None,
        _given(
            "FILE.json",
            "Presets of your own by name. Default without any preset: uniform noise with 10 DDIM calls and, "
            "with a mask graph, the heterogeneous method.",
        ),
    ] = None,
    default_preset: Annotated[str | None, _given("NAME", "Default: the first preset.")] = None,
    classifier_weights: Annotated[Path | None, _given("FILE", "Weights of the classifier (.safetensors, .pt).")] = None,
    diffusion_weights: Annotated[Path | None, _given("FILE", "Weights of the UNet, likewise.")] = None,
    classes: Annotated[
        str | None, _given("A,B,...|FILE", "Class names, or a text file with one in a line. Default: numbers.")
    ] = None,
    schedule: Annotated[
        str | None,
        _given(
            "KIND|FILE.json",
            "Noise schedule of the training: linear, scaled_linear, cosine, vp_sde, or a JSON file. Default: linear.",
        ),
    ] = None,
    sample_images: Annotated[
        Path | None,
        _given(
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
    name: Annotated[str | None, _given("TEXT", "Name of the bundle. Default: that of its folder.")] = None,
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
    names = _class_names(classes)
    chosen = {**_published_presets(preset or [], change or []), **(_read_presets(presets) or {})}
    seen = _mask_input(mask_input, preset or [])
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
            task=None if task is None else exporter.TaskSource(*task, _pairs(task_output), _numbers(task_set), frame),
            blocks=_names(blocks) if blocks not in (None, "none") else blocks or "auto",
            mask_input=seen,
            image=shape,
            schedule=spec,
            classifier_weights=classifier_weights,
            diffusion_weights=diffusion_weights,
            classes=names,
            default_preset=default_preset,
            sample_images=None if folder is None else lambda image: _read_images(folder, image),
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


def _pairs(texts: list[str] | None, option: str = "--task-output") -> dict[str, str]:
    pairs = [text.partition("=")[::2] for text in texts or ()]
    for text, (key, value) in zip(texts or (), pairs, strict=True):
        if not key or not value:
            raise ConfigError(f"{option} {text!r}: expected KEY=VALUE", code="E-option")
    return dict(pairs)


def _numbers(texts: list[str] | None) -> dict[str, float]:
    try:
        return {key: float(value) for key, value in _pairs(texts, "--task-set").items()}
    except ValueError as error:
        raise ConfigError(f"--task-set: expected a number ({error})", code="E-option") from None


def _published_presets(names: list[str], changes: list[str]) -> dict[str, Preset]:
    """Published presets with --set: statistics go to every preset that needs them, other changes to a single one."""
    from edgepure.cli.presets import apply_changes, parse_preset
    from edgepure.methods.published import STATISTICS, choose, published_preset

    if changes and not names:
        raise ConfigError("--set changes a preset with published settings; name one with --preset", code="E-set-preset")
    known = {f"ssni.{name}" for group in STATISTICS.values() for name in group}
    statistics, others = {}, []
    for change in changes:
        key, _, text = change.partition("=")
        if key not in known:
            others.append(change)
            continue
        try:
            statistics[key.removeprefix("ssni.")] = float(text)
        except ValueError:
            raise ConfigError(f"--set {change!r}: expected a number", code="E-set-number") from None
    presets = choose(names, statistics)
    if not others:
        return presets
    if len(names) != 1:
        raise ConfigError(
            f"--set {others[0]!r} and {len(names)} presets: which one is meant? Give one", code="E-set-presets"
        )
    name = names[0]
    return {name: parse_preset(apply_changes(published_preset(name).data(statistics), others), f"preset {name!r}")}


def _mask_input(given: str | None, names: list[str]) -> str:
    from edgepure.methods.published import mask_input

    if given not in (None, "own", "official"):
        raise ConfigError(f"--mask-input {given!r} is unknown; choose own or official", code="E-mask-input-option")
    return given or mask_input(names)


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise ConfigError(f"{text!r}: expected names separated by commas", code="E-option")
    return names


def _class_names(text: str | None) -> tuple[str, ...] | None:
    """Names separated by commas, or the lines of a text file."""
    if text is None or not Path(text).is_file():
        return _names(text)
    try:
        lines = Path(text).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"class names {text} cannot be read: {error}; "
            "give a text file with one name a line, or the names with commas",
            code="E-classes-file",
        ) from None
    return tuple(line.strip() for line in lines if line.strip())


def _read_presets(path: Path | None) -> dict[str, Preset] | None:
    from edgepure.cli.presets import parse_preset, read_json

    if path is None:
        return None
    data = read_json(path, "presets")
    if not isinstance(data, dict) or not data:
        raise ConfigError(
            f"presets file {path}: expected an object with a preset under each name", code="E-presets-file"
        )
    return {name: parse_preset(preset, f"presets file {path}, preset {name!r}") for name, preset in data.items()}


def _read_images(path: Path | None, shape: tuple[int, int, int]) -> Any:
    if path is None:
        return None
    from edgepure.cli.sources import find_sources
    from edgepure.images.load import load_images
    from edgepure.images.spec import ImageSpec

    items = [source.item for source in find_sources([path])[:MOST_SAMPLES]]
    return load_images(items, ImageSpec(channels=shape[0], height=shape[1], width=shape[2])).images

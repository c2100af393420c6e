"""``edgepure purify``: images in, purified images out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import ConfigError, EdgepureError
from ..files.folders import real_path
from .groups import grouped
from .options import (
    BundleArgument,
    ImagesArgument,
    MaskOption,
    PresetOptions,
    RayOptions,
    ReadOptions,
    ShownOptions,
    SlotOptions,
    given,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..purify.frames import Pad
    from ..purify.results import FrameResult, Purified
    from .sources import Source


@grouped
def purify(
    bundle: BundleArgument,
    images: ImagesArgument,
    *,
    output: Annotated[
        Path, given("DIR|FILE.png", "Folder for the purified images, or one PNG file.", "--output", "-o")
    ],
    chosen: PresetOptions,
    mask: MaskOption = None,
    mask_out: Annotated[Path | None, given("DIR", "Write the masks there (white: strong noise).", "--mask-out")] = None,
    tile: Annotated[
        bool,
        typer.Option(
            "--tile",
            help="Purify frames of any size by overlapping tiles, and write them at their own size; "
            "--set tiles.overlap=0.5 and others say how.",
        ),
    ] = False,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="With --tile: run the network on the whole frame instead, where the bundle has a graph of any size.",
        ),
    ] = False,
    size: Annotated[
        str | None,
        given(
            "N|WxH", "With --tile: resize frames before, to a shorter side of N pixels (their shape stays) or to W x H."
        ),
    ] = None,
    pad: Annotated[
        str,
        given("reflect|black", "With --tile: mirror, or put black around, what is smaller than the network's images."),
    ] = "no",
    read: ReadOptions,
    engine: SlotOptions,
    ray: RayOptions,
    shown: ShownOptions,
) -> None:
    """Purify images once each and write them as PNG.

    Good images are done even if others cannot be read; those are listed and the exit code is 4. Every file appears
    whole or not at all.

    Examples:

    \b
      edgepure purify digits attacked.png -o clean.png
      edgepure purify digits photos/ extra.npy -o purified/ --preset heterogeneous --mask-out masks/
      edgepure purify digits photos/ -o again/ --preset heterogeneous --mask masks/
      edgepure purify digits street.png -o street-purified.png --tile --set tiles.overlap=0.5
    """
    from ..bundle.bundle import Bundle
    from ..images.save import save_image
    from .frames import check_frame_options, parse_size, run_frames
    from .output import table
    from .session import Session
    from .sources import check_ray, find_sources

    check_frame_options(tile, read.resize, size, pad, whole)
    check_ray(ray, {"--tile": tile, "--mask": mask is not None})
    target_size = parse_size(size)
    sources = find_sources(images, Bundle.open(bundle, verify=False).manifest.image, read.resize or tile)
    files = _targets(sources, output, mask_out)
    session = Session(bundle, chosen, read, engine, votes=1, mask=mask, masked=mask_out is not None, ray=ray)
    written: list[dict[str, Any]] = []

    def saved(position: int, result: Purified | FrameResult) -> dict[str, Any]:
        target = files[position]
        _write(save_image, result.image, target)
        entry = {**result.to_dict(), "name": sources[position].name, "file": str(target)}
        if mask_out is not None and result.mask is not None:
            _write(save_image, result.mask, mask_out / target.name)
            entry["mask_file"] = str(mask_out / target.name)
        return entry

    def save(position: int, result: Purified | FrameResult) -> None:
        written.append(saved(position, result))

    if ray.ray is not None:
        written, failures = session.spread(sources, "purifying", "own", saved)
    elif tile:
        failures = run_frames(session, sources, target_size, cast("Pad", pad), whole, read.bgr, save)
    else:
        failures = session.run(sources, save, "purifying", session.purifier.own_head())

    def what(entry: dict[str, Any]) -> str:
        return f"{entry['tiles'][0]} x {entry['tiles'][1]}" if tile else str(entry["class_name"])

    def show() -> None:
        about = ("tiles",) if tile else ("label",) if session.manifest.classes else ()
        table(
            ("image", "purified", *about, "UNet calls", "ms"),
            (
                (w["name"], w["file"], *(what(w) for _ in about), w["unet_calls"], f"{1e3 * w['seconds']:.1f}")
                for w in written
            ),
            right=("UNet calls", "ms"),
        )

    session.finish(written, failures, shown.as_json, show)


def _write(save: Callable[[Any, Path], None], image: Any, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save(image, target)
    except OSError as error:
        raise EdgepureError(
            f"cannot write {target}: {error.strerror or error}; it was not half-written", code="E-output-write"
        ) from error


def _targets(sources: Sequence[Source], output: Path, mask_out: Path | None) -> list[Path]:
    """The file of each source. Nothing is written yet.

    Raises:
        ConfigError: two files in one, an input that would be overwritten, or a name that cannot be written.
    """
    from ..images.decode import suffixes
    from .outputs import check_outputs
    from .sources import output_names

    if output.suffix.lower() == ".png" and not output.is_dir():
        if len(sources) != 1:
            raise ConfigError(
                f"-o {output} is one file, but there are {len(sources)} images; give a folder", code="E-output-one-file"
            )
        targets = [output]
    else:
        if output.suffix.lower() in suffixes() and not output.is_dir():
            raise ConfigError(
                f"-o {output}: images are written as PNG, which loses nothing; give FILE.png or a folder",
                code="E-output-png",
            )
        if output.exists() and not output.is_dir():
            raise ConfigError(f"-o {output} is a file; give FILE.png or a folder", code="E-output-png")
        targets = [output / name for name in output_names(sources)]
    if mask_out is not None and real_path(mask_out) == real_path(targets[0].parent):
        raise ConfigError(
            f"--mask-out {mask_out}: choose another folder than that of the purified images", code="E-output-same"
        )
    inputs = [source.path for source in sources]
    check_outputs(targets, "-o", inputs)
    if mask_out is not None:
        check_outputs((mask_out / target.name for target in targets), "--mask-out", inputs)
    return targets

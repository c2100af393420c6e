"""Arguments and options that several commands share; in groups (`groups`) where they share several."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from ..engines.kinds import help_words
from ..errors import ConfigError

#: What --resize takes; alone it means the first of them.
RESIZES = ("squash", "crop", "pad")


def _resize(text: Any) -> Any:
    """One of `RESIZES`; False where the option was not given."""
    if str(text) not in (*RESIZES, "False"):
        raise typer.BadParameter(f"choose {', '.join(RESIZES)}")
    return text if str(text) in RESIZES else False


def with_resize(arguments: list[str]) -> list[str]:
    """The arguments of a verb, with --resize=squash in the place of --resize alone."""
    following = [*arguments[1:], ""]
    return [
        f"--resize={RESIZES[0]}" if text == "--resize" and after not in RESIZES else text
        for text, after in zip(arguments, following, strict=False)
    ]


def given(metavar: str | None, words: str, *names: str, **more: Any) -> Any:
    """An option whose words tell its default, or that has none."""
    return typer.Option(*names, metavar=metavar, help=words, show_default=False, **more)


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="The folder of a bundle.", show_default=False)]
ImagesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES",
        help="Image files, folders of them, arrays (.npy; .npz with one array or one called `images`, or "
        "FILE.npz:NAME), WebDataset's .tar files, or Parquet.",
        show_default=False,
    ),
]
PresetOption = Annotated[
    str | None,
    given("NAME|FILE", "A preset of the bundle, or a JSON file with one. Default: the bundle's own default."),
]
SetOption = Annotated[
    list[str],
    given(
        "KEY=VALUE",
        "Change one parameter: a key of the method (t_star=50) or of another part (mask.area=0.15, "
        "votes.count=5). May be given several times.",
        "--set",
    ),
]
VotesOption = Annotated[
    int | None, given(None, "Independent purifications of each image. Default: as the preset says.")
]
ProviderOption = Annotated[
    str, typer.Option(help=f"What runs the graphs: {help_words()}. One that is not active is an error.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="fp32|fp16|bf16|int8|fp8",
        help="Which graphs of the bundle: those that were exported, or a variant that `edgepure quantize` made.",
    ),
]
ThreadsOption = Annotated[int | None, given(None, "CPU threads of one call. Default: one per core.", min=1, max=1024)]
SlotsOption = Annotated[int, typer.Option(min=1, max=4096, help="Images that share one UNet call at most.")]
SeedOption = Annotated[
    int | None,
    given(
        None,
        "Repeatable noise, for tests and audits only: an attacker who can predict the noise gets "
        "round the defence. Default: fresh secret noise.",
    ),
]
ResizeOption = Annotated[
    Any,
    given(
        "squash|crop|pad",
        "Resize images of another size instead of refusing them: squash both sides, crop the middle, "
        "or pad with black.",
        "--resize",
        parser=_resize,
    ),
]
MaskOption = Annotated[
    Path | None,
    given(
        "FILE|FOLDER",
        "For a preset with a mask: your own in place of the attention mask, black and white (white: "
        "strong noise). A file is for all images, a folder has one for each, NAME.png.",
    ),
]
BgrOption = Annotated[
    bool, typer.Option("--bgr", help="Arrays have their colours in the order of OpenCV: blue, green, red.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document to stdout, and nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@dataclass(kw_only=True)
class PresetOptions:
    """What is done with the images."""

    preset: PresetOption = None
    change: SetOption = field(default_factory=list)


@dataclass(kw_only=True)
class ReadOptions:
    """How images are read, and where the noise comes from."""

    seed: SeedOption = None
    resize: ResizeOption = False
    bgr: BgrOption = False


@dataclass(kw_only=True)
class EngineOptions:
    """What computes."""

    provider: ProviderOption = "cpu"
    precision: PrecisionOption = "fp32"
    threads: ThreadsOption = None


@dataclass(kw_only=True)
class SlotOptions(EngineOptions):
    """What computes, for several images at a time."""

    slots: SlotsOption = 8


@dataclass(kw_only=True)
class ClusterOptions:
    """Who computes, where it is not this machine alone."""

    ray: Annotated[
        str | None,
        given(
            "ADDRESS",
            "Let the workers of a Ray cluster do it (HOST:PORT; auto; local: one of this machine): each opens the "
            "bundle, and files named here, by these same paths. Needs pip install 'edgepure[ray]'.",
        ),
    ] = None
    workers: Annotated[
        int | None, given(None, "With --ray: engines at a time. Default: as many as the cluster has room for.", min=1)
    ] = None


@dataclass(kw_only=True)
class RayOptions(ClusterOptions):
    """The same for images, which are done in parts."""

    part: Annotated[
        int | None,
        given(
            None,
            "With --ray: images that a worker is given at a time. Default: a sixteenth of them, at least --slots and "
            "at most 256.",
            min=1,
        ),
    ] = None
    work: Annotated[
        Path | None,
        given("DIR", "With --ray: keep finished parts there; the same command goes on where it was ended."),
    ] = None


@dataclass(kw_only=True)
class ShownOptions:
    """How results and errors are shown."""

    as_json: JsonOption = False
    debug: DebugOption = False


def radius(text: str) -> float:
    """What --eps says: a number, or a fraction such as 8/255."""
    above, _, below = text.partition("/")
    try:
        return float(above) / (float(below) if below else 1.0)
    except (ValueError, ZeroDivisionError):
        raise ConfigError(
            f"--eps {text!r}: expected a number such as 0.03 or 8/255", code="E-cli-option-value"
        ) from None

"""Frames of one command, one after another: each is as large as it likes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import ConfigError, ImageError
from ..images.frames import Size
from ..purify.frames import Pad
from ..purify.results import Failure, FrameResult
from .output import counted
from .progress import Progress
from .session import Session
from .sources import Source


def run_frames(
    session: Session,
    sources: Sequence[Source],
    size: Size,
    pad: Pad,
    whole: bool,
    bgr: bool,
    on_result: Callable[[int, FrameResult], Any],
) -> list[Failure]:
    """Purify each source by tiles; source i is image i of the noise stream. Those that could not be used are returned.

    ``on_result`` is called with the position of a source and its result.
    """
    if not sources:
        raise ImageError("there is no image; give at least one file, folder or array", code="E-image-count")
    failures: list[Failure] = []
    masks = None if session.masks is None else session.masks.of_frames(sources)
    with Progress(f"purifying {counted(len(sources), 'frame')}") as bar:
        for position, source in enumerate(sources):

            def update(share: float, words: str, *, before: int = position) -> None:
                bar.update((before + share) / len(sources), words)

            try:
                result = session.purifier.purify_frame(
                    source.item,
                    session.preset,
                    mask=None if masks is None else masks(position),
                    noise=session.noise,
                    number=position,
                    size=size,
                    pad=pad,
                    whole=whole,
                    order="bgr" if bgr else "rgb",
                    on_progress=update,
                )
            except ImageError as error:
                failures.append(Failure(source.name, str(error).removeprefix(f"{source.name}: ")))
            else:
                on_result(position, result)
    return failures


def parse_size(text: str | None) -> Size:
    """``540``: the shorter side. ``960x540``: width and height. None: as it is."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", text.lower())
    if found is None:
        raise ConfigError(
            f"--size {text!r}: expected the shorter side (540) or WIDTHxHEIGHT (960x540), in pixels",
            code="E-frame-option",
        )
    return int(found[1]) if found[2] is None else (int(found[2]), int(found[1]))


def check_frame_options(tile: bool, resize: object, size: str | None, pad: str, whole: bool) -> None:
    """Raise ConfigError for options that belong to the other way of treating images."""
    if not tile and (size is not None or pad != "no" or whole):
        raise ConfigError(
            "--size, --pad and --whole are for frames: give --tile, or use --resize", code="E-frame-option"
        )
    if tile and resize:
        raise ConfigError(
            "--resize is for images of the network's size, and --tile keeps that of a frame; leave one of them out "
            "(--tile --size resizes a frame before)",
            code="E-frame-option",
        )
    if pad not in ("no", "reflect", "black"):
        raise ConfigError(f"--pad {pad!r}: expected reflect or black", code="E-frame-option")

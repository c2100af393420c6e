"""``edgepure triton``: a model repository for NVIDIA Triton."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from .groups import grouped
from .options import ShownOptions, SlotOptions, VotesOption, given
from .output import emit_json, note


@grouped
def triton(
    *,
    bundle: Annotated[
        str, typer.Argument(metavar="[NAME[:VERSION]=]BUNDLE", help="A bundle, under its name.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="REPOSITORY", help="The model repository. Other models in it stay.")],
    preset: Annotated[str | None, given("NAME", "Default: the bundle's own.")] = None,
    votes: VotesOption = None,
    show: Annotated[
        list[str],
        given(
            "probabilities|purified",
            "Let clients have more than the answer: probabilities (of a task: scores, confidence), purified "
            "images. Each tells an attacker something (SECURITY.md). May be given several times.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    streams: Annotated[
        bool,
        typer.Option(
            "--streams", help="Answer every request when it is done; clients use gRPC streams. Default: any client."
        ),
    ] = False,
    max_images: Annotated[int, typer.Option(min=1, max=4096, help="Images in one request.")] = 64,
    engine: SlotOptions,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model of this name.")] = False,
    shown: ShownOptions,
) -> None:
    """Write a model repository for NVIDIA Triton (Python backend).

    Triton's Python needs edgepure too. The bundle is copied, and proves its self-test when Triton loads it.
    docs/serving.md says more.

    Examples:

    \b
      edgepure triton digits --preset uniform --out models
      edgepure triton gate:2=digits --streams --out models
    """
    from ..serve.settings import parse_model
    from ..serve.triton_repository import write_triton_repository

    model = replace(parse_model(bundle, votes=votes, **asdict(engine), waiting=max_images), preset=preset)
    place = write_triton_repository(model, out, show=show, streams=streams, max_images=max_images, overwrite=overwrite)
    if shown.as_json:
        emit_json({"model": str(place)})
    else:
        note(f"wrote {place}; start it with: tritonserver --model-repository {out}")

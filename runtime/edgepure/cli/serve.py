"""``edgepure serve``: bundles as an inference service."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import Annotated

import typer

from ..errors import ConfigError
from .groups import grouped
from .options import ShownOptions, SlotOptions, VotesOption, given
from .output import note


@grouped
def serve(
    *,
    bundles: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME[:VERSION]=]BUNDLE...", help="Bundles to serve, each under its name.", show_default=False
        ),
    ],
    preset: Annotated[
        list[str],
        given("[NAME=]PRESET", "The preset of one model, or of all. Default: the bundle's own. Clients do not choose."),
    ] = [],  # noqa: B006 - typer copies it
    votes: VotesOption = None,
    host: Annotated[str, typer.Option(help="Where to listen. 0.0.0.0 is everywhere: think of a token and a proxy.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of REST; 0 is any that is free.")] = 8000,
    grpc_port: Annotated[
        int, typer.Option(min=-1, max=65535, help="Of gRPC; 0 is any that is free, -1 is no gRPC.")
    ] = 8001,
    show: Annotated[
        list[str],
        given(
            "probabilities|flags|purified|norms",
            "Let clients have more than the answer. Each tells an attacker something: probabilities (of a "
            "task: scores, confidence) guide a search, purified images reveal the noise, norms and flags how "
            "to stay below the alarm (SECURITY.md). May be given several times.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    page: Annotated[
        bool, typer.Option("--page", help="A page at / that shows mask and purified image of what is dropped on it.")
    ] = False,
    flag_rate: Annotated[
        float | None, given(None, "Watch score norms with this false-positive rate (a calibrated bundle).")
    ] = None,
    token_file: Annotated[
        str | None, given(None, "A file with the token that clients must send; EDGEPURE_TOKEN is taken too.")
    ] = None,
    admin_token_file: Annotated[
        str | None,
        given(
            None,
            "A file with the token that loads and unloads models; EDGEPURE_ADMIN_TOKEN is taken too. "
            "Without one nobody can.",
        ),
    ] = None,
    lanes: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Processes that compute side by side, each with --slots and an engine of its own (1: a thread of "
            "this one). With --threads 1 and as many lanes as cores more is answered; a single image is answered "
            "sooner by all --threads.",
        ),
    ] = 1,
    waiting: Annotated[int, typer.Option(min=1, help="Images that may wait; more are answered with 503.")] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take at most.")] = 30.0,
    drain: Annotated[float, typer.Option(help="Seconds in which requests may end after SIGTERM.")] = 20.0,
    probe: Annotated[float, typer.Option(help="Seconds between two self-tests through the slots.")] = 15.0,
    stale: Annotated[
        float, typer.Option(help="Seconds without a move of the slots, after which they are stuck.")
    ] = 10.0,
    max_body: Annotated[int, typer.Option(min=1, help="MiB that a request may have.")] = 16,
    engine: SlotOptions,
    shown: ShownOptions,
) -> None:
    """Serve bundles over HTTP and gRPC (Open Inference Protocol v2).

    Images of all callers share the UNet calls. Ready (/v2/health/ready) means that the bundle's self-test was answered
    through the same path. SIGTERM finishes what was accepted; a second one ends at once. docs/serving.md says more.

    Examples:

    \b
      edgepure serve digits --preset uniform --port 8000
      edgepure serve small=digits --preset small=uniform --show probabilities --page
    """
    try:
        from ..serve.server import serve as run
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is not installed; the server needs it: pip install 'edgepure[serve]'", code="E-extra-missing"
        ) from None
    from ..serve.settings import ServeSettings, parse_model

    chosen: dict[str, str] = {}
    for text in preset:
        name, sign, value = text.partition("=")
        chosen[name if sign else ""] = value if sign else name
    models = []
    for text in bundles:
        model = parse_model(text, votes=votes, **asdict(engine), lanes=lanes, waiting=waiting, flag_rate=flag_rate)
        models.append(replace(model, preset=chosen.get(model.name, chosen.get(""))))
    settings = ServeSettings(
        host=host,
        port=port,
        grpc_port=None if grpc_port < 0 else grpc_port,
        token=_token(token_file, "EDGEPURE_TOKEN"),
        admin_token=_token(admin_token_file, "EDGEPURE_ADMIN_TOKEN"),
        show=frozenset(show),
        page=page,
        max_body=max_body << 20,
        timeout=timeout,
        drain=drain,
        probe_every=probe,
        stale=stale,
    )
    if len({(model.name, model.version) for model in models}) < len(models):
        raise ConfigError(
            "two models have the same name and version; name them NAME:VERSION=BUNDLE", code="E-serve-model"
        )
    run(models, settings, lambda address: note(f"serving {', '.join(model.name for model in models)} at {address}"))


def _token(file: str | None, variable: str) -> str | None:
    """From a file or the environment. An empty or unreadable one is an error: it must not mean that all may ask."""
    if file is None:
        return os.environ.get(variable)
    try:
        with open(file, encoding="utf-8") as opened:
            return opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"the token file {file} cannot be read ({error}); check the path and its permissions", code="E-serve-token"
        ) from None

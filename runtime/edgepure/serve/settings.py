"""What the owner of a server decides: nothing of it can be changed by a client."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigError
from ..files.folders import real_path


@dataclass(frozen=True)
class ModelSettings:
    """One bundle that is served.

    Attributes:
        name, version: of the model in the protocol's addresses.
        path: the bundle's folder. A new bundle is put there by renaming, then the model is loaded again.
        preset, votes: as for `edgepure.Service`; the clients do not choose.
        provider, precision, threads, slots: as for `edgepure.load`.
        lanes: as for `edgepure.Service`.
        waiting: images that may wait for a slot; more are refused.
        flag_rate: of the monitor; None: there is none.
    """

    name: str
    path: Path
    version: str = "1"
    preset: str | None = None
    votes: int | None = None
    provider: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    slots: int = 8
    lanes: int = 1
    waiting: int = 64
    flag_rate: float | None = None


@dataclass(frozen=True)
class ServeSettings:
    """The server around the models. Sizes are in bytes, times in seconds.

    Attributes:
        host, port: of REST; port 0 is any that is free.
        grpc_port: of gRPC on the same host; None: there is no gRPC.
        token: what clients send as ``Authorization: Bearer ...``; None: everybody may ask.
        admin_token: the same for loading and unloading models; None: nobody may.
        show: outputs beyond labels: ``probabilities``, ``flags``, ``purified``, ``norms``. SECURITY.md says what each
            of them tells an attacker.
        page: serve the page for people at ``/``, with pictures of what the defence does.
        max_body: a larger body is refused.
        max_images: in one request.
        timeout: of a request that names no deadline of its own; one that names a longer one gets this.
        patience: with a client that sends slowly.
        drain: how long requests may take to end after SIGTERM.
        probe_every: how often the self-test goes through the slots when nobody else does.
        stale: without a tick for so long while images wait, a model is not ready.
        connections: at a time; for one more, the one ends that has gone longest without a whole request.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    token: str | None = None
    admin_token: str | None = None
    show: frozenset[str] = field(default_factory=frozenset)
    page: bool = False
    max_body: int = 16 << 20
    max_images: int = 64
    timeout: float = 30.0
    patience: float = 10.0
    drain: float = 20.0
    probe_every: float = 15.0
    stale: float = 10.0
    connections: int = 512

    def __post_init__(self) -> None:
        unknown = sorted(self.show - set(SHOWN))
        if unknown:
            raise ConfigError(f"cannot show {unknown[0]!r}; choose of {', '.join(SHOWN)}", code="E-serve-show")
        for name in ("token", "admin_token"):
            if getattr(self, name) is not None and not getattr(self, name).strip():  # must not mean "everybody may"
                raise ConfigError(
                    f"the {name.replace('_', ' ')} is empty; give one, or leave the option out", code="E-serve-empty"
                )
        for name in ("timeout", "patience", "drain", "probe_every", "stale"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0.0):
                raise ConfigError(f"{name} must be a positive number of seconds", code="E-serve-seconds")


#: What may be shown beyond labels.
SHOWN = ("probabilities", "flags", "purified", "norms")


def parse_model(text: str, **settings: object) -> ModelSettings:
    """``[NAME[:VERSION]=]BUNDLE`` as the command line takes it; without a name, that of the folder.

    Raises:
        ConfigError: the name or the version has other characters than letters, digits, ``_``, ``-`` and ``.``.
    """
    label, sign, path = text.rpartition("=")
    if not sign:
        label = real_path(text).name
    name, _, version = label.partition(":")
    version = version or "1"
    for what, word in (("name", name), ("version", version)):
        if not word or not all(c.isascii() and (c.isalnum() or c in "_-.") for c in word):
            raise ConfigError(
                f"the {what} {word!r} of a model may have letters, digits, '_', '-' and '.'; name it like "
                f"digits:1={path}",
                code="E-serve-model",
            )
    return ModelSettings(name, Path(path), version, **settings)  # type: ignore[arg-type]

"""A model repository for NVIDIA Triton: a copy of the bundle, its configuration, and a ``model.py`` of one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from ..bundle.bundle import Bundle
from ..engines.kinds import kind_of
from ..errors import ConfigError
from ..files import atomic_directory
from .outputs import outputs_of
from .protocol import DATATYPES
from .settings import ModelSettings

#: What a Triton model may show beyond the answer itself.
SHOWN = ("probabilities", "purified")
#: The protocol's datatypes in the words of a configuration.
_KINDS = {"BYTES": "STRING"} | {name: name for name in DATATYPES}
_MODEL_PY = '"""Served by edgepure."""\n\nfrom edgepure.serve.triton import TritonPythonModel as TritonPythonModel\n'


def write_triton_repository(
    settings: ModelSettings,
    out: str | PathLike[str],
    *,
    show: Iterable[str] = (),
    streams: bool = False,
    max_images: int = 64,
    overwrite: bool = False,
) -> Path:
    """Write ``out/NAME/config.pbtxt``, ``out/NAME/VERSION/model.py`` and ``out/NAME/VERSION/bundle``.

    Args:
        settings: the bundle, the model's name and version, preset, votes, engine and slots. The version is a number.
        out: the repository; other models in it stay as they are.
        show: outputs beyond the answer itself, of `SHOWN`.
        streams: answer every request when it is done (decoupled; clients use gRPC streams). Otherwise any client works,
            and requests that wait together are answered together.
        max_images: in one request, and of requests that Triton hands over together.
        overwrite: replace a model of this name.

    Returns:
        The folder of the model.

    Raises:
        BundleError: the bundle is damaged.
        ConfigError: a name, version, preset or output that there is not, or a bundle that cannot be served.
        EdgepureError: the model is already there, no space, or no permission; nothing was written.
    """
    bundle = Bundle.open(settings.path)
    shown = sorted(set(show))
    unknown = [name for name in shown if name not in SHOWN]
    if unknown:
        raise ConfigError(f"Triton cannot show {unknown[0]!r}; choose of {', '.join(SHOWN)}", code="E-triton-show")
    if not (settings.version.isdigit() and int(settings.version) > 0):
        raise ConfigError(
            f"Triton's versions are numbers from 1, not {settings.version!r}; name it {settings.name}:1=BUNDLE",
            code="E-triton-version",
        )
    preset = settings.preset or bundle.manifest.default_preset
    if preset not in bundle.manifest.presets:
        names = ", ".join(sorted(bundle.manifest.presets))
        raise ConfigError(f"the bundle has no preset {preset!r}; it has {names}", code="E-preset-unknown")
    place = Path(out) / settings.name
    with atomic_directory(place, overwrite, marker="config.pbtxt") as folder:
        config = _config(bundle, settings, preset, shown, streams, max_images)
        (folder / "config.pbtxt").write_text(config, encoding="utf-8")
        version = folder / settings.version
        version.mkdir()
        (version / "model.py").write_text(_MODEL_PY, encoding="utf-8")
        shutil.copytree(bundle.path, version / "bundle", ignore=shutil.ignore_patterns(".*"))
    return place


def _config(
    bundle: Bundle, settings: ModelSettings, preset: str, shown: list[str], streams: bool, max_images: int
) -> str:
    """The model's configuration in Triton's text form. Text is quoted as JSON quotes it, which protobuf reads."""
    shape = list(bundle.manifest.task_image.shape)
    votes = bundle.manifest.presets[preset].votes
    abstains = votes.sequential is not None and settings.votes is None
    outputs = [
        (output.name, _KINDS[output.datatype], list(output.shape) or [1])
        for output in outputs_of(bundle.manifest, frozenset(shown), abstains=abstains)
    ]
    parameters = {
        "preset": preset,
        "votes": settings.votes,
        "provider": settings.provider,
        "precision": settings.precision,
        "threads": settings.threads,
        "slots": settings.slots,
        "waiting": max(settings.waiting, max_images),
        "show": " ".join(shown) or None,
    }
    lines = [f"name: {json.dumps(settings.name)}", 'backend: "python"', f"max_batch_size: {max_images}"]
    for name, kind, dims in (("image", "FP32", shape), ("file", "STRING", [1])):
        lines.append(f'input {{ name: "{name}" data_type: TYPE_{kind} dims: {dims} optional: true }}')
    for name, kind, dims in outputs:
        lines.append(f'output {{ name: "{name}" data_type: TYPE_{kind} dims: {dims} }}')
    place = "CPU" if kind_of(settings.provider).device == "cpu" else "GPU"
    lines.append(f"instance_group {{ count: 1 kind: KIND_{place} }}")
    if streams:
        lines.append("model_transaction_policy { decoupled: true }")
    else:
        lines.append("dynamic_batching { }")
    for key, value in parameters.items():
        if value is not None:
            text = json.dumps(str(value))
            lines.append(f'parameters {{ key: "{key}" value {{ string_value: {text} }} }}')
    return "\n".join(lines) + "\n"

"""``edgepure predict``: images in; boxes, label maps, vectors or labels out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import ConfigError, EdgepureError
from .groups import grouped
from .options import (
    BundleArgument,
    ImagesArgument,
    MaskOption,
    PresetOptions,
    ReadOptions,
    ShownOptions,
    SlotOptions,
    VotesOption,
    given,
)

if TYPE_CHECKING:
    from ..purify.results import Purified


@grouped
def predict(
    bundle: BundleArgument,
    images: ImagesArgument,
    *,
    output: Annotated[
        Path | None,
        given(
            "DIR|FILE",
            "Where the answers go: FILE.json for boxes and labels, a folder for label maps (PNG, a pixel "
            "is the number of its class), FILE.npz for vectors (`vectors` and `names`). Default: only "
            "what is printed.",
            "--out",
            "-o",
        ),
    ] = None,
    chosen: PresetOptions,
    votes: VotesOption = None,
    mask: MaskOption = None,
    read: ReadOptions,
    engine: SlotOptions,
    shown: ShownOptions,
) -> None:
    """Purify images, then do what the bundle is for: detect, segment, embed, or classify.

    A task that takes frames, larger than the network, gets them purified by tiles.

    Good images are done even if others cannot be read; those are listed and the exit code is 4. Files appear whole or
    not at all.

    Examples:

    \b
      edgepure predict digits seven.png
      edgepure predict digits photos/ --out labels.json --votes 5
    """
    from ..bundle.bundle import Bundle
    from ..purify.heads import Labels
    from ..purify.tasks import Task
    from .output import table
    from .session import Session
    from .sources import find_sources, output_names

    manifest = Bundle.open(bundle, verify=False).manifest
    kind = "classification" if manifest.classes else manifest.require_task().kind
    sources = find_sources(images, manifest.task_image, read.resize)
    _check_output(kind, output, [source.path for source in sources])
    names = output_names(sources) if kind == "segmentation" else []
    wide = manifest.task is not None and len(manifest.task.classes) > 256
    session = Session(bundle, chosen, read, engine, votes=votes, mask=mask, size=manifest.task_image.shape[1:])
    graphs = session.purifier.graphs
    done: list[dict[str, Any]] = []
    vectors: list[Any] = []

    def take(position: int, result: Purified) -> None:
        entry = result.to_dict()
        if kind == "embedding":
            vectors.append(result.vector)  # type: ignore[attr-defined]
        if kind == "segmentation" and output is not None:
            target = output / names[position]
            _write_map(result.label_map, wide, target)  # type: ignore[attr-defined]
            entry["file"] = str(target)
        done.append(entry)

    head: Any = Labels(graphs) if manifest.classes else Task(graphs)
    failures = session.run(sources, take, "predicting", head)
    if output is not None and done:
        _write_rest(kind, output, done, vectors)

    def show() -> None:
        rows = ((r["name"], _words(kind, r), r["unet_calls"], f"{1e3 * r['seconds']:.1f}") for r in done)
        table(("image", kind, "UNet calls", "ms"), rows, right=("UNet calls", "ms"))

    session.finish(done, failures, shown.as_json, show)


def _check_output(kind: str, output: Path | None, inputs: list[Path]) -> None:
    """Raise ConfigError unless the answers of this kind can be written there."""
    from .outputs import check_output, prepare_file

    wanted = {"detection": ".json", "classification": ".json", "embedding": ".npz", "segmentation": ""}[kind]
    if output is None:
        return
    if output.suffix.lower() != wanted or (not wanted and output.exists() and not output.is_dir()):
        raise ConfigError(
            f"--out {output}: this bundle's task is {kind}, so give {f'FILE{wanted}' if wanted else 'a folder'}",
            code="E-output-place",
        )
    if wanted:
        prepare_file(output, "--out", inputs)
    else:
        check_output(output, "--out", inputs)


def _write_map(label_map: Any, wide: bool, target: Path) -> None:
    """A PNG of 8 bits, or of 16 where there are more than 256 classes (``wide``)."""
    from io import BytesIO

    import numpy as np
    from PIL import Image

    from ..files.atomic import write_bytes

    data = BytesIO()
    Image.fromarray(label_map.astype(np.uint16 if wide else np.uint8)).save(data, "PNG")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(target, data.getvalue())
    except OSError as error:
        raise EdgepureError(f"cannot write {target}: {error.strerror or error}", code="E-output-write") from error


def _write_rest(kind: str, output: Path, done: list[dict[str, Any]], vectors: list[Any]) -> None:
    import json

    import numpy as np

    from ..files.atomic import write_npz, write_text

    if kind == "embedding":
        write_npz(output, {"vectors": np.stack(vectors), "names": np.array([r["name"] for r in done])})
    elif kind != "segmentation":
        write_text(output, json.dumps(done, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _words(kind: str, answer: dict[str, Any]) -> str:
    """The answer in a few words."""
    if kind == "classification":
        return str(answer["class_name"])
    if kind == "embedding":
        return f"{len(answer['vector'])} numbers"
    if kind == "segmentation":
        shares = sorted(answer["shares"].items(), key=lambda item: -item[1])[:4]
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares)
    found = [f"{name} {score:.2f}" for name, score in zip(answer["class_names"], answer["scores"], strict=True)]
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "") or "nothing"

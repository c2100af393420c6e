"""The images of one command on the workers of a Ray cluster.

They are cut into parts, in their order. A worker holds an engine, and is given one part after another by Ray Data; what
it answers is taken here, once for each part, whichever worker was lost meanwhile. Image i of the list is image i of the
noise stream, as it is without a cluster, so that the same seed gives the same answers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..engines.kinds import kind_of
from ..errors import ConfigError, ImageError
from ..files.atomic import write_text
from ..files.folders import real_path
from ..files.locks import locked
from ..images.load import Order, Resize
from ..machine.cluster import check_bundle, joined, needs_of, room
from ..machine.packages import needs
from ..methods.presets import Preset
from ..purify.heads import Labels
from ..purify.purifier import Purifier
from ..purify.results import Failure
from .batches import run_chunks
from .options import RayOptions
from .sources import Source

Entry = Callable[[int, Any], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """What all workers do.

    Attributes:
        bundle, digest: its folder, and what its files are.
        head: ``labels``, or ``own``: purified images, with a label where the bundle has a classifier.
        engine: as `Purifier` takes it.
    """

    bundle: Path
    digest: str
    preset: Preset
    head: str
    seed: int | None
    resize: Resize
    order: Order
    engine: Mapping[str, Any]

    @classmethod
    def of(cls, opened: Bundle, *rest: Any) -> Task:
        """Of an open bundle; ``rest``: the other attributes."""
        return cls(opened.path.resolve(), _digest_of(opened), *rest)

    def key(self, sources: Sequence[Source], part: int) -> dict[str, Any]:
        """What the results depend on, as plain data."""
        names = hashlib.sha256("\0".join(source.name for source in sources).encode("utf-8", "surrogateescape"))
        return {
            "bundle": self.digest,
            "preset": self.preset.model_dump(mode="json"),
            "head": self.head,
            "seed": self.seed,
            "resize": str(self.resize),
            "order": self.order,
            "precision": self.engine["precision"],
            "provider": self.engine["provider"],
            "images": names.hexdigest(),
            "part": part,
        }


class Worker:
    """Holds the bundle open; lives in a process of the cluster."""

    def __init__(self, task: Task) -> None:
        opened = Bundle.open(task.bundle)
        check_bundle(task.bundle, _digest_of(opened), task.digest)
        threads = task.engine["threads"] or 1
        self._task, self._purifier = task, Purifier(opened, **{**task.engine, "threads": threads})
        self._head: Any = Labels(self._purifier.graphs) if task.head == "labels" else self._purifier.own_head()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Do one part: its number and sources to its number and results."""
        first, sources = pickle.loads(batch["sources"][0])
        task, found = self._task, []
        failures = run_chunks(
            self._purifier,
            self._head,
            task.preset,
            sources,
            noise=task.seed,
            resize=task.resize,
            order=task.order,
            on_result=lambda position, result: found.append((first + position, result)),
            on_share=lambda share: None,
            start=first,
        )
        return {"number": batch["number"], "done": np.array([pickle.dumps((found, failures))], object)}


def spread(
    task: Task, sources: Sequence[Source], options: RayOptions, entry: Entry, on_share: Callable[[float], None]
) -> tuple[list[dict[str, Any]], list[Failure]]:
    """Let the cluster do all sources.

    Args:
        entry: makes what is kept of a result, here; called once for each image, with its position.
        on_share: called with the share of the images that are done.

    Returns:
        The entries in the order of the images, those that an earlier run kept included, and the images that could not
        be used.

    Raises:
        ConfigError: Ray is not installed, or the folder of `--work` belongs to another run.
        ImageError: there is no image at all.
        EdgepureError: the cluster cannot be reached, or a worker cannot do its work.
    """
    if not sources:
        raise ImageError("there is no image; give at least one file, folder or array", code="E-image-count")
    part = options.part or min(256, max(task.engine["slots"], -(-len(sources) // 16)))
    parts = {n: range(first, min(first + part, len(sources))) for n, first in enumerate(range(0, len(sources), part))}
    with _kept(options.work, task.key(sources, part)) as folder:
        done = {} if folder is None else _recall(folder, parts)
        images = sum(len(parts[number]) for number in done)
        missing = [
            {"number": n, "sources": pickle.dumps((part.start, [_sent(sources[i]) for i in part]))}
            for n, part in parts.items()
            if n not in done
        ]
        for number, (found, failures) in _on_cluster(task, missing, options) if missing else ():
            if number in done:
                continue  # a worker was lost after it had answered
            record = {
                "results": [entry(position, result) for position, result in found],
                "failures": [[failure.name, failure.reason] for failure in failures],
            }
            if folder is not None:
                write_text(folder / f"part-{number:06d}.json", json.dumps(record, ensure_ascii=False) + "\n")
            done[number] = record
            images += len(parts[number])
            on_share(images / len(sources))
    records = [done[number] for number in sorted(done)]
    return [one for record in records for one in record["results"]], [
        Failure(name, reason) for record in records for name, reason in record["failures"]
    ]


def _on_cluster(
    task: Task, missing: list[dict[str, Any]], options: RayOptions
) -> Iterator[tuple[int, tuple[list[tuple[int, Any]], list[Failure]]]]:
    """Number and results of each part, as they come."""
    threads, gpu = task.engine["threads"] or 1, kind_of(task.engine["provider"]).device == "gpu"
    with joined(str(options.ray)) as ray:
        with needs("--ray spreads images with Ray Data", "ray"):
            from ray import data

        logging.getLogger("ray.data").setLevel(logging.ERROR)  # the import has set another one
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        workers = min(room(ray, threads, gpu, options.workers), len(missing))
        rows = (
            data.from_items(missing, override_num_blocks=len(missing))
            .map_batches(
                Worker,
                fn_constructor_args=(task,),
                batch_size=1,
                compute=data.ActorPoolStrategy(size=workers),
                **needs_of(threads, gpu),
            )
            .iter_rows()
        )
        for row in rows:
            yield int(row["number"]), pickle.loads(row["done"])


def _sent(source: Source) -> Source:
    """A source as it travels: absolute paths, and errors in words that any process can read."""
    item = str(real_path(source.item)) if isinstance(source.item, Path) else source.item
    return Source(source.name, source.stem, source.path, item)


def _digest_of(opened: Bundle) -> str:
    """What its files are."""
    files = {name: entry.sha256 for name, entry in sorted(opened.manifest.files.items())}
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()


@contextmanager
def _kept(folder: Path | None, key: dict[str, Any]) -> Iterator[Path | None]:
    """The folder of finished parts, for this run alone.

    Raises:
        ConfigError: what it holds belongs to another run.
    """
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, busy=f"another run is at work in {folder}; wait for it, or choose another --work"):
        about, text = folder / "run.json", json.dumps(key, indent=1, sort_keys=True) + "\n"
        if about.exists() and about.read_text(encoding="utf-8") != text:
            raise ConfigError(
                f"--work {folder} holds parts of another run (bundle, preset, images, seed or --part differ); choose "
                "another folder, or remove it",
                code="E-ray-work",
            )
        write_text(about, text)
        yield folder


def _recall(folder: Path, parts: Mapping[int, range]) -> dict[int, Any]:
    """The parts that are there; one that cannot be read is done again."""
    found = {}
    for number, part in parts.items():
        try:
            record = json.loads((folder / f"part-{number:06d}.json").read_text(encoding="utf-8"))
            if len(record["results"]) + len(record["failures"]) == len(part):
                found[number] = record
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found

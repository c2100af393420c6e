"""What the verbs of calibration share: options, where partial results lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgepure.cli.options import (
    DebugOption,
    EngineOptions,
    JsonOption,
    ProviderOption,
    ResizeOption,
    SlotsOption,
    ThreadsOption,
    given,
)
from edgepure.errors import ConfigError
from edgepure.files.folders import real_path

if TYPE_CHECKING:
    from edgepure.bundle.bundle import Bundle
    from edgepure.images.dataset import LabelledImages
    from edgepure.images.load import Resize
    from edgepure.types import Progress

    from ..truth import Truth

DataMeta = "DIR|FILE.npz"
ReportOption = Annotated[Path | None, given("FILE.html", "Write a page with figures and all numbers.")]
WorkOption = Annotated[
    Path | None,
    given("DIR", "Folder for partial results, kept. Default: a hidden one beside the bundle, removed at the end."),
]


@dataclass(kw_only=True)
class OutputOptions:
    """Where the results go."""

    report: ReportOption = None
    as_json: JsonOption = False
    debug: DebugOption = False


@dataclass(kw_only=True)
class WideOptions(EngineOptions):
    """On what it runs, many images at a time."""

    slots: SlotsOption = 32


@dataclass(kw_only=True)
class RunOptions:
    """On what it runs."""

    resize: ResizeOption = False
    provider: ProviderOption = "cpu"
    threads: ThreadsOption = None


def say_limits(not_tested: Iterable[str], report: Path | None, carded: Path | None) -> None:
    """How an evaluation ends: what it did not try, and where its page and the card of the bundle ``carded`` lie."""
    from edgepure.cli.output import say

    say("not tested:")
    for line in not_tested:
        say(f"  - {line}")
    if report is not None:
        say(f"report: {report}")
    if carded is not None:
        say(f"card: {carded}/robustness/card.md")


@dataclass(frozen=True)
class AtWork:
    """A verb that has begun.

    Attributes:
        opened: the bundle.
        folder: of partial results.
        update: shows how far it is.
    """

    opened: Bundle
    folder: Path
    update: Progress
    resize: Resize

    def data(self, source: str | None) -> LabelledImages | Truth | None:
        """`images`; for a bundle with a task with what is true of them, where the data say it."""
        if source is None or self.opened.manifest.task is None:
            return self.images(source)
        from ..truth import load_data

        return load_data(source, self.opened.manifest, resize=self.resize)

    def images(self, source: str | None) -> LabelledImages | None:
        """The images that an option names; None for none."""
        if source is None:
            return None
        from ..calibrate.data import read_images

        return read_images(source, self.opened.manifest, self.resize)


@contextmanager
def at_work(
    verb: str,
    bundle: Path,
    work: Path | None,
    run: RunOptions,
    report: Path | None,
    *inputs: object,
    labels_for: str | None = None,
) -> Iterator[AtWork]:
    """Look whether everything can be written, never over one of the inputs, and open the bundle: what is wrong is said
    now and not after a long run. ``work``: the folder of partial results; None: a hidden one named after ``verb``.
    ``labels_for``: what needs a classifier."""
    from edgepure.bundle.bundle import Bundle
    from edgepure.cli.outputs import prepare_file
    from edgepure.cli.progress import Progress as Bar

    prepare_file(report, "--report", inputs)
    prepare_work(work, *inputs)
    folder = work or hidden_folder(bundle, verb)
    with kept_if_interrupted(folder), Bar("opening the bundle") as bar:
        opened = Bundle.open(bundle)
        if labels_for is not None:
            opened.manifest.require_classifier(labels_for)
        bar.update(0.0, "reading the images")
        yield AtWork(opened, folder, bar.update, run.resize)


def prepare_work(work: Path | None, *inputs: object) -> None:
    """Refuse a folder of partial results that is an input, a file or a place in a bundle."""
    from edgepure.cli.outputs import check_output

    check_output(work, "--work", inputs)
    if work is not None and work.exists() and not work.is_dir():
        raise ConfigError(f"--work {work} is a file; give the name of a folder", code="E-output-place")


def hidden_folder(bundle: Path, verb: str) -> Path:
    """Where partial results of a verb lie unless another place is named."""
    place = real_path(bundle)
    return place.with_name(f".{place.name}.{verb}")


@contextmanager
def kept_if_interrupted(folder: Path) -> Iterator[None]:
    """Say that nothing is lost when somebody ends the command."""
    from edgepure.cli.output import note

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if folder.is_dir():
            note(f"what was measured is kept in {folder}: the same command goes on from there")
        raise


def names(text: str | None) -> tuple[str, ...]:
    """Words separated by commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())

"""What the verbs of calibration share: options, where partial results lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgepure.cli.options import DebugOption, JsonOption, ProviderOption, ResizeOption, ThreadsOption, given
from edgepure.errors import ConfigError

if TYPE_CHECKING:
    from edgepure.bundle.manifest import Manifest
    from edgepure.images.dataset import LabelledImages

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
class RunOptions:
    """On what it runs."""

    resize: ResizeOption = False
    provider: ProviderOption = "cpu"
    threads: ThreadsOption = None


def prepare_report(report: Path | None, *inputs: object) -> None:
    """Find out now, and not after a long run, whether the page can be written; never over one of the inputs."""
    from edgepure.cli.outputs import prepare_file

    prepare_file(report, "--report", inputs)


def prepare_work(work: Path | None, *inputs: object) -> None:
    """Refuse a folder of partial results that is an input, a file or a place in a bundle."""
    from edgepure.cli.outputs import check_output

    check_output(work, "--work", inputs)
    if work is not None and work.exists() and not work.is_dir():
        raise ConfigError(f"--work {work} is a file; give the name of a folder", code="E-output-place")


def load_images(source: str | None, manifest: Manifest, *, resize: bool) -> LabelledImages | None:
    """The images that an option names; None for none."""
    if source is None:
        return None
    from edgepure.images.dataset import load_labelled

    return load_labelled(source, manifest.image, manifest.classes, resize=resize)


def hidden_folder(bundle: Path, verb: str) -> Path:
    """Where partial results of a verb lie unless another place is named."""
    place = bundle.resolve()
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

"""``edgepure purify`` and ``edgepure classify``."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, EdgepureError, ImageError
from .options import (
    BundleArgument,
    DebugOption,
    ImagesArgument,
    JsonOption,
    PrecisionOption,
    PresetOption,
    ProviderOption,
    ResizeOption,
    SeedOption,
    SetOption,
    SlotsOption,
    ThreadsOption,
    VotesOption,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..purify.monitor import Monitor
    from ..purify.results import Failure, Result
    from .batches import Source

SEED_WARNING = (
    "warning: --seed makes the noise predictable, and noise that an attacker can predict is no defence; "
    "use it for tests and audits only"
)


def purify(
    bundle: BundleArgument,
    images: ImagesArgument,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="DIR|FILE.png", help="Folder for the purified images, or one PNG file.",
                     show_default=False),
    ],
    preset: PresetOption = None,
    change: SetOption = [],  # noqa: B006 - typer copies it
    mask_out: Annotated[
        Path | None,
        typer.Option("--mask-out", metavar="DIR", help="Write the attention masks there (white: strong noise).",
                     show_default=False),
    ] = None,
    seed: SeedOption = None,
    resize: ResizeOption = False,
    provider: ProviderOption = "cpu",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    slots: SlotsOption = 8,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Purify images once each and write them as PNG.

    Good images are done even if others cannot be read; those are listed and the exit code is 4. Every file appears
    whole or not at all.

    Examples:

    \b
      edgepure purify digits attacked.png -o clean.png
      edgepure purify digits photos/ extra.npy -o purified/ --preset heterogeneous --mask-out masks/
    """
    from ..images.load import save_image
    from .batches import find_sources
    from .output import table

    sources = find_sources(images)
    files = _targets(sources, output, mask_out)
    session = _Session(
        bundle, preset, change, 1, None, seed, provider, precision, threads, slots, masked=mask_out is not None
    )
    written: list[dict[str, Any]] = []

    def save(position: int, result: Result) -> None:
        target = files[position]
        _write(save_image, result.image, target)
        entry = {**result.to_dict(), "file": str(target)}
        if mask_out is not None and result.mask is not None:
            _write(save_image, result.mask, mask_out / target.name)
            entry["mask_file"] = str(mask_out / target.name)
        written.append(entry)

    failures = session.run(sources, resize, save, "purifying")

    def show() -> None:
        table(
            ("image", "purified", "label", "UNet calls", "ms"),
            ((w["name"], w["file"], w["class_name"], w["unet_calls"], f"{1e3 * w['seconds']:.1f}") for w in written),
            right=("UNet calls", "ms"),
        )

    session.finish(written, failures, as_json, show)


def classify(
    bundle: BundleArgument,
    images: ImagesArgument,
    preset: PresetOption = None,
    change: SetOption = [],  # noqa: B006 - typer copies it
    votes: VotesOption = None,
    rule: Annotated[
        str | None,
        typer.Option(metavar="majority|mean", help="How votes decide: majority of the labels, or mean of the "
                     "probabilities. Default: as the preset says.", show_default=False),
    ] = None,
    flag_rate: Annotated[
        float | None,
        typer.Option(metavar="RATE", help="Flag images whose score norm is off-distribution, with at most this "
                     "false-positive rate, for example 0.01. Needs a calibrated bundle.", show_default=False),
    ] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="With --flag-rate: measure the score norm for presets without SSNI too. "
                           "Costs the UNet calls of the calibrated probe for every image.")
    ] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="With --flag-rate: list flagged images as failures, with no label.")
    ] = False,
    metrics: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json|FILE.prom", help="With --flag-rate: write the monitor's counters, as JSON or "
                     "in the Prometheus text format.", show_default=False),
    ] = None,
    seed: SeedOption = None,
    resize: ResizeOption = False,
    provider: ProviderOption = "cpu",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    slots: SlotsOption = 8,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:  # fmt: skip
    """Purify images and classify what is left.

    Good images are done even if others cannot be read; those are listed and the exit code is 4.

    Examples:

    \b
      edgepure classify digits seven.png
      edgepure classify digits photos/ --preset heterogeneous --votes 5 --rule majority --json
      edgepure classify digits photos/ --preset uniform-ssni --flag-rate 0.01 --reject
    """
    from ..purify.results import Failure
    from .batches import find_sources
    from .monitor import check_options, rejection, write_metrics

    check_options(flag_rate, probe, reject, metrics)
    sources = find_sources(images)
    session = _Session(bundle, preset, change, votes, rule, seed, provider, precision, threads, slots)
    monitor = None if flag_rate is None else session.purifier.monitor(flag_rate, probe=probe)
    done: list[dict[str, Any]] = []
    rejected: list[Failure] = []

    def take(position: int, result: Result) -> None:
        if reject and result.flagged:
            rejected.append(Failure(result.name, rejection(result, flag_rate)))
        else:
            done.append(result.to_dict())

    failures = session.run(sources, resize, take, "classifying", monitor)
    if metrics is not None and monitor is not None:
        write_metrics(monitor, metrics)
    extra = {} if monitor is None else {"monitor": monitor.to_dict()}
    session.finish(done, failures + rejected, as_json, lambda: _labels(done, session.purifier.classes), extra)


class _Session:
    """What both commands share: the open bundle, the preset, the clock."""

    def __init__(
        self,
        bundle: Path,
        preset: str | None,
        changes: list[str],
        votes: int | None,
        rule: str | None,
        seed: int | None,
        provider: str,
        precision: str,
        threads: int | None,
        slots: int,
        *,
        masked: bool = False,
    ) -> None:
        from ..bundle.bundle import Bundle
        from ..methods.planner import Planner
        from ..purify.purifier import Purifier
        from ..rows.noise import noise_source
        from .output import note
        from .presets import choose_preset
        from .progress import Progress

        # Everything that can be wrong without an engine is checked before one is opened.
        self.noise = None if seed is None else noise_source(seed)
        if seed is not None:
            note(SEED_WARNING)
        with Progress("opening the bundle"):
            opened = Bundle.open(bundle)
        manifest = opened.manifest
        extra = [f"votes.count={votes}"] if votes is not None else []
        extra += [f"votes.rule={rule}"] if rule is not None else []
        self.name, _ = choose_preset(manifest.presets, manifest.default_preset, preset, changes)
        _, self.preset = choose_preset(manifest.presets, manifest.default_preset, preset, [*changes, *extra])
        channels, height, width = manifest.image.shape
        Planner(manifest.schedule.build(), channels * height * width).unet_calls(self.preset)
        if masked and self.preset.mask is None:
            raise ConfigError(f"--mask-out: preset {self.name} has no mask")
        with Progress(f"starting the engine {provider!r}"):
            self.purifier = Purifier(opened, provider, precision=precision, threads=threads, slots=slots)
        self._start = perf_counter()

    def run(
        self,
        sources: Sequence[Source],
        resize: bool,
        on_result: Callable[[int, Result], None],
        what: str,
        monitor: Monitor | None = None,
    ) -> list[Failure]:
        from .batches import run_chunks
        from .progress import Progress

        count = f"{len(sources)} images" if len(sources) > 1 else "1 image"
        with Progress(f"{what} {count}") as bar:
            return run_chunks(
                self.purifier, self.preset, sources, noise=self.noise, resize=resize, on_result=on_result,
                on_share=bar.update, monitor=monitor,
            )  # fmt: skip

    def finish(
        self,
        results: list[dict[str, Any]],
        failures: list[Failure],
        as_json: bool,
        show: Callable[[], None],
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """Print the results, then the failures; exit 4 if there are any."""
        from .output import counted, emit_json, note, say

        seconds = perf_counter() - self._start
        calls = sum(r["unet_calls"] for r in results)
        if as_json:
            emit_json(
                {
                    "bundle": self.purifier.bundle.manifest.name, "preset": self.name,
                    "provider": self.purifier.provider, "precision": self.purifier.precision, "results": results,
                    "failures": [{"name": f.name, "reason": f.reason} for f in failures],
                    "unet_calls": calls, "seconds": round(seconds, 6), **(extra or {}),
                }
            )  # fmt: skip
        elif results:
            show()
            say(f"\n{counted(len(results), 'image')}, preset {self.name}: {calls} UNet calls in {seconds:.2f} s")
        self.purifier.close()
        if failures:
            for failure in failures:
                note(f"error: {failure.name}: {failure.reason}")
            total = len(results) + len(failures)
            rest = {0: "", 1: "; the other one is done"}.get(len(results), f"; the other {len(results)} are done")
            note(f"{len(failures)} of {counted(total, 'image')} could not be used{rest}")
            raise typer.Exit(ImageError.exit_code)


def _labels(done: list[dict[str, Any]], classes: Sequence[str]) -> None:
    from .output import number, table

    columns = ["image", "label", "probability"]
    plain = any(r["plain_label"] is not None for r in done)
    if plain:
        columns.append("unpurified")
    levels = list(dict.fromkeys(level for r in done for level in r["levels"]))
    extras = [key for key in ("score_norm", "p_value", "flagged", "mask_area") if any(r[key] is not None for r in done)]
    columns += [*levels, *(e.replace("_", " ") for e in extras), "UNet calls", "ms"]
    rows = []
    for r in done:
        row: list[object] = [r["name"], r["class_name"], f"{r['probability']:.3f}"]
        if plain:
            row.append("-" if r["plain_label"] is None else classes[r["plain_label"]])
        row += [number(r["levels"].get(level), 4) for level in levels]
        row += [_yes(r[key]) if key == "flagged" else number(r[key], 3) for key in extras]
        rows.append([*row, r["unet_calls"], f"{1e3 * r['seconds']:.1f}"])
    table(columns, rows, right=[c for c in columns if c not in ("image", "label", "unpurified")])


def _yes(flagged: bool | None) -> str:
    return "-" if flagged is None else "yes" if flagged else "no"


def _write(save: Callable[[Any, Path], None], image: Any, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save(image, target)
    except OSError as error:
        raise EdgepureError(f"cannot write {target}: {error.strerror or error}; it was not half-written") from error


def _targets(sources: Sequence[Source], output: Path, mask_out: Path | None) -> list[Path]:
    """The file of each source. Nothing is written yet.

    Raises:
        ConfigError: two files in one, an input that would be overwritten, or a name that cannot be written.
    """
    from ..images.load import SUFFIXES
    from .batches import output_names

    if output.suffix.lower() == ".png" and not output.is_dir():
        if len(sources) != 1:
            raise ConfigError(f"-o {output} is one file, but there are {len(sources)} images; give a folder")
        targets = [output]
    else:
        if output.suffix.lower() in SUFFIXES and not output.is_dir():
            raise ConfigError(f"-o {output}: images are written as PNG, which loses nothing; give FILE.png or a folder")
        if output.exists() and not output.is_dir():
            raise ConfigError(f"-o {output} is a file; give FILE.png or a folder")
        targets = [output / name for name in output_names(sources)]
    if mask_out is not None and mask_out.resolve() == targets[0].parent.resolve():
        raise ConfigError(f"--mask-out {mask_out}: choose another folder than that of the purified images")
    taken = {source.path.resolve() for source in sources}
    for target in targets:
        for path in (target, *([mask_out / target.name] if mask_out is not None else [])):
            if path.resolve() in taken:
                raise ConfigError(f"{path} is an input and would be overwritten; choose another place with -o")
    return targets

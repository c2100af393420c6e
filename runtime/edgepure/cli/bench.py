"""``edgepure bench``: how fast a bundle is here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from .groups import grouped
from .options import BundleArgument, EngineOptions, PresetOptions, ShownOptions, given


@grouped
def bench(
    bundle: BundleArgument,
    *,
    chosen: PresetOptions,
    batch: Annotated[str, typer.Option(metavar="N,N,...", help="Batch sizes.")] = "1,8",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; the medians are reported.")] = 5,
    frame: Annotated[
        str | None,
        given(
            "WxH",
            "Show what a frame of this size would take by tiles: its UNet calls times the measured step call. "
            "Default: the frames of the bundle's task.",
        ),
    ] = None,
    lanes: Annotated[
        str | None,
        given(
            "N,N,...",
            "Show too what `edgepure serve` would answer with so many lanes of 8 slots: images a second while it has "
            "enough to do, and the time of a single one. Without --threads the cores are shared out among the lanes.",
        ),
    ] = None,
    engine: EngineOptions,
    shown: ShownOptions,
) -> None:
    """Measure a bundle on this machine: the bare UNet call, the step call, and what a purification adds to them.

    "loop cost" is the time of a purification over (rows x bare UNet call); 1 would mean that everything around the
    UNet costs nothing. "loop alone" is a row on an engine that answers at once: scheduling and noise. Everything is
    timed side by side in the same rounds.

    Examples:

    \b
      edgepure bench digits
      edgepure bench digits --preset heterogeneous --batch 1,4,16 --repeats 9 --json
      edgepure bench digits --frame 128x96
      edgepure bench digits --batch 8 --lanes 1,2
    """
    from ..bundle.bundle import Bundle
    from ..measure import bench as run
    from ..measure_lanes import LaneRate, lane_rates
    from ..purify.purifier import Purifier
    from ..report.numerals import number
    from .frame_cost import frame_cost, frame_of
    from .output import emit_json, say, size, table
    from .presets import choose_preset
    from .progress import Progress

    sizes, counts = parse_sizes(batch), [] if lanes is None else parse_lanes(lanes)
    with Progress("opening the bundle"):
        opened = Bundle.open(bundle)
    name, preset = choose_preset(opened.manifest.presets, opened.manifest.default_preset, chosen.preset, chosen.change)
    image, planner = opened.manifest.image.shape, opened.manifest.planner()
    frame = frame or frame_of(opened.manifest)
    of_frame = None if frame is None else frame_cost(frame, image, planner, preset)
    rates: tuple[LaneRate, ...] = ()
    if counts:
        with Progress("measuring lanes") as bar:
            rates = lane_rates(opened, preset, lanes=counts, **asdict(engine), repeats=repeats, on_progress=bar.update)
    with Progress("measuring") as bar, Purifier(opened, **asdict(engine), slots=max(sizes)) as purifier:
        found = run(purifier, preset, batches=sizes, repeats=repeats, on_progress=bar.update)
    seconds = [] if of_frame is None else [of_frame.seconds(s.step_ms / s.batch) for s in found.speeds]
    if shown.as_json:
        about = None if of_frame is None else {**of_frame.to_dict(), "seconds": seconds}
        emit_json(
            {
                **found.to_dict(),
                "preset": name,
                "precision": engine.precision,
                "threads": engine.threads,
                "frame": about,
                "lanes": [rate.to_dict() for rate in rates],
            }
        )
        return
    what = f"{found.bundle}, preset {name}, {engine.provider} ({found.engine}), {engine.precision}"
    say(f"{what}: {found.unet_calls} UNet calls for one decision")
    columns = ("batch", "UNet call", "step call", "loop alone", "loop cost", "images/s")
    table(
        columns,
        (
            (
                s.batch,
                f"{s.unet_ms:.3f} ms",
                f"{s.step_ms:.3f} ms",
                "-" if s.loop_ms is None else f"{s.loop_ms:.3f} ms",
                f"{s.loop_cost:.3f}",
                number(s.images_per_second),
            )
            for s in found.speeds
        ),
        right=columns,
    )
    if of_frame is not None:
        say(of_frame.sentence())
        each = ", ".join(f"{n:.3g} s in batches of {s.batch}" for n, s in zip(seconds, found.speeds, strict=True))
        say(f"calls times the measured step call: {each}; the frame itself was not run")
    if rates:
        heads = ("lanes", "threads each", "images/s", "one alone")
        cells = ((r.lanes, r.threads or "-", number(r.images_per_second), f"{number(r.alone_ms)} ms") for r in rates)
        table(heads, cells, right=heads)
    memory = "" if found.peak_memory_bytes is None else f"; peak memory {size(found.peak_memory_bytes)}"
    say(f"medians of {found.repeats} rounds of {found.rows_timed} rows{memory}")


def parse_sizes(text: str) -> list[int]:
    """The numbers of ``--batch``. Raises ConfigError for anything else."""
    from ..errors import ConfigError

    if (sizes := _numbers(text, 4096)) is None:
        raise ConfigError(
            f"--batch {text!r}: expected batch sizes from 1 to 4096, for example 1,8", code="E-bench-batch"
        )
    return sizes


def parse_lanes(text: str) -> list[int]:
    """The numbers of ``--lanes``. Raises ConfigError for anything else."""
    from ..errors import ConfigError
    from ..purify.arguments import MAX_LANES

    if (counts := _numbers(text, MAX_LANES)) is None:
        raise ConfigError(
            f"--lanes {text!r}: expected numbers of lanes from 1 to {MAX_LANES}, for example 1,2", code="E-bench-lanes"
        )
    return counts


def _numbers(text: str, most: int) -> list[int] | None:
    parts = [part.strip() for part in text.split(",")]
    return [int(part) for part in parts] if all(p.isdecimal() and 1 <= int(p) <= most for p in parts) else None

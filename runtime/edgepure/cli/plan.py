"""``edgepure plan``: the rows of a purification before they cost anything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import DebugOption, JsonOption, PresetOption, SetOption, given

if TYPE_CHECKING:
    from ..methods.planner import Planner
    from ..methods.presets import Preset
    from ..rows.plan import Plan, Row

#: Longer plans are shown with their first and last rows.
SHOWN_FIRST, SHOWN_LAST = 14, 10


def plan(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE", help="The folder of a bundle; without one, give --method.", show_default=False
        ),
    ] = None,
    preset: PresetOption = None,
    method: Annotated[
        str | None,
        given(None, "uniform, heterogeneous, repaint, gdmp, gnsp, smooth, split or an installed one; see --set."),
    ] = None,
    change: SetOption = [],  # noqa: B006 - typer copies it
    score_norm: Annotated[
        float | None,
        given(None, "With SSNI: the plan of an image with this score norm. Default: the full noise level."),
    ] = None,
    schedule: Annotated[
        str | None,
        given("KIND|FILE", "Without a bundle: linear, scaled_linear, cosine, vp_sde, or a JSON file. Default: linear."),
    ] = None,
    image: Annotated[str | None, given("CxHxW", "Without a bundle: the image size. Default: 3x32x32.")] = None,
    frame: Annotated[
        str | None,
        given(
            "WxH",
            "Count the tiles and UNet calls of a frame of this size, too. Default: the frames of the bundle's task.",
        ),
    ] = None,
    call_ms: Annotated[
        float | None,
        given(
            None,
            "With --frame: milliseconds of one UNet call of one tile, as you measured them (`edgepure "
            "bench` does); gives the seconds of a frame.",
            min=1e-6,
        ),
    ] = None,
    wide: Annotated[bool, typer.Option("--wide", help="Show the sampler's coefficients too.")] = False,
    show_all: Annotated[bool, typer.Option("--all", help="Show every row of a long plan.")] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Show the rows of a purification and its UNet calls, without running it.

    One row is one call of the UNet at timestep t. The number of calls comes first: a wrong t is seen before it costs
    anything.

    Examples:

    \b
      edgepure plan digits --preset heterogeneous
      edgepure plan --method uniform --set t_star=100 --set steps=10
      edgepure plan --method heterogeneous --set t_l=200 --set t_s=100 --set ddim_steps=500 --wide
      edgepure plan --method uniform --set steps=5 --image 3x256x256 --frame 1920x1080 --call-ms 25
    """
    from ..bundle.bundle import Bundle
    from ..errors import ConfigError
    from .frame_cost import frame_cost, frame_of
    from .output import emit_json, say

    name, chosen, planner, shape = _subject(bundle, preset, method, change, schedule, image)
    if score_norm is not None and chosen.ssni is None:
        raise ConfigError("--score-norm is for presets with SSNI, and this one has none", code="E-plan-score-norm")
    rows = planner.plan(chosen, score_norm)
    cost = _cost(planner, chosen, rows)
    sigma, why = _certificate(planner, chosen)
    if frame is None and bundle is not None:
        frame = frame_of(Bundle.open(bundle, verify=False).manifest)
    of_frame = None if frame is None else frame_cost(frame, shape, planner, chosen)
    if of_frame is None and call_ms is not None:
        raise ConfigError("--call-ms is for --frame, and none is given", code="E-frame-option")
    seconds = None if of_frame is None or call_ms is None else of_frame.seconds(call_ms)
    if as_json:
        about = None if of_frame is None else {**of_frame.to_dict(), "seconds": seconds}
        data = {"preset": name, "decision": cost, "certified_sigma": sigma, "no_certificate": why, "frame": about}
        emit_json({**data, **rows.to_dict()})
        return
    for line in _summary(name, chosen, rows, cost, score_norm):
        say(line)
    if of_frame is not None:
        say(of_frame.sentence())
    if seconds is not None:
        say(f"at {call_ms:g} ms a call of one tile: {seconds:.3g} s a frame, {1.0 / seconds:.3g} frames/s, on paper")
    say(why or f"certificates: sigma {sigma:.4g} on images in [0, 1]; `edgepure certify` counts the votes")
    _table(rows, wide=wide, show_all=show_all)


def parse_image_size(text: str) -> tuple[int, int, int]:
    """``3x32x32`` -> (3, 32, 32)."""
    from ..errors import ConfigError

    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})x([1-9]\d{0,4})", text.lower())
    if found is None:
        raise ConfigError(
            f"image size {text!r}: expected CHANNELSxHEIGHTxWIDTH, for example 3x32x32", code="E-plan-image"
        )
    channels, height, width = (int(part) for part in found.groups())
    return channels, height, width


def parse_schedule(text: str | None) -> Any:
    """A `ScheduleSpec` from the name of a kind or a JSON file; None is the linear schedule."""
    from pydantic import TypeAdapter

    from ..rows.schedule import ScheduleSpec
    from .presets import check, read_json

    if text is not None and text.endswith(".json"):
        return check(
            TypeAdapter(ScheduleSpec), read_json(Path(text), "schedule"), f"schedule file {text}", "E-schedule"
        )
    return check(TypeAdapter(ScheduleSpec), {"kind": text or "linear"}, "schedule", "E-schedule")


def _subject(
    bundle: Path | None,
    preset: str | None,
    method: str | None,
    changes: list[str],
    schedule: str | None,
    image: str | None,
) -> tuple[str, Preset, Planner, tuple[int, int, int]]:
    from ..errors import ConfigError
    from ..methods.planner import Planner
    from .presets import choose_preset, method_preset

    if bundle is not None:
        from ..bundle.bundle import Bundle

        if schedule is not None or image is not None:
            raise ConfigError(
                "--schedule and --image are for plans without a bundle; a bundle has its own", code="E-plan-bundle"
            )
        manifest = Bundle.open(bundle, verify=False).manifest  # nothing is run, so weights need no hashing
        planner, shape = manifest.planner(), manifest.image.shape
        if method is None:
            return *choose_preset(manifest.presets, manifest.default_preset, preset, changes), planner, shape
    else:
        shape = parse_image_size(image or "3x32x32")
        planner = Planner(parse_schedule(schedule).build(), shape[0] * shape[1] * shape[2])
    if method is None and preset is not None and preset.endswith(".json"):
        return *choose_preset({}, preset, preset, changes), planner, shape
    if method is None or preset is not None:
        raise ConfigError(
            "say what to plan: a bundle (with --preset NAME), a preset file (--preset FILE.json), "
            "or --method NAME with --set KEY=VALUE; not --method and --preset together",
            code="E-plan-subject",
        )
    return method, method_preset(method, changes), planner, shape


def _certificate(planner: Planner, preset: Preset) -> tuple[float | None, str | None]:
    """The certified sigma, or the sentence why there is none."""
    from ..errors import ConfigError

    try:
        return planner.certified_sigma(preset), None
    except ConfigError as error:
        return None, str(error)


def _cost(planner: Planner, preset: Preset, plan: Plan) -> dict[str, int]:
    probes = planner.before(preset)
    votes = preset.votes.count
    calls = plan.unet_calls if preset.cascade is None else planner.answer_calls(preset)
    return {"rows": calls, "votes": votes, "probes": probes, "unet_calls": votes * calls + probes}


def _summary(name: str, preset: Preset, plan: Plan, cost: dict[str, int], score_norm: float | None) -> Iterator[str]:
    probes = f" + {cost['probes']} probes" if cost["probes"] else ""
    votes = f"{cost['votes']} vote{'s' if cost['votes'] > 1 else ''}"
    most = "at most " if preset.votes.sequential is not None else ""
    rows = f"{cost['rows']} row{'s' if cost['rows'] > 1 else ''}"
    yield f"UNet calls for one decision: {most}{cost['unet_calls']} = {rows} x {votes}{probes}"
    levels = ", ".join(f"{key} {value:g}" for key, value in plan.levels.items())
    yield f"{name}: {plan.method}" + (f", {levels}" if levels else "")
    if preset.cascade is not None:
        then = ", ".join(f"{method.method} {method.top_level:g}" for method in preset.cascade.then)
        yield (
            f"cascade: where no class has {100 * preset.cascade.share:g} % of the answers, then {then}; the rows are "
            "those of the first"
        )
    if preset.ssni is not None:
        if score_norm is None:
            yield f"SSNI ({preset.ssni.reweighting}) sets the noise level of every image; these are the rows of t*"
        else:
            yield f"SSNI ({preset.ssni.reweighting}): the rows of an image with score norm {score_norm:g}"
    stages: dict[str, int] = {}
    for row in plan.rows:
        stages[row.stage] = stages.get(row.stage, 0) + 1
    if stages:
        counted = ", ".join(f"{count} {stage}" for stage, count in stages.items())
        yield f"rows: {counted}; t from {plan.rows[0].t:g} to {plan.rows[-1].t:g}, ends at {_level(plan.rows[-1])}"
    if plan.closing_std > 0.0:
        yield f"noise of standard deviation {plan.closing_std:.3g} is added after the last row"
    for fact in plan.notes:
        yield f"note: {fact}"


def _table(plan: Plan, *, wide: bool, show_all: bool) -> None:
    from .output import say, table

    if not plan.rows:
        return
    columns = ["row", "stage", "t", "next level", "std in", "std out", "known", "jump"]
    if wide:
        columns += ["alpha", "sigma", "clip", "out_x", "out_z", "out_x0", "out_eps", "out_ref"]
        if plan.learned_variance:
            columns += ["log_var_max", "log_var_min", "out_noise", "var_z", "var_ref"]
    count = len(plan.rows)
    hidden = 0 if show_all else max(count - SHOWN_FIRST - SHOWN_LAST, 0)
    lines: list[list[str]] = []
    for index, row in enumerate(plan.rows):
        if hidden and index == SHOWN_FIRST:
            lines.append(["...", f"({hidden} rows)", *[""] * (len(columns) - 2)])
        if not SHOWN_FIRST <= index < SHOWN_FIRST + hidden:
            lines.append(_cells(index, row, columns))
    say("")
    table(columns, lines, right=[c for c in columns if c not in ("stage", "known")])
    if hidden:
        say(f"\n{hidden} rows are not shown; --all shows them")


def _cells(index: int, row: Row, columns: list[str]) -> list[str]:
    known = {(0.0, 0.0): "-", (0.0, 1.0): "outside", (1.0, 0.0): "inside", (1.0, 1.0): "everywhere"}
    jumps = row.w_in != 1.0 and (row.jump_s > 0.0 or row.jump_a != 1.0)
    cells = [
        str(index), row.stage, f"{row.t:g}", _level(row), f"{row.std(1.0):.4f}", f"{row.std(0.0):.4f}",
        known.get((row.w_in, row.w_out), "partly"), f"{row.jump_s:.4f}" if jumps else "-",
    ]  # fmt: skip
    return cells + [f"{getattr(row, name):.6g}" for name in columns[len(cells) :]]


def _level(row: Row) -> str:
    return "clean" if row.next_level == -1.0 else f"{row.next_level:g}"

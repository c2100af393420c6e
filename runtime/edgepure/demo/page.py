"""Turn a `DemoReport` into one self-contained HTML page: no script, no font, no file from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from ..report.style import CSS
from ..report.text import printable_lines
from .report import COLUMNS, DemoReport, Gallery, MethodScores, Picture
from .scores import Score

#: Tint of the pixels inside a mask, RGB in 0..1.
MASK_TINT = np.array([0.93, 0.35, 0.16], dtype=np.float32)


def render(report: DemoReport) -> str:
    """The page, as UTF-8 text."""
    sections = [
        _headline(report),
        *(_gallery(g) for g in report.galleries[:1]),
        _accuracy(report),
        *(_gallery(g) for g in report.galleries[1:]),
        _plan(report),
        _facts(report),
    ]
    return page(report.title, sections)


def page(title: str, sections: Iterable[str], more_css: str = "") -> str:
    """A whole page of these sections (HTML); empty ones are left out."""
    return printable_lines(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}{more_css}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(s for s in sections if s)
        + "\n</main>\n</body>\n</html>\n"
    )


def png_data_uri(picture: Picture) -> str:
    """The pixels (with the mask's tint, if there is one) as a PNG inside a data URI."""
    pixels = np.clip(picture.pixels, 0.0, 1.0).transpose(1, 2, 0)
    if picture.mask is not None:
        pixels = np.repeat(pixels, 3 // pixels.shape[2], axis=2)
        tinted = 0.4 * pixels + 0.6 * MASK_TINT
        pixels = np.where(picture.mask[:, :, None], tinted, pixels)
    eight_bit = np.rint(255.0 * pixels).astype(np.uint8)
    image = Image.fromarray(eight_bit[:, :, 0] if eight_bit.shape[2] == 1 else eight_bit)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _headline(report: DemoReport) -> str:
    best = report.method(report.default)
    cards = [
        ("Attacked, no defence", report.plain.get("attacked"), "the plain classifier"),
        ("Attacked, purified", best.attacked, f"{best.name}, {_number(best.unet_calls)} UNet calls"),
        ("Clean, purified", best.clean, f"without the defence {_percent(report.plain.get('clean'))}"),
        (
            "Attacked through the defence",
            best.whitebox,
            f"without the defence {_percent(report.plain.get('whitebox'))}",
        ),
    ]
    shown = "".join(
        f'<div class="card {_tone(score)}"><span>{escape(label)}</span><strong>{_percent(score)}</strong>'
        f"<small>{escape(below)}</small></div>"
        for label, score, below in cards
        if score is not None
    )
    return (
        f"<header><h1>{escape(report.title)}</h1><p>{escape(report.summary)}</p>"
        f'<div class="cards">{shown}</div></header>'
    )


def _gallery(gallery: Gallery) -> str:
    strips = "".join(
        f'<article class="strip"><h3>{escape(caption)}</h3><div class="pictures">'
        + "".join(_picture(p) for p in pictures)
        + "</div></article>"
        for caption, pictures in gallery.strips
    )
    return (
        f"<section><h2>{escape(gallery.title)}</h2><p>{escape(gallery.note)}</p>"
        f'<div class="strips{" wide" if gallery.wide else ""}">{strips}</div></section>'
    )


def _picture(picture: Picture) -> str:
    verdict = ""
    if picture.verdict:
        tone = "" if picture.right is None else ("good" if picture.right else "bad")
        sign = {"good": " &#10003;", "bad": " &#10007;", "": ""}[tone]
        verdict = f'<b class="{tone}">{escape(picture.verdict)}{sign}</b>'
    alt = f"{picture.title}: {picture.verdict}" if picture.verdict else picture.title
    return (
        f'<figure><img src="{png_data_uri(picture)}" alt="{escape(alt)}">'
        f"<figcaption>{escape(picture.title)}{verdict}</figcaption></figure>"
    )


def _accuracy(report: DemoReport) -> str:
    shown = [(key, heading) for key, heading in COLUMNS if _measured(report, key)]
    head = "".join(f'<th class="num">{heading}<sup>{i}</sup></th>' for i, (_, heading) in enumerate(shown, start=1))
    plain = "".join(_cell(report.plain.get(key)) for key, _ in shown)
    lines = [
        f'<tr class="plain"><th scope="row">no purification<small>the classifier alone</small></th>'
        f'<td class="num">0</td><td class="num">-</td>{plain}</tr>'
    ]
    for method in report.methods:
        cells = "".join(_cell(getattr(method, key)) for key, _ in shown)
        mark = ' class="default"' if method.name == report.default else ""
        lines.append(f"<tr{mark}>{_method_cells(method)}{cells}</tr>")
    notes = "".join(f"<li>{escape(_footnote(report, key))}</li>" for key, _ in shown)
    more = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return (
        '<section><h2>Accuracy</h2><div class="scroll"><table><thead><tr><th>Method</th>'
        f'<th class="num">UNet calls</th><th class="num">ms / image</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
        f'<ol class="notes">{notes}</ol><div class="notes">'
        "<p>Below each accuracy: its 95 % Clopper-Pearson interval; the bar shows the accuracy. UNet calls: of one "
        "purification, the mean over the images; in brackets of one decision with all its votes. ms / image: of one "
        f"decision, many images at once, on this machine.</p>{more}</div></section>"
    )


def _method_cells(method: MethodScores) -> str:
    time = "-" if method.ms_per_image is None else f"{method.ms_per_image:.1f}"
    return (
        f'<th scope="row">{escape(method.name)}<small>{escape(method.description)}</small></th>'
        f'<td class="num">{_number(method.unet_calls)}<small>({_number(method.unet_calls_decision)})</small></td>'
        f'<td class="num">{time}</td>'
    )


def _cell(score: Score | None) -> str:
    if score is None:
        return '<td class="num">-</td>'
    low, high = score.interval
    return (
        f'<td class="num"><b>{_percent(score)}</b><small>{100 * low:.1f} to {100 * high:.1f}</small>'
        f'<span class="bar {_tone(score)}"><i style="width:{100 * score.fraction:.1f}%"></i></span></td>'
    )


def _footnote(report: DemoReport, key: str) -> str:
    heading = dict(COLUMNS)[key]
    text = f"{heading}: {report.protocols[key].sentence()}" if key in report.protocols else heading
    own = report.protocols.get(f"plain_{key}")
    if own is not None:
        text += f" The classifier alone: {own.sentence()}"
    for rule, words in (("single", "the first purification alone"), ("worst", "every purification right")):
        best = getattr(report.method(report.default), key)
        count = None if best is None else getattr(best, rule)
        if best is not None and count is not None:
            text += f" {report.default}, {words}: {100 * count / best.images:.1f} %."
    return text


def _plan(report: DemoReport) -> str:
    if not report.plan:
        return ""
    rows = "".join(
        f'<tr><td class="num">{i}</td><td>{escape(str(row["stage"]))}</td><td class="num">{row["t"]:g}</td>'
        f'<td class="num">{_level(row["to"])}</td></tr>'
        for i, row in enumerate(report.plan, start=1)
    )
    return (
        f"<section><h2>What {escape(report.default)} does</h2><p>One row is one call of the UNet: from one noise level "
        "(timestep) to the next. <code>edgepure plan</code> prints the same for every preset.</p>"
        '<div class="scroll narrow"><table><thead><tr><th class="num">Call</th><th>Stage</th>'
        f'<th class="num">t</th><th class="num">to</th></tr></thead><tbody>{rows}</tbody></table></div></section>'
    )


def _facts(report: DemoReport) -> str:
    timings = {f"time, {stage}": f"{seconds:.1f} s" for stage, seconds in report.timings.items()}
    facts = {**_flat(report.facts), **timings}
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<footer><h2>Measured with</h2><dl>{lines}</dl></footer>"


def _flat(facts: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """Nested facts as "above, key": text."""
    flat: dict[str, str] = {}
    for key, value in facts.items():
        name = f"{above}, {key}" if above else key
        if isinstance(value, Mapping):
            flat.update(_flat(value, name))
        else:
            flat[name] = f"{value:.3g}" if isinstance(value, float) else str(value)
    return flat


def _measured(report: DemoReport, key: str) -> bool:
    return report.plain.get(key) is not None or any(getattr(m, key) is not None for m in report.methods)


def _percent(score: Score | None) -> str:
    return "-" if score is None else f"{100 * score.fraction:.1f} %"


def _tone(score: Score | None) -> str:
    """Green, amber or red."""
    if score is None:
        return ""
    return "good" if score.fraction >= 0.8 else "fair" if score.fraction >= 0.5 else "bad"


def _number(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.1f}"


def _level(value: float) -> str:
    return "clean" if value < 0 else f"{value:g}"

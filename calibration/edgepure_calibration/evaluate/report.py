"""An evaluation as one HTML page: tables, resubmission curves, images, protocols. Nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from edgepure.demo.page import png_data_uri
from edgepure.demo.report import Picture
from edgepure.files.atomic import write_text
from edgepure.report.style import CSS
from edgepure.report.text import printable_lines

from ..page import check_tools
from ..plots import figure_to_data_uri, new_figure
from .protocol import Footnotes
from .results import Evaluation, PresetResult
from .tables import agreement_table, attack_table, mask_table, policy_table, summary_table

#: Images shown of each preset, and how much a perturbation is enlarged to be seen.
_SHOWN, _ENLARGED = 4, 5.0

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ title }}</title><style>{{ css | safe }}
img.plot{aspect-ratio:auto;image-rendering:auto;background:#fff;max-width:52rem}</style></head><body><main>
<header><h1>{{ title }}</h1><p>{{ summary }}</p></header>
{% for section in sections %}<section><h2>{{ section.title }}</h2><p>{{ section.note }}</p>
{% if section.columns %}<div class="scroll"><table><thead><tr>{% for name in section.columns %}<th>{{ name }}</th>
{% endfor %}</tr></thead><tbody>{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor
%}</tr> {% endfor %}</tbody></table></div>{% endif %}
{% if section.plot %}<img class="plot" src="{{ section.plot }}" alt="{{ section.title }}">{% endif %}
{% if section.strips %}<div class="strips wide">{% for strip in section.strips %}<article class="strip">
<h3>{{ strip.title }}</h3><div class="pictures">{% for p in strip.pictures %}<figure><img src="{{ p.uri }}" alt="{{
p.name }}"> <figcaption>{{ p.name }}</figcaption></figure>{% endfor %}</div></article>{% endfor %}</div>{% endif
%}</section> {% endfor %}<section><h2>What was not tested</h2><ul>{% for line in not_tested %}<li>{{ line }}</li>{%
endfor %}</ul></section> <section class="notes"><h2>Protocols</h2>{% for line in protocols %}<p>{{ line }}</p>{% endfor
%}</section> <footer><h2>Measured with</h2><dl>{% for key, value in facts.items() %}<dt>{{ key }}</dt><dd>{{ value
}}</dd>{% endfor %} </dl></footer></main></body></html>
"""


@dataclass(frozen=True)
class _Shown:
    """A section with a plot or with pictures."""

    title: str
    note: str
    plot: str = ""
    strips: tuple[dict[str, Any], ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write_report(found: Evaluation, path: str | PathLike[str]) -> Path:
    """Write the page, whole or not at all.

    Raises:
        EdgepureError: Matplotlib or Jinja2 is missing, or the file cannot be written.
    """
    check_tools()
    target = Path(path)
    write_text(target, render(found))
    return target


def render(found: Evaluation) -> str:
    """The page as UTF-8 text."""
    from jinja2 import Environment

    notes = Footnotes()
    sections: list[Any] = [summary_table(found, notes)]
    for preset in found.presets:
        sections.append(attack_table(preset, notes))
        if preset.attacks:
            sections += [_curves(preset), _pictures(preset, found)]
    sections += [mask_table(found, notes), policy_table(found, notes), agreement_table(found)]
    page = Environment(autoescape=True).from_string(_PAGE)
    text = page.render(
        title=f"Robustness of {found.bundle}",
        css=CSS,
        summary=f"{len(found.labels)} images. Attacks through the differentiable twin; every number was answered by "
        f"the deployed graphs ({found.facts['engine']}). Each accuracy cites its protocol, below.",
        sections=[s for s in sections if s is not None],
        not_tested=found.not_tested(),
        protocols=notes.lines(),
        facts=_facts(found),
    )
    return printable_lines(text)


def _facts(found: Evaluation) -> dict[str, str]:
    """What the numbers were measured with, nested facts in one line each."""
    shown: dict[str, str] = {}
    for key, value in found.facts.items():
        if not isinstance(value, Mapping):
            shown[key] = str(value)
            continue
        for preset, memory in value.items():
            shown[f"{key}, {preset}"] = (
                f"{memory['weights'] / 1e6:.1f} MB of weights, {memory['per_copy'] / 1e6:.2f} MB for each copy of an "
                f"image; {memory['copies_in_24_GB']} copies fit 24 GB"
            )
    return shown


def _curves(preset: PresetResult) -> _Shown:
    figure, axes = new_figure()
    for attack in (preset.clean, *preset.attacks):
        queries = np.arange(1, len(attack.resubmission) + 1)
        axes.plot(queries, [100 * v for v in attack.resubmission], marker=".", label=attack.protocol.title)
    axes.set_xlabel("queries with the same image")
    axes.set_ylabel("read wrong at least once, %")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="x-small")
    return _Shown(
        f"{preset.name}: sending an image again",
        "Share of the images that were read wrong at least once after so many single purifications with fresh noise: "
        "what an attacker gains by trying again. Protocols as in the table above.",
        plot=figure_to_data_uri(figure),
    )


def _pictures(preset: PresetResult, found: Evaluation) -> _Shown:
    """The first image of some classes, its attacked versions, and the change beside each."""
    picks = [int(np.flatnonzero(found.labels == c)[0]) for c in np.unique(found.labels)][:_SHOWN]
    strips = []
    for i in picks:
        pictures = [{"uri": png_data_uri(Picture(found.images[i], "")), "name": "clean"}]
        for attack in preset.attacks:
            change = attack.images[i] - found.images[i]
            for pixels, name in (
                (attack.images[i], attack.protocol.title),
                (np.clip(0.5 + _ENLARGED * change, 0.0, 1.0), f"change x {_ENLARGED:g}"),
            ):
                pictures.append({"uri": png_data_uri(Picture(pixels, "")), "name": name})
        strips.append({"title": f"true class {found.classes[int(found.labels[i])]}", "pictures": pictures})
    return _Shown(f"{preset.name}: attacked images", "The first seed of each attack.", strips=tuple(strips))

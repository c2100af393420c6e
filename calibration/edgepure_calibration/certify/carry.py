"""A certificate of one precision, carried to another from few answers of both to the same noise."""

from __future__ import annotations

from dataclasses import replace

from edgepure import Preset, Purifier
from edgepure.images.dataset import LabelledImages
from edgepure.purify.certificate import CertifySettings, carried
from edgepure.purify.certify import Certifier
from edgepure.rows.noise import NoiseSource
from edgepure.types import Progress

from ..digest import image_key
from ..work import Work
from .results import Curve


def carry(
    curve: Curve,
    preset: Preset,
    data: LabelledImages,
    first: Purifier,
    second: Purifier,
    settings: CertifySettings,
    *,
    pairs: int,
    source: NoiseSource,
    graphs: str,
    work: Work,
    on_progress: Progress | None = None,
) -> Curve:
    """The certificates of ``curve``, counted with ``first``, as they hold for ``second``.

    ``pairs`` votes of each image that were not counted before are purified by both with the same noise. The bound of
    their difference may err with probability alpha too, so each certificate is wrong with twice alpha at most.

    Args:
        data: the images of the curve, in its order.
        source: of the noise of the pairs.
        graphs: key of those of ``second``.
        work: keeps how many answers of an image differ.
    """
    start = settings.chosen_by + settings.n
    votes = range(start, start + pairs)
    ones, others = (Certifier(purifier.graphs, preset, settings) for purifier in (first, second))
    entries = []
    for number, entry in enumerate(curve.entries):
        image, ids = data.images[number : number + 1], [entry.index]
        what = {"image": image_key(image[0]), "number": entry.index, "pairs": [votes.start, votes.stop]}
        differing = work.recall(what)
        if not isinstance(differing, int):
            with first.turns.alone():
                mine = ones.answers(image, source, votes, ids)
            with second.turns.alone():
                theirs = others.answers(image, source, votes, ids)
            differing = int((mine != theirs).sum())
            work.remember(what, differing)
        entries.append(replace(entry, certificate=carried(entry.certificate, differing, pairs, settings.alpha)))
        if on_progress is not None:
            on_progress((number + 1) / len(curve.entries), f"{curve.name}, carried to {second.precision}")
    name = f"{curve.name}-{second.precision}"
    return replace(curve, name=name, entries=tuple(entries), carried_to=second.precision, graphs=graphs)

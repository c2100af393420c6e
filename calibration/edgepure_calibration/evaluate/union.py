"""The union of several attacks: an image is right only if it is right unattacked and under each of them.

So AutoAttack counts its ensemble (Croce & Hein 2020). A randomised defence is asked anew for every attack, so with
single answers each attack adds a chance of error of its own, as sending an image again does; the majority vote suffers
least from that.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..attacks.protocol import AttackProtocol
from .accuracy import Accuracy, Rule
from .draws import Draws


def union(
    made: AttackProtocol, rules: Sequence[Rule], clean: Draws, attacked: Sequence[Sequence[Draws]]
) -> tuple[Accuracy, ...]:
    """The accuracy by each rule.

    Args:
        made: of the union; its seeds are those of the attacks.
        rules: decision rules.
        clean: answers on the unattacked images.
        attacked: for each attack, and for each seed of the protocol, the answers on the same images attacked.
    """
    found = []
    for rule in rules:
        counts = []
        for seed in range(len(made.seeds)):
            right = clean.right(rule)
            for draws in attacked:
                right = right & draws[seed].right(rule)
            counts.append(int(right.sum()))
        found.append(Accuracy(made, rule, tuple(counts), len(clean.labels)))
    return tuple(found)

"""The attacks that there are: those of this folder, and those that installed packages declare under
``edgepure.attacks``."""

from __future__ import annotations

from functools import cache

from edgepure.errors import ConfigError
from edgepure.machine.packages import extensions

from .apgd import AutoPgdAttack, AutoPgdCrossEntropy, AutoPgdDlr
from .attack import Attack
from .bpda import BpdaAttack
from .geometry import GeometryAttack
from .low_frequency import FinerFieldAttack, LowFrequencyAttack
from .patch import PatchAttack
from .pgd import PgdAttack
from .revision import ATTACK_REVISION
from .small_norm import SmallNormAttack
from .square import SquareAttack
from .surrogate import SurrogateAttack
from .transfer import TransferAttack

#: The entry-point group in which another package names its attacks.
GROUP = "edgepure.attacks"
#: In the order in which they are run and shown.
BUILT_IN: tuple[Attack, ...] = (
    TransferAttack(),
    BpdaAttack(),
    SurrogateAttack(),
    PgdAttack(),
    SmallNormAttack(),
    AutoPgdCrossEntropy(),
    AutoPgdDlr(),
    AutoPgdAttack(),
    LowFrequencyAttack(),
    FinerFieldAttack(),
    PatchAttack(),
    GeometryAttack(),
    SquareAttack(),
)
#: What is run unless attacks are named.
DEFAULT_ATTACKS = ("transfer", "pgd", "apgd", "low-frequency", "square")


@cache
def known_attacks() -> dict[str, Attack]:
    """Every attack by its name; those of other packages come last.

    Raises:
        ConfigError: a package declares something else than an attack, or under another name than its own.
    """
    found = {attack.name: attack for attack in BUILT_IN}
    for name, point in extensions(GROUP).items():
        if name in found:
            continue
        attack = point.load()
        attack = attack() if isinstance(attack, type) else attack
        if not isinstance(attack, Attack) or attack.name != name:
            raise ConfigError(
                f"the entry point {name!r} of {GROUP} ({point.value}) is not an Attack with the name {name!r}; mend or "
                "remove the package that declares it",
                code="E-attack-extension",
            )
        found[name] = attack
    return found


def attack_named(name: str) -> Attack:
    """One attack.

    Raises:
        ConfigError: there is none of this name.
    """
    found = known_attacks()
    if name not in found:
        raise ConfigError(f"attack {name!r}: choose among {', '.join(found)}", code="E-attack-unknown")
    return found[name]


def attack_version(attack: Attack) -> str:
    """What kept results of an attack depend on besides its settings: its revision, and whose it is."""
    point = extensions(GROUP).get(attack.name)
    if attack in BUILT_IN or point is None or point.dist is None:
        return f"{ATTACK_REVISION}.{attack.revision}"
    return f"{attack.revision} of {point.dist.name} {point.dist.version}"

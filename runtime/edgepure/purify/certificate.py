"""A certificate, how it is counted, and what is left of it on other graphs.

The rule is that of Cohen et al. 2019 (arXiv 1902.02918): ``n0`` answers choose a class, ``n`` fresh ones count it,
``p`` is the one-sided exact lower bound of its share at ``1 - alpha``, and the smoothed answer is this class for every
image within ``sigma * PhiInv(p)``; below p = 1/2 it abstains. With ``radius`` the counting of an image stops as soon as
that radius is settled, by bounds that hold at all times at once (`edgepure.intervals`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from statistics import NormalDist
from typing import Any

from ..errors import ConfigError
from ..intervals import lower_bound
from ..validation import expect
from .tally import FixedTally, RadiusTally, Tally, share_of

NORMAL = NormalDist()
#: Answers of one kind to one image: votes have 24 bits in the noise stream.
MOST = 1 << 23


@dataclass(frozen=True)
class Certificate:
    """What is proven of one image, with an error of at most ``alpha``.

    Attributes:
        name: file name or position of the image.
        label: the class that the smoothed classifier gives it; None: it abstains.
        class_name: its name.
        radius: L2, on images in [0, 1]: the label is the same for every image that is nearer. 0 if it abstains.
        sigma: the certified noise of the plan, on images in [0, 1].
        probability: lower bound of the share of answers that are this class.
        count: how many of ``samples`` answers were this class.
        samples: answers that were counted; those that chose the class are not among them. With ``radius``: since the
            class became a candidate.
        answers: how many it took in all.
        exact: True if the noise was drawn on the grid of 8-bit levels, so that the proof covers the arithmetic too.
        seconds: from the image's first answer to its last.
    """

    name: str
    label: int | None
    class_name: str | None
    radius: float
    sigma: float
    probability: float
    count: int
    samples: int
    answers: int
    exact: bool
    seconds: float = field(compare=False)

    @property
    def abstained(self) -> bool:
        return self.label is None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**self.__dict__, "seconds": round(self.seconds, 6)}


@dataclass(frozen=True)
class CertifySettings:
    """How much is counted, and how sure the certificate is.

    Attributes:
        n: answers that are counted for each image, at most with ``radius``.
        n0: answers that choose the class first; None: 100, and 1 with ``radius``, where another class may take its
            place later.
        alpha: the probability that the certificate of an image is wrong, at most.
        radius: the counting of an image ends when this radius is settled either way; None: all ``n`` are counted.
    """

    n: int = 10_000
    n0: int | None = None
    alpha: float = 0.001
    radius: float | None = None

    def __post_init__(self) -> None:
        expect(
            n=(self.n, Integral),
            n0=(self.n0, Integral, None),
            alpha=(self.alpha, Real),
            radius=(self.radius, Real, None),
        )
        for name, count in (("n", self.n), ("n0", self.chosen_by)):
            if not 1 <= count <= MOST:
                raise ConfigError(f"{name} {count} must lie in 1 .. {MOST}", code="E-certificate-count")
        if not 0.0 < self.alpha < 0.5:
            raise ConfigError(f"alpha {self.alpha} must lie in (0, 0.5)", code="E-certificate-alpha")
        if self.radius is not None and not 0.0 <= self.radius < 100.0:
            raise ConfigError(f"radius {self.radius} must lie in [0, 100)", code="E-certificate-radius")

    @property
    def chosen_by(self) -> int:
        """How many answers choose the class."""
        return self.n0 if self.n0 is not None else 100 if self.radius is None else 1

    def tally(self, sigma: float) -> Tally:
        """Counts the answers to an image with certified noise ``sigma``."""
        if self.radius is None:
            return FixedTally(self.chosen_by, self.n, self.alpha)
        return RadiusTally(self.chosen_by, self.n, self.alpha, share_of(self.radius, sigma))

    def reach(self, sigma: float) -> float:
        """The radius of an image to which all answers agree: no other gets a larger one. 0: even that one abstains."""
        share = self.tally(sigma).proven(self.n, self.n)
        return sigma * NORMAL.inv_cdf(share) if share > 0.5 else 0.0

    def check_reach(self, reach: float, sigma: float) -> None:
        """Refuse to count what can prove nothing, or not the radius that is asked for, where ``reach`` is the largest
        of this noise.

        Raises:
            ConfigError: code ``E-certificate-count`` or ``E-certificate-radius``.
        """
        if reach <= 0.0:
            raise ConfigError(
                f"{self.n} answers prove nothing at alpha {self.alpha:g}, even where all agree; count more (n), or "
                "give a larger alpha",
                code="E-certificate-count",
            )
        if self.radius is not None and reach < self.radius:
            raise ConfigError(
                f"{self.n} answers prove no radius above {reach:.3g} at sigma {sigma:.3g} and alpha {self.alpha:g}, "
                f"even where all agree, and {self.radius:g} is asked for; count more (n), or choose stronger noise "
                "or a smaller radius",
                code="E-certificate-radius",
            )


def carried(certificate: Certificate, differing: int, pairs: int, beta: float) -> Certificate:
    """The certificate of other graphs, an INT8 variant for example, from that of these and from few answers of both.

    With the same noise the share of answers that differ is at most ``u``, except with probability ``beta``; so the
    class has at least the share ``p - u`` there (arXiv 2305.19521). It is wrong with probability ``alpha + beta`` at
    most.

    Args:
        differing: how many of ``pairs`` fresh answers with equal noise differed.
    """
    p = certificate.probability - (1.0 - lower_bound(pairs - differing, pairs, beta))
    if certificate.label is None or p <= 0.5:
        return replace(certificate, label=None, class_name=None, radius=0.0, probability=max(p, 0.0))
    return replace(certificate, radius=certificate.sigma * NORMAL.inv_cdf(p), probability=p)
